"""The units under a systemd that really booted: readiness, drop-box, restart, watchdog, stop."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.require import lacking, require_path, require_program, require_root

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
UNITS = ROOT / "systemd"


def shown(name: str) -> list[str]:
    """The commands of a block of docs/operating.md: what is documented is what is tested."""
    page = (ROOT / "docs/operating.md").read_text()
    block = re.search(rf"<!-- run: {name} -->\n```console\n(.*?)```", page, re.DOTALL)
    assert block, name
    return [line.removeprefix("# ") for line in block[1].splitlines()]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Taximeter installed as documented, by the distribution's Python: one that users other than root may run."""
    enough = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
    if subprocess.run([require_path("/usr/bin/python3", "apt-get install python3"), "-c", enough]).returncode:
        lacking("needs /usr/bin/python3 of 3.11 or newer with ensurepip: apt-get install python3-venv")
    folder = tmp_path_factory.mktemp("node")
    (folder / "requirements").symlink_to(ROOT / "requirements")
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", ROOT]
    subprocess.run([*wheel, "--wheel-dir", folder / "dist"], check=True)
    for command in shown("install"):
        subprocess.run(command.replace("/opt/taximeter", f"{folder}/taximeter"), shell=True, check=True, cwd=folder)
    return folder / "taximeter"


@pytest.fixture(scope="module")
def bed(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What happened in the bed: everything is done there once, and judged here fact by fact."""
    require_root()
    for program, package in (
        ("systemd-nspawn", "systemd-container"),
        ("systemd-run", "systemd"),
        ("dbus-daemon", "dbus"),
        ("setpriv", "util-linux"),
    ):
        require_program(program, package)
    for name in ("units", "start"):
        (tmp_path_factory.getbasetemp() / name).write_text("set -e\n" + "\n".join(shown(name)))
    copies = {
        UNITS: "/root/systemd",
        tmp_path_factory.getbasetemp() / "units": "/root/units",
        tmp_path_factory.getbasetemp() / "start": "/root/start",
        UNITS / "example-worker.service": "/etc/systemd/system/example-worker.service",
        HERE / "systemd_inside.sh": "/root/inside",
        HERE / "example_worker.sh": "/opt/predictor/bin/serve",
    }
    argv = [sys.executable, str(HERE / "bed"), "--timeout", "100", "--bind", f"{installed}:/opt/taximeter"]
    for source, target in copies.items():
        argv += ["--copy", f"{source}:{target}"]
    done = subprocess.run([*argv, "--", "sh", "/root/inside"], capture_output=True, text=True, timeout=180)
    print(done.stdout, done.stderr, sep="\n")  # shown with whatever fails
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return dict(line.partition(" ")[::2] for line in done.stdout.splitlines() if not line.startswith("log "))


def test_exposure_is_at_most_2(tmp_path: Path) -> None:
    require_program("systemd-analyze", "systemd")
    argv = ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=20", UNITS / "taximeter.service"]
    judged = subprocess.run(argv, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        pytest.param("one_boot", "0", id="the container is of one boot with its units"),
        pytest.param("verified", "yes", id="systemd finds nothing wrong with the units"),
        pytest.param("units", "0", id="the documented commands install them"),
        pytest.param("user", "taximeter", id="sysusers makes the user"),
        pytest.param("dropbox", "3733 taximeter taximeter", id="tmpfiles makes the drop-box"),
        pytest.param("started", "0", id="the service starts"),
        pytest.param("active", "active", id="it is active once it says that it is ready"),
        pytest.param("reloaded", "active", id="it is told to read its prices again"),
        pytest.param("capabilities", "0000000000000000 ", id="then no thread of it has any capability"),
        pytest.param("early_exit", "0", id="a command runs under the meter without an agent"),
        pytest.param("early", "succeeded ", id="what ran before the agent is billed once it is there"),
        pytest.param("alice_exit", "3", id="a user's command keeps its exit status"),
        pytest.param("alice", "failed ", id="a user's run is booked through the drop-box"),
        pytest.param("agent_file", "640 taximeter taximeter", id="the token is for the group"),
        pytest.param("denied_files", "711 taximeter 640", id="who is refused may be asked for and not be listed"),
        pytest.param("alice_refused", "77", id="a run of a prepaid account without credit is refused"),
        pytest.param("granted", "0", id="credit is granted"),
        pytest.param("alice_admitted", "0", id="and the account runs"),
        pytest.param("denied_after", "711", id="what is refused outlives the service"),
        pytest.param("worker", "active", id="a wrapped worker's own READY=1 reaches systemd"),
        pytest.param("worker_result", "success", id="a wrapped worker stops cleanly"),
        pytest.param("mixed_command", "gone", id="with KillMode=mixed a command ends with its wrapper"),
        pytest.param("mixed", "failed ", id="and is booked"),
        pytest.param("after_kill", "running", id="killed -9 it is started again"),
        pytest.param("new_pid", "yes", id="as a new process"),
        pytest.param("after_kill_booked", "succeeded ", id="and goes on booking"),
        pytest.param("watchdog", "yes", id="the watchdog finds an agent that hangs"),
        pytest.param("after_hang", "running", id="an agent that hung is started again"),
        pytest.param("worker_booked", "canceled ", id="a run across two restarts is booked once"),
        pytest.param("verify", "0", id="the ledger that went through all this has no fault"),
        pytest.param("stop_result", "success", id="it stops cleanly"),
        pytest.param("stop_status", "0", id="it exits 0"),
    ],
)
def test_under_systemd(bed: dict[str, str], fact: str, value: str) -> None:
    assert bed.get(fact) == value


@pytest.mark.parametrize(
    "what", ["alice_lists_dropbox", "alice_reads_ledger", "alice_reads_token", "alice_lists_denied"]
)
def test_another_user_is_refused(bed: dict[str, str], what: str) -> None:
    assert bed[what] not in ("", "0")


def test_it_stops_within_5_s(bed: dict[str, str]) -> None:
    assert int(bed["stop_ms"]) < 5000
