"""The whole of what every run needs, as the build makes it: it does what its modules do, and notices their changes."""

import importlib.util
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import taximeter
from taximeter.wrap import start

HOOK = Path(__file__).parents[2] / "agent" / "hatch_build.py"
PACKAGE = Path(taximeter.__file__).parent
COMPILED = f"whole.{sys.implementation.cache_tag}.pyc"


def load_hook() -> ModuleType:
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", HOOK)
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    """A directory with a copy of the package, whose whole.py was made of it and compiled."""
    package = tmp_path / "taximeter"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "whole.py"))
    (package / "wrap" / "whole.py").write_text(load_hook().make_whole(package))
    py_compile.compile(str(package / "wrap" / "whole.py"), doraise=True)
    return tmp_path


def run(lib: Path, code: str) -> str:
    """What a bare interpreter prints after `code`, which has the whole of `lib`."""
    program = f"import sys; sys.path.append({str(lib)!r}); from taximeter.wrap import whole; lib = {str(lib)!r}; {code}"
    return subprocess.run([sys.executable, "-IS", "-c", program], capture_output=True, text=True, check=True).stdout


def is_up_to_date(lib: Path) -> bool:
    return run(lib, "print(whole.is_up_to_date(lib, whole.SOURCES))").strip() == "True"


def test_every_module_has_the_names_that_it_has_on_its_own(lib: Path) -> None:
    code = """
whole._make_packages(lib)
names = sys.argv[1:] or list(whole.BODIES)
for name in names:
    whole.load(name)
for name in names:
    print(name, *sorted(key for key in vars(sys.modules[name]) if not key.startswith('__')))
"""
    alone = code.replace("whole.load(name)", "__import__(name)").replace("whole._make_packages(lib)", "")
    made = run(lib, f"exec({code!r})").splitlines()
    assert made == run(lib, f"exec({alone!r})").splitlines()
    assert len(made) == 1 + len(start.NAMES) + len(start.NEXT)


def test_what_runs_is_named_as_it_is_on_its_own(lib: Path) -> None:
    code = "whole._make_packages(lib); [whole.load(name) for name in whole.BODIES]; from taximeter.wrap import command"
    say = "print(command.Refused.__module__, command.Refused.__qualname__, command.spawn.__qualname__)"
    assert run(lib, f"{code}; {say}").split() == ["taximeter.wrap.command", "Refused", "spawn"]


def test_it_holds_what_is_loaded_once_the_command_runs(lib: Path) -> None:
    text = (PACKAGE / "wrap" / "main.py").read_text()
    assert f"for name in ({', '.join(f'{chr(34)}{name}{chr(34)}' for name in start.NEXT)}):" in text
    assert "taximeter.wrap.ending" in run(lib, "print(*whole.BODIES)").split()


def test_neither_docstrings_nor_annotations_are_loaded(lib: Path) -> None:
    code = "whole._make_packages(lib); [whole.load(name) for name in whole.BODIES]; from taximeter.wrap import entry"
    assert run(lib, f"{code}; print(entry.read_entry.__doc__, entry.read_entry.__annotations__)").split() == [
        "None",
        "{}",
    ]


def test_as_it_was_made_it_is_up_to_date(lib: Path) -> None:
    assert is_up_to_date(lib)


@pytest.mark.parametrize("module", ["wire", "wrap/start", "wrap/entry", "wrap/ending"])
def test_a_source_of_another_size_is_noticed(lib: Path, module: str) -> None:
    path = lib / "taximeter" / f"{module}.py"
    times = path.stat()
    path.write_text(path.read_text() + "\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not is_up_to_date(lib)


def test_a_source_that_is_younger_than_what_was_compiled_is_noticed(lib: Path) -> None:
    later_ns = (lib / "taximeter" / "wrap" / "__pycache__" / COMPILED).stat().st_mtime_ns + 1
    os.utime(lib / "taximeter" / "wire.py", ns=(later_ns, later_ns))
    assert not is_up_to_date(lib)


def test_a_source_that_is_gone_is_noticed(lib: Path) -> None:
    (lib / "taximeter" / "wire.py").unlink()
    assert run(lib, "print(whole.is_up_to_date(lib, whole.SOURCES))").strip() == "False"


def test_a_whole_that_is_younger_than_what_was_compiled_is_noticed(lib: Path) -> None:
    compiled_ns = (lib / "taximeter" / "wrap" / "__pycache__" / COMPILED).stat().st_mtime_ns
    touch = f"import os; os.utime(whole.__file__, ns=({compiled_ns + 1}, {compiled_ns + 1}))"
    assert run(lib, f"{touch}; print(whole.is_up_to_date(lib, whole.SOURCES))").strip() == "False"


def test_a_whole_is_made_alike_every_time() -> None:
    hook = load_hook()
    assert hook.make_whole(PACKAGE) == hook.make_whole(PACKAGE)
