"""What a real agent answers, asked by a program that knows nothing but /openapi.json: as described, and never a 500."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

import taximeter
from tests.require import require_module
from tests.system.agents import Agent, Node, wait_until
from tests.system.faults import check_ledger, finals

DESCRIPTION = Path(taximeter.__file__).parent / "schema" / "openapi.json"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    return Node(taximeter_program, tmp_path / "node")


def ask(agent: Agent, where: Path, phase: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Schemathesis, with examples at the edges of what is described and beyond; always the same ones.

    It computes all the while, so how long that takes is up to who else does.
    """
    program = shutil.which("schemathesis", path=sysconfig.get_path("scripts"))
    assert program is not None
    fixed = ("--seed", "1", "--max-examples", "25", "--generation-database", "none", "--phases", phase)
    quiet = ("--no-color", "--warnings", "off", "--suppress-health-check", "all", "-c", ",".join(CHECKS))
    words = [program, "run", str(DESCRIPTION), "--url", agent.said["url"], *fixed, *quiet, *options]
    return subprocess.run(words, cwd=where, capture_output=True, text=True, check=False)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("phase", ["coverage", "fuzzing"])
@pytest.mark.parametrize("trusted", [True, False])
def test_every_answer_is_as_described(node: Node, tmp_path: Path, trusted: bool, phase: str) -> None:
    require_module("schemathesis")
    with node.agent() as agent:
        for name in ("one", "two"):
            node.run("--prediction", name, "--model", "acme/sdxl", "--account", "cus_7", "--", "true")
        wait_until(lambda: {"one", "two"} <= finals(node).keys(), "their records")
        header = ("--header", f"Authorization: Bearer {agent.said['token']}") if trusted else ()
        done = ask(agent, tmp_path, phase, *header)
        assert done.returncode == 0, done.stdout + done.stderr
        assert agent.get("/healthz")[0] == 200
        assert "ERROR" not in agent.log.read_text()
    check_ledger(node)
