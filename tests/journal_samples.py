"""Journals as a wrapper writes them, and a process that holds a journal's lock as a wrapper does."""

import base64
import contextlib
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INSTANCE = "0198c2f4-7b11-7cc0-9d4f-2f8a6d1b3c55"
OTHER = "0198c2f4-7b11-7cc0-9d4f-2f8a6d1b3c66"
BOOT_ID = "9e64c0d8-5c6e-4a0d-b4a4-5ff44e2e6a31"
NAME = f"{INSTANCE}.0.ndjson"

_HOLD = """
import fcntl, sys
journal = open(sys.argv[1], "ab")
fcntl.lockf(journal, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def clock(at_ns: int) -> dict[str, Any]:
    return {
        "monotonic": at_ns,
        "boottime": at_ns + 5,
        "raw": at_ns - 7,
        "realtime": 1795341603000000000 + at_ns,
        "boot_id": BOOT_ID,
    }


def options(**changes: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "worker": False,
        "model": "acme/sdxl-lora",
        "version": "3f2a",
        "account": "cus_7",
        "class": "public",
        "pool": None,
        "prediction": "0198c2f4-7b11-7cc0-9d4f-2f8a6d1b3c56",
        "parent": None,
        "root": None,
        "labels": {"team": "vision"},
        "units": {"image": "2"},
        "on_term": "canceled",
        "ready": "exec",
        "ready_timeout_ns": None,
    }
    return told | changes


def fact(kind: str, at_ns: int, **keys: Any) -> bytes:
    return json.dumps({"v": 1, "f": kind, "t": at_ns, **keys}).encode()


def open_line(instance: str = INSTANCE, segment: int = 0, **changes: Any) -> bytes:
    keys: dict[str, Any] = {
        "instance": instance,
        "segment": segment,
        "argv": ["python3", "predict.py", "zwei Wörter"],
        "options": options(),
        "clock": clock(1_000),
        "uid": 1000,
        "pid": 4711,
        "env": {"CUDA_VISIBLE_DEVICES": "0"},
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "software": "taximeter 0.1.0",
    }
    return fact("open", 1_000, **(keys | changes))


def mark_line(at_ns: int, mark: bytes | dict[str, Any]) -> bytes:
    raw = mark if isinstance(mark, bytes) else json.dumps(mark).encode()
    return fact("mark", at_ns, raw=base64.b64encode(raw).decode())


def sealed_anew(content: bytes) -> bytes:
    """A journal that somebody has changed, with checksums that fit: whoever changes lines on purpose can do that."""
    lines = [re.sub(rb',"c":"[0-9a-f]{8}"}$', b"", line) for line in content.splitlines()]
    return b"".join(line + b',"c":"%08x"}\n' % zlib.crc32(line) for line in lines)


def sample_lines() -> list[bytes]:
    """Every kind of fact once, in a life's order."""
    return [
        open_line(),
        fact("spawn", 1_200, before=1_100, pid=4712, start=987_654),
        fact("ready", 1_200, by="exec"),
        fact("ready_timeout", 1_250),
        mark_line(1_300, {"mark": "units", "units": {"image": 1}}),
        mark_line(1_400, b"not a mark"),
        fact("signal", 1_500, signal=15, kernel=False, outside=True, sender=99),
        fact("stopping", 1_550, by="notify"),
        fact("heartbeat", 1_600, clock=clock(1_600), usage={"cpu_ns": 812, "rss_peak_bytes": 4096}),
        fact("exit", 1_700, code=0, signal=None, core=False, clock=clock(1_700), usage=None, error=None),
    ]


def sample() -> bytes:
    return b"".join(line + b"\n" for line in sample_lines())


@contextlib.contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock on `path`, as its wrapper would."""
    command = [sys.executable, "-c", _HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()
            process.wait()
