"""What a release is made of, as its bill says; and what is said of known vulnerabilities, whoever may be asked."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.require import require_module

LOCK = (ROOT / "requirements" / "runtime.txt").read_text()


def tool(name: str) -> ModuleType:
    """A tool, loaded by its path, as it is nowhere to be imported from."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bill_names_every_locked_package_with_all_its_hashes() -> None:
    components = tool("sbom").bill("1.2.3", LOCK, None)["components"]
    pinned = re.findall(r"^([^\s#=]+)==(\S+)", LOCK, re.MULTILINE)
    assert [(one["name"], one["version"]) for one in components] == pinned
    assert len(pinned) > 14
    assert sum(len(one["hashes"]) for one in components) == LOCK.count("--hash=sha256:")


def test_the_bill_is_cyclonedx() -> None:
    require_module("cyclonedx")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    said = json.dumps(tool("sbom").bill("1.2.3", LOCK, "a" * 64))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(said) is None


def test_the_bill_of_the_same_release_is_the_same() -> None:
    bill = tool("sbom").bill
    assert bill("1", LOCK, None) == bill("1", LOCK, None)
    assert bill("1", LOCK, None)["serialNumber"] != bill("2", LOCK, None)["serialNumber"]


def package(name: str, *vulnerabilities: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": list(vulnerabilities)}


UNKNOWN = {"name": "own", "skip_reason": "not found"}
LEFT_OUT, NAMED = "; not known there: own", "a 1.0: CVE-2026-1 (fixed in 1.1)"
BAD = {"id": "CVE-2026-1", "fix_versions": ["1.1"]}


@pytest.mark.parametrize(
    ("report", "said", "is_bad"),
    [
        ({"dependencies": [package("a"), package("b")]}, "lock: 2 packages, no known vulnerability", False),
        ({"dependencies": [package("a"), UNKNOWN]}, "lock: 1 packages, no known vulnerability" + LEFT_OUT, False),
        ({"dependencies": [package("a", BAD)]}, "lock: 1 known vulnerabilities: " + NAMED, True),
        ({"dependencies": [UNKNOWN]}, "lock: vulnerabilities not looked for: not found, nor any other", False),
        (None, "lock: vulnerabilities not looked for: no network", False),
    ],
    ids=["well", "partly", "bad", "unknown", "offline"],
)  # fmt: skip
def test_what_is_known_to_be_wrong_fails_a_check_and_what_could_not_be_asked_is_said(
    report: dict[str, Any] | None, said: str, is_bad: bool
) -> None:
    assert tool("vulnerabilities").verdict("lock", report, "no network") == (said, is_bad)


def test_without_a_network_there_is_no_report_and_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_module("pip_audit")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
    lock = tmp_path / "lock.txt"
    lock.write_text(f"anyio==4.9.0 --hash=sha256:{'a' * 64}\n")
    report, why = tool("vulnerabilities")._asked(str(lock))
    assert report is None
    assert why
