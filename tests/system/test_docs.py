"""Every command that the documentation shows is run as it stands: pages are scripts."""

import os
import re
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.require import require_program
from tests.system.ports import held_port

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
CONSOLE = re.compile(r"(<!-- run: (\w+) -->\n)?```console\n(.*?)```", re.DOTALL)
#: Blocks that need a machine or a port of their own; tests/system/test_systemd.py and test_asgi.py run these.
ELSEWHERE = {"install", "units", "start", "server"}
#: What the shell does around a page's own commands.
BEFORE = "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n"
READY = 'for _ in $(seq 150); do [ -e "$TAXIMETER_STATE_DIR/run/agent" ] && break; sleep 0.1; done\n'
BOOKED = "for _ in $(seq 150); do taximeter receipt p1 2>/dev/null | grep -q succeeded && break; sleep 0.1; done\n"


def commands(page: Path) -> list[str]:
    """What a page tells one to type, without what is run elsewhere."""
    blocks = [text for _, name, text in CONSOLE.findall(page.read_text()) if name not in ELSEWHERE]
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def script(lines: list[str], ports: dict[str, int]) -> str:
    """The page as a script. `make` targets have tests of their own; an agent in the background is waited for."""
    text = BEFORE
    for line in lines:
        if line.startswith(("make ", "git clone ")):
            continue
        ported = re.sub("|".join(ports), lambda shown: str(ports[shown[0]]), line)
        text += f"echo '$ '{line.split()[0]!r} >&2\n{ported}\n"
        text += READY + BOOKED if line == "taximeter agent &" else ""
    return text


@pytest.fixture
def ports_held() -> Iterator[tuple[int, int]]:
    with held_port() as first, held_port() as second:
        yield first, second


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_every_command_of_a_page_works(
    page: Path, tmp_path: Path, taximeter_program: str, ports_held: tuple[int, int]
) -> None:
    require_program("curl")
    agent, server = ports_held
    ports = {"9847": agent, "5055": server}  # as pages show them
    (tmp_path / "agent.toml").write_text(f'[listen]\naddress = "127.0.0.1:{agent}"\n')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TAXIMETER_")}
    environment |= {
        "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        "TAXIMETER_CONFIG": str(tmp_path / "agent.toml"),
        "TAXIMETER_STATE_DIR": str(tmp_path / "state"),
        "TMPDIR": str(tmp_path),
    }
    argv = ["bash", "-c", script(commands(page), ports)]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def rows(receipt: str) -> list[str]:
    """What a receipt's rows are called."""
    return [
        row[:11].strip() for row in re.sub(r"^ ", "", receipt, flags=re.MULTILINE).splitlines() if row[:1].isalpha()
    ]


def test_a_demo_that_is_kept_ends_well_with_ctrl_c(taximeter_program: str, tmp_path: Path) -> None:
    argv = [Path(sysconfig.get_path("scripts")) / "python", "-P", ROOT / "examples" / "demo.py", "--keep"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as demo:
        said = b""
        while not said.endswith(b"Ctrl-C. ") and (more := os.read(demo.stdout.fileno(), 4096)):  # type: ignore[union-attr]
            said += more
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 0, said.decode()
    assert b"/metrics" in said
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("taximeter-demo")] == []


def test_the_demo_ends_with_three_receipts(taximeter_program: str, tmp_path: Path) -> None:
    python = Path(sysconfig.get_path("scripts")) / "python"
    argv = [python, "-P", ROOT / "examples" / "demo.py"]
    done = subprocess.run(
        argv,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert re.findall(r"TAXIMETER RECEIPT +(\w+)", done.stdout) == ["succeeded", "failed", "failed"]
    assert "usage.ndjson" not in done.stdout.partition("Where to look next")[2], "what is gone is not to be looked at"
    said = re.search(r"taximeter receipt demo-summary\n(.*?)\n== ", done.stdout, re.DOTALL)
    printed = re.search(r"<!-- receipt -->\n\n```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert said
    assert printed
    assert rows(said[1]) == rows(printed[1])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("taximeter-demo")] == []
