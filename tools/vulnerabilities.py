#!/usr/bin/env python3
"""Ask what is publicly known to be wrong with the packages that are locked, by pip-audit; `make check` does.

    python tools/vulnerabilities.py requirements/runtime.txt [more.txt …]

Exit status: 0, nothing is known, or nobody could be asked (which is said, with why); 1, something is.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

_PATIENCE_S = 10
_DEADLINE_S = 40


def main(files: list[str]) -> int:
    """Ask about each of some lock files."""
    found = [verdict(name, *_asked(name)) for name in files]
    for line, _ in found:
        print(line)
    return int(any(is_bad for _, is_bad in found))


def verdict(name: str, report: Mapping[str, Any] | None, why: str) -> tuple[str, bool]:
    """What to say of a lock file, and whether it is bad; `report` is None where there was none, with why."""
    if report is None:
        return f"{name}: vulnerabilities not looked for: {why}", False
    packages = report["dependencies"]
    asked = [package for package in packages if "skip_reason" not in package]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if packages and not asked:
        return f"{name}: vulnerabilities not looked for: {packages[0]['skip_reason']}, nor any other", False
    left_out = f"; not known there: {', '.join(unknown)}" if unknown else ""
    known = [
        f"{package['name']} {package['version']}: {vulnerability['id']}"
        f" (fixed in {', '.join(vulnerability['fix_versions']) or 'no version yet'})"
        for package in asked
        for vulnerability in package["vulns"]
    ]
    if known:
        return f"{name}: {len(known)} known vulnerabilities: {'; '.join(known)}{left_out}", True
    return f"{name}: {len(asked)} packages, no known vulnerability{left_out}", False


def _asked(name: str) -> tuple[Mapping[str, Any] | None, str]:
    words = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--requirement", name]
    quiet = ["--progress-spinner", "off", "--format", "json", "--timeout", str(_PATIENCE_S)]
    try:
        done = subprocess.run([*words, *quiet], capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        return None, f"no answer within {_DEADLINE_S} s"
    try:
        return json.loads(done.stdout), ""
    except ValueError:
        return None, (done.stderr.strip().splitlines() or ["no answer"])[-1][:200]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
