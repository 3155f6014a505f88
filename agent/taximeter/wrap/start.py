"""The second half of the launcher: from a bare interpreter to the wrapper, or to the rest of the program.

Owns how modules of the wrapper are loaded: those that every run needs lie in one file with this one, whole.py, which
the build makes (see hatch_build.py); of others the compiled file is read and executed without the search that is most
of what an import costs. Refuses to know options. Written so that a Python that is too old can read it, and say so.
"""

import _imp
import _signal  # type: ignore[import-not-found]  # the module `signal` costs two milliseconds of enum
import gc
import marshal
import posix
import sys

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

#: What `taximeter run` needs before the command runs, each after those that it imports.
NAMES = ("argv", "entry", "command", "lines", "opening", "places", "writer", "run", "main")
#: And what it needs as soon as the command runs.
NEXT = ("proc", "facts", "ending")
#: Of whole.py only: the code of its modules by name, and the sources that it was made of, each with its size.
BODIES = {}  # type: dict[str, CodeType]
SOURCES = {}  # type: dict[str, int]
_OLDEST = (3, 11)
_HEADER_BYTES = 16
_MAX_BYTES = 65536


def main(lib: str, witness: str, words: "list[str]") -> None:
    """Begin. `lib` holds the package, if it is known; `witness` is PID:DESCRIPTOR for entry.Witness, or a dash."""
    if sys.version_info < _OLDEST:
        _other_python()
    if SOURCES and not is_up_to_date(lib, SOURCES):
        _start_from_source(lib, witness, words)  # never returns
    bare = bool(sys.flags.no_site)
    if bare:
        _make_packages(lib)
    else:
        _make_importable(lib)
    if words[:1] == ["run"]:
        gc.disable()  # a collection costs as much as a module, and finds nothing; watch enables it again
        if _signal.getsignal(_signal.SIGINT) != _signal.SIG_IGN:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # Python's own would end in a traceback
        if bare:
            load("binascii")
            load("taximeter.wire")
            for name in NAMES:
                load("taximeter.wrap." + name)
        from taximeter.wrap.main import main as run

        run(words[1:], witness, load if bare else __import__)
    from taximeter.cli import main as command_line

    sys.argv = ["taximeter"]
    sys.argv.extend(words)
    sys.exit(command_line())


def load(name: str) -> "ModuleType":
    """Import a module of a package that is loaded from its compiled file, if that is up to date, or an extension."""
    package_name, _, last = name.rpartition(".")
    if not package_name:
        return load_extension(name)
    package = sys.modules[package_name]
    code = BODIES.get(name) or read_code(package.__path__[0], last)
    if code is None:
        return __import__(name)
    module = sys.modules[name] = type(sys)(name)
    exec(code, module.__dict__)  # noqa: S102 -- as an import does
    setattr(package, last, module)
    return module


def load_extension(name: str) -> "ModuleType":
    """Import an extension module of the standard library from where those lie, or wherever else it is."""
    for path in sys.path:
        if name not in sys.builtin_module_names and path.endswith("/lib-dynload"):
            origin = f"{path}/{name}{_imp.extension_suffixes()[0]}"
            try:
                spec: Any = type(sys.implementation)(name=name, origin=origin)  # type: ignore[call-arg]  # a namespace
                module = _imp.create_dynamic(spec)
                _imp.exec_dynamic(module)
            except ImportError:
                break
            sys.modules[name] = module
            return module
    return __import__(name)


def read_code(path: str, last: str) -> "CodeType | None":
    """Return the compiled code of a module in a directory; None where it is missing or not made from the source."""
    data = read_compiled(path, last, _MAX_BYTES)
    if not data or len(data) == _MAX_BYTES:
        return None
    try:
        code: CodeType = marshal.loads(memoryview(data)[_HEADER_BYTES:])  # noqa: S302 -- as an import does
    except (EOFError, ValueError, TypeError):
        return None
    return code


def read_compiled(path: str, last: str, size: int) -> bytes:
    """Return the first `size` bytes of a compiled module; nothing where it is missing or not made from the source."""
    try:
        fd = posix.open(f"{path}/__pycache__/{last}.{sys.implementation.cache_tag}.pyc", posix.O_RDONLY)
        data = posix.read(fd, size)
        posix.close(fd)
        source = posix.stat(f"{path}/{last}.py")
    except OSError:
        return b""
    # As importlib has it: magic number, flags (0: valid by time and size), seconds and size modulo 2**32.
    magic = sys.modules["_frozen_importlib_external"].MAGIC_NUMBER
    stamps = (int(source.st_mtime) & 0xFFFFFFFF) << 32 | (source.st_size & 0xFFFFFFFF) << 64
    return data if data[:_HEADER_BYTES] == magic + stamps.to_bytes(12, "little") else b""


def is_up_to_date(lib: str, sources: "dict[str, int]") -> bool:
    """Whether whole.py and the sources that it was made of are as they were when it was compiled."""
    try:
        package = posix.open(lib + "/taximeter", posix.O_PATH)
        compiled = f"wrap/__pycache__/whole.{sys.implementation.cache_tag}.pyc"
        compiled_ns = posix.stat(compiled, dir_fd=package).st_mtime_ns
        same = posix.stat("wrap/whole.py", dir_fd=package).st_mtime_ns <= compiled_ns
        for path, size in sources.items():
            source = posix.stat(path, dir_fd=package)
            same = same and source.st_size == size and source.st_mtime_ns <= compiled_ns
        posix.close(package)
    except OSError:
        return False
    return same


def _start_from_source(lib: str, witness: str, words: "list[str]") -> None:
    """Go on in start.py, which somebody has changed since it was made part of whole.py, or another source."""
    sys.path.append(lib)
    from taximeter.wrap.start import main as changed

    changed(lib, witness, words)


def _make_packages(lib: str) -> None:
    """Put the two packages, which are empty, where imports find them, and let what is below be found there."""
    for name in ("taximeter", "taximeter.wrap"):
        package = sys.modules[name] = type(sys)(name)
        package.__path__ = [lib + "/" + name.replace(".", "/")]
    setattr(sys.modules["taximeter"], "wrap", sys.modules["taximeter.wrap"])  # noqa: B010 -- unknown to mypy


def _make_importable(lib: str) -> None:
    if not sys.flags.safe_path:
        del sys.path[0]  # the directory of the launcher
    if lib and lib not in sys.path:
        sys.path.append(lib)


def _other_python() -> None:
    """Go on in a Python that is young enough, or say that there is none."""
    import os

    flags = ["-IS", "-X", "utf8"] if sys.flags.no_site else []
    for minor in (14, 13, 12, 11):
        name = f"python3.{minor}"
        try:
            os.execvp(name, [name, *flags, *sys.argv])
        except OSError:
            pass
    version = ".".join(map(str, sys.version_info[:2]))
    sys.exit(f"taximeter: cannot run on Python {version}: expected Python 3.11 or later on PATH")


if __name__ == "__main__":  # the launcher runs the compiled whole.py where it can tell which one its Python reads
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
