"""The second half of the launcher: from a bare interpreter to the wrapper, or to the rest of the program.

Owns how modules of the wrapper are loaded: a compiled file is read and executed without the search that is most of
what an import costs (it halves the wrapper's own start). Refuses to know options. Written so that a Python that is too old
can read it, and say so.
"""

import marshal
import posix
import sys

#: What `taximeter run` needs before the command runs, each after those that it imports.
NAMES = "argv entry command lines opening places writer run main"
_OLDEST = (3, 11)
_HEADER_BYTES = 16
_MAX_BYTES = 65_536


def main(lib, witness, words):  # type: ignore[no-untyped-def]  # for Pythons of any age
    """Begin. `lib` holds the package, if it is known; `witness` is a pid for entry.read_entry, or a dash."""
    if sys.version_info < _OLDEST:
        _other_python()
    if words[:1] == ["run"]:
        _run(lib, int(witness) if witness.isdigit() else 0, words[1:])
    _everything_else(lib, words)


def load(name):  # type: ignore[no-untyped-def]
    """Import a module of a package that is loaded, from its compiled file if that is up to date."""
    package_name, _, last = name.rpartition(".")
    package = sys.modules[package_name]
    path = package.__path__[0]
    code = read_code(path, last)
    if code is None:
        return __import__(name)
    module = sys.modules[name] = type(sys)(name)
    exec(code, module.__dict__)
    setattr(package, last, module)
    return module


def read_code(path, last):  # type: ignore[no-untyped-def]
    """The compiled code of a module in a directory; None where it is missing or older than its source."""
    try:
        fd = posix.open("%s/__pycache__/%s.%s.pyc" % (path, last, sys.implementation.cache_tag), posix.O_RDONLY)
        data = posix.read(fd, _MAX_BYTES)
        posix.close(fd)
        source = posix.stat("%s/%s.py" % (path, last))
    except OSError:
        return None
    # As importlib does: magic number, flags (none: valid by time and size), seconds and size modulo 2**32.
    magic = sys.modules["_frozen_importlib_external"].MAGIC_NUMBER
    stamps = (int(source.st_mtime) & 0xFFFFFFFF) << 32 | (source.st_size & 0xFFFFFFFF) << 64
    if len(data) == _MAX_BYTES or data[:_HEADER_BYTES] != magic + stamps.to_bytes(12, "little"):
        return None
    return marshal.loads(memoryview(data)[_HEADER_BYTES:])


def _run(lib, witness, words):  # type: ignore[no-untyped-def]
    if sys.flags.no_site:
        for name in ("taximeter", "taximeter.wrap"):
            package = sys.modules[name] = type(sys)(name)
            package.__path__ = [lib + "/" + name.replace(".", "/")]
        sys.modules["taximeter"].wrap = sys.modules["taximeter.wrap"]
        load("taximeter.wire")
        for name in NAMES.split():
            load("taximeter.wrap." + name)
    else:
        _make_importable(lib)
    from taximeter.wrap.main import main

    main(words, witness, load if sys.flags.no_site else __import__)


def _everything_else(lib, words):  # type: ignore[no-untyped-def]
    _make_importable(lib)
    from taximeter.cli import main

    sys.argv = ["taximeter"] + words
    sys.exit(main())


def _make_importable(lib):  # type: ignore[no-untyped-def]
    if not sys.flags.safe_path:
        del sys.path[0]  # the directory of the launcher
    if lib and lib not in sys.path:
        sys.path.append(lib)


def _other_python():  # type: ignore[no-untyped-def]
    import os

    for minor in (14, 13, 12, 11):
        name = "python3.%d" % minor
        flags = ["-IS", "-X", "utf8"] if sys.flags.no_site else []
        try:
            os.execvp(name, [name] + flags + sys.argv)
        except OSError:
            pass
    sys.exit("taximeter: cannot run on Python %d.%d: expected Python 3.11 or later on PATH" % sys.version_info[:2])
