#!/usr/bin/env python3
"""Write the bill of materials of a release: what it runs on, as it is locked, in CycloneDX JSON.

    python tools/sbom.py VERSION requirements/runtime.txt [WHEEL] >taximeter.cdx.json

The same lock and wheel give the same bytes. Of each package all files are named that the lock permits, by their hashes.
"""

import hashlib
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

_PINNED = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^ ;\\]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_OURS = "pkg:pypi/taximeter"


def main(version: str, lock: str, wheel: str | None = None) -> int:
    """Print it."""
    content = None if wheel is None else hashlib.sha256(Path(wheel).read_bytes()).hexdigest()
    print(json.dumps(bill(version, Path(lock).read_text(encoding="utf-8"), content), indent=1))
    return 0


def bill(version: str, lock: str, wheel_sha256: str | None) -> dict[str, Any]:
    """The bill of a version, its lock file and its wheel."""
    heads = [*_PINNED.finditer(lock)]
    ends = [*(head.start() for head in heads[1:]), len(lock)]
    components = [_component(head, lock[head.end() : end]) for head, end in zip(heads, ends, strict=True)]
    ours: dict[str, Any] = {"type": "application", "bom-ref": f"{_OURS}@{version}", "name": "taximeter"}
    ours |= {"version": version, "purl": f"{_OURS}@{version}", "licenses": [{"license": {"id": "Apache-2.0"}}]}
    if wheel_sha256 is not None:
        ours["hashes"] = _hashes([wheel_sha256])
    depends = {"ref": ours["bom-ref"], "dependsOn": [component["bom-ref"] for component in components]}
    told: dict[str, Any] = {"metadata": {"component": ours}, "components": components, "dependencies": [depends]}
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(told, sort_keys=True))
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1}
    return head | told


def _component(head: re.Match[str], rest: str) -> dict[str, Any]:
    name, version = head[1], head[2]
    purl = f"pkg:pypi/{name}@{version}"
    named: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return named | {"hashes": _hashes(_HASH.findall(rest))}


def _hashes(found: list[str]) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": one} for one in sorted(set(found))]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
