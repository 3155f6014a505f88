"""The wrapper's own reading of its time namespace."""

import json
from pathlib import Path

import pytest

from taximeter.wrap import timens


def said(monkeypatch: pytest.MonkeyPatch, content: bytes) -> str:
    monkeypatch.setattr(timens, "read_file", lambda path: content)
    return timens.offsets()


def test_offsets_are_a_key_of_the_open_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    key = said(monkeypatch, b"monotonic      172800         5\nboottime          -60 500000000\n")
    assert json.loads("{" + key[1:] + "}") == {
        "timens": {"monotonic": 172_800_000_000_005, "boottime": -59_500_000_000}
    }


@pytest.mark.parametrize("content", [b"monotonic 0 0\nboottime 0 0\n", b"", b"half a line", b"monotonic x y\n"])
def test_clocks_that_are_the_machines_own_and_what_cannot_be_read_are_not_mentioned(
    monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    assert said(monkeypatch, content) == ""


def test_where_there_is_no_such_file_nothing_is_mentioned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(path: str) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(timens, "read_file", missing)
    assert timens.offsets() == ""
