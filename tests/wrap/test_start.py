"""What the launcher loads, and what it costs: a bare interpreter stays bare until the command runs."""

import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from taximeter.wrap import start

LIB = Path(start.__file__).parents[2]
WRAP = Path(start.__file__).parent

FOR_READINESS = ("values", "targets", "readiness", "asking", "probe", "strangers", "answer", "health", "relay", "sink")
FOR_PATTERNS = ("pattern", "output", "tail")


def modules_after(code: str) -> list[str]:
    """The modules of a bare interpreter after `code`, in the order of their loading."""
    program = f"import sys; sys.path.insert(0, {str(LIB)!r}); {code}; print('\\n'.join(sys.modules))"
    return subprocess.run(
        [sys.executable, "-IS", "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()


def test_the_launcher_loads_what_the_wrapper_imports_each_after_its_own_imports() -> None:
    finished: list[str] = []
    code = (
        "import taximeter.wire; done=[]; from _frozen_importlib_external import SourceFileLoader as L;"
        "old=L.exec_module; L.exec_module=lambda self,m: (old(self,m), done.append(m.__name__))[0];"
        "import taximeter.wrap.main; print('done', *done)"
    )
    program = f"import sys; sys.path.insert(0, {str(LIB)!r}); {code}"
    out = subprocess.run([sys.executable, "-IS", "-c", program], capture_output=True, text=True, check=True).stdout
    finished = [name.removeprefix("taximeter.wrap.") for name in out.split()[1:] if name.startswith("taximeter.wrap.")]
    assert finished == list(start.NAMES)


def test_before_the_command_runs_nothing_is_imported_but_what_is_built_in_and_what_makes_checksums() -> None:
    before = set(modules_after("pass"))
    after = {name for name in modules_after("import taximeter.wrap.main") if not name.startswith("taximeter")}
    assert after - before <= {"binascii"}


@pytest.mark.parametrize(
    "name", ["socket", "json", "argparse", "subprocess", "dataclasses", "enum", "ctypes", "os", "typing"]
)
def test_the_wrapper_never_imports_what_would_multiply_its_start(name: str) -> None:
    left_out = ("__init__", "helptext", *FOR_PATTERNS)
    every = ",".join(f"taximeter.wrap.{path.stem}" for path in WRAP.glob("*.py") if path.stem not in left_out)
    assert name not in modules_after(f"import {every}")


@pytest.mark.parametrize("ready", ["exec", "notify", "http://localhost/", "tcp:localhost:80"])
def test_only_who_waits_for_a_line_pays_for_regular_expressions(ready: str) -> None:
    code = f"from taximeter.wrap.argv import parse; parse(['--ready', {ready!r}, 'x'])"
    assert not {"re", "enum"}.intersection(modules_after(f"{code}; import taximeter.wrap.watch, taximeter.wrap.asking"))


def test_whoever_is_ready_at_once_loads_nothing_for_readiness() -> None:
    loaded = modules_after("import taximeter.wrap.main, taximeter.wrap.ending, taximeter.wrap.watch")
    assert not {f"taximeter.wrap.{name}" for name in (*FOR_READINESS, *FOR_PATTERNS)}.intersection(loaded)


def test_a_compiled_module_is_read_if_it_was_made_from_its_source(tmp_path: Path) -> None:
    compile_module(tmp_path, "answer = 42\n")
    code = start.read_code(str(tmp_path), "module")
    assert code is not None
    namespace: dict[str, object] = {}
    exec(code, namespace)
    assert namespace["answer"] == 42


def test_a_compiled_module_that_is_older_than_its_source_is_not_read(tmp_path: Path) -> None:
    compile_module(tmp_path, "answer = 42\n")
    (tmp_path / "module.py").write_text("answer = 43  # longer\n")
    assert start.read_code(str(tmp_path), "module") is None


def test_a_compiled_module_without_source_is_not_read(tmp_path: Path) -> None:
    compile_module(tmp_path, "answer = 42\n")
    (tmp_path / "module.py").unlink()
    assert start.read_code(str(tmp_path), "module") is None


@pytest.mark.parametrize("kept_bytes", [0, 8, 16, 17, 60])
def test_a_torn_compiled_module_is_not_read(tmp_path: Path, kept_bytes: int) -> None:
    compile_module(tmp_path, "answer = 42\n")
    compiled = tmp_path / "__pycache__" / f"module.{sys.implementation.cache_tag}.pyc"
    compiled.write_bytes(compiled.read_bytes()[:kept_bytes])
    assert start.read_code(str(tmp_path), "module") is None


def test_a_compiled_module_of_another_python_is_not_read(tmp_path: Path) -> None:
    compile_module(tmp_path, "answer = 42\n")
    compiled = tmp_path / "__pycache__" / f"module.{sys.implementation.cache_tag}.pyc"
    compiled.write_bytes(b"\0\0\r\n" + compiled.read_bytes()[4:])
    assert start.read_code(str(tmp_path), "module") is None


@pytest.mark.parametrize(
    "path", [path for path in sorted(WRAP.glob("*.py")) if path.stem != "whole"], ids=lambda path: path.stem
)
def test_no_module_is_too_long_to_be_read_at_once(path: Path, tmp_path: Path) -> None:
    compiled = tmp_path / "module.pyc"
    py_compile.compile(str(path), cfile=str(compiled), doraise=True)
    assert compiled.stat().st_size < 65_536


def compile_module(directory: Path, source: str) -> None:
    (directory / "module.py").write_text(source)
    assert py_compile.compile(str(directory / "module.py"), doraise=True)
