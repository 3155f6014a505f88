"""What a test needs of the machine beside Python: programs, root, a kernel feature.

Owns the choice between skipping and failing. On a developer's laptop a test that cannot run here is skipped,
with a reason that is a remedy; under TAXIMETER_TEST_ALL=1 (CI) the same lack is a failure, so that nothing is
silently left out. Every skip of the suite should come from here.
"""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from taximeter.errors import TaximeterError
from taximeter.kernel import ProcessEvents

ALL = os.environ.get("TAXIMETER_TEST_ALL") == "1"


def lacking(reason: str) -> NoReturn:
    """Skip the calling test for `reason`; fail it where all tests must run."""
    if ALL:
        pytest.fail(f"cannot run here: {reason} (TAXIMETER_TEST_ALL=1: skips are failures)", pytrace=False)
    pytest.skip(reason)


def require_program(name: str, package: str | None = None) -> str:
    """The path of program `name`; `package` is what Debian calls the package that has it."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        lacking(f"needs {name}: apt-get install {package or name}")
    return path


def require_root() -> None:
    """The test makes namespaces, mounts or users."""
    if os.geteuid() != 0:
        lacking("needs root: sudo make test")


def require_module(name: str) -> None:
    """A Python package that only a test needs; it is locked with the others."""
    if importlib.util.find_spec(name) is None:
        lacking(f"needs the Python package {name}: make dev, or make test")


def require_path(path: str, remedy: str) -> Path:
    """A file of the system, such as a library that is preloaded; `remedy` says how to get it."""
    if not Path(path).exists():
        lacking(f"needs {path}: {remedy}")
    return Path(path)


def require_process_events() -> None:
    """The kernel tells this process of all others (its proc connector)."""
    try:
        ProcessEvents.open().close()
    except TaximeterError as error:
        lacking(str(error))
