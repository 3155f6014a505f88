"""The harness: which Taximeter is under test, and what every test may count on.

Tests run against the installed wheel, so that what is packaged is what is tested. An editable install is taken
for development, says so in the header, and is refused where all tests must run (TAXIMETER_TEST_ALL=1).
"""

import importlib.metadata
import json
import os
import signal
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis import is_hypothesis_test

import taximeter
from tests import nvml_standin, recomputing
from tests.require import ALL

ROOT = Path(__file__).parent.parent
INSTALLED = Path(taximeter.__file__).parent
#: Where each line and branch of the core has an example. Properties go over them by the thousand, so measuring these,
#: too, would double what all tests take, and which branches a property comes to is another matter each time.
COVERING = [ROOT / "tests" / room for room in ("core", "hardware")]
#: Properties of the shortest ways of rating, which few stories take: measured all the same.
COVERING_LAWS = ROOT / "tests" / "core" / "test_rating_laws.py"

# How long an example takes says something of the machine's load, and nothing of what is tested.
hypothesis.settings.register_profile("taximeter", deadline=None)
hypothesis.settings.load_profile("taximeter")

recomputing.note_what_is_made()


def is_editable() -> bool:
    """Whether pip was told to run from the sources."""
    said = importlib.metadata.distribution("taximeter").read_text("direct_url.json")
    return bool(said) and json.loads(said).get("dir_info", {}).get("editable", False)


def pytest_configure() -> None:
    """Refuse to test anything but what was installed; begin with signals as a terminal gives them."""
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:  # under nohup, or behind an `&` in a script
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if INSTALLED.is_relative_to(sysconfig.get_path("purelib")):
        return
    if not is_editable() or ALL:
        pytest.exit(f"cannot test {INSTALLED}: expected the installed wheel (run `make test`)", returncode=2)


def pytest_report_header() -> list[str]:
    """Say what is under test."""
    version = importlib.metadata.version("taximeter")
    return [
        f"taximeter: {version} from {INSTALLED}{' (editable: the sources, not the wheel)' if is_editable() else ''}"
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything under tests/system starts real processes; examples cover the core; what measures time goes last."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "system"):
            item.add_marker("system")
        elif _is_covering(item):
            item.add_marker("covering")
    items.sort(key=lambda item: item.get_closest_marker("timing") is not None)


def _is_covering(item: pytest.Item) -> bool:
    if not any(item.path.is_relative_to(room) for room in COVERING):
        return False
    if is_hypothesis_test(getattr(item, "obj", None)) and item.path != COVERING_LAWS:
        return False
    return not any(item.get_closest_marker(mark) for mark in ("system", "timing", "many"))


@pytest.fixture(scope="session")
def taximeter_program() -> str:
    """The installed `taximeter` beside the interpreter that runs the tests."""
    path = Path(sysconfig.get_path("scripts")) / "taximeter"
    assert os.access(path, os.X_OK), f"cannot find {path}: expected the wheel to install it, executable"
    return str(path)


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a stand-in for NVML, as the newest drivers have it."""
    return nvml_standin.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests (`@pytest.mark.anyio`) run on asyncio, as the agent does."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the state of a Taximeter that lives on this machine."""
    for name in [name for name in os.environ if name.startswith("TAXIMETER_") and name != "TAXIMETER_TEST_ALL"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TAXIMETER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TAXIMETER_RUN_DIR", str(tmp_path / "run"))


@pytest.fixture(autouse=True)
def _recomputed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Whatever a test has billed, somebody who does not trust us comes to the same, to the last digit."""
    yield
    if request.node.get_closest_marker("forged") is None:
        faults = [fault for ledger in recomputing.ledgers_in(tmp_path) for fault in recomputing.faults_of(ledger)]
        assert not faults, "\n".join(faults[:20])
