# ruff: noqa: ASYNC240 -- looking at a file of three lines blocks nobody
"""A ledger that takes a lost one's place books anew what has a journal: a file has each record once all the same."""

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.shipping.sinks import earlier
from taximeter.shipping.sinks.earlier import Earlier
from taximeter.shipping.sinks.file import FileSink
from taximeter.shipping.sinks.filled import numbered, reached

pytestmark = pytest.mark.anyio


def uuid_at(ms: int) -> str:
    digits = f"{ms:012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


OLD, NEW = uuid_at(1_000), uuid_at(5_000)


def body(instance_ms: int, count: int, seq: int, ledger: str) -> bytes:
    said = {"specversion": "1.0", "id": f"{uuid_at(instance_ms)}-{count:08d}", "source": "/nodes/n1"}
    return json.dumps({**said, "data": {"ledger": {"id": ledger, "seq": seq}}}, separators=(",", ":")).encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.ndjson"


def ids(path: Path) -> list[str]:
    files = [*numbered(path), *([path] if path.exists() else [])]
    return [json.loads(line)["id"] for file in files for line in file.read_bytes().splitlines()]


async def test_what_another_ledger_shipped_is_not_written_again(path: Path) -> None:
    await FileSink("usage", path).send([body(2_000, 0, 1, OLD), body(3_000, 0, 2, OLD)])
    anew = [body(2_000, 0, 1, NEW), body(3_000, 0, 2, NEW), body(3_000, 1, 3, NEW)]
    await FileSink("usage", path).send(anew)
    assert ids(path) == [f"{uuid_at(2_000)}-00000000", f"{uuid_at(3_000)}-00000000", f"{uuid_at(3_000)}-00000001"]


async def test_what_it_shipped_is_known_from_files_that_were_put_by(path: Path) -> None:
    first = FileSink("usage", path, rotate_bytes=1)
    for seq in (1, 2, 3):
        await first.send([body(2_000 + seq, 0, seq, OLD)])
    await FileSink("usage", path, rotate_bytes=1).send([body(2_001, 0, 1, NEW), body(4_000, 0, 2, NEW)])
    assert Counter(ids(path)) == Counter(f"{uuid_at(ms)}-00000000" for ms in (2_001, 2_002, 2_003, 4_000))


async def test_a_batch_of_nothing_new_leaves_the_file_as_it_was(path: Path) -> None:
    await FileSink("usage", path).send([body(2_000, 0, 1, OLD)])
    before = path.read_bytes()
    sink = FileSink("usage", path)
    await sink.send([body(2_000, 0, 1, NEW)])
    await sink.send([body(2_000, 0, 1, NEW)])
    assert path.read_bytes() == before


async def test_it_is_looked_for_once_an_instance(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[set[bytes]] = []
    real = "taximeter.shipping.sinks.earlier._look_back"
    monkeypatch.setattr(real, lambda _, instances: looked.append(set(instances)) or dict.fromkeys(instances, -1))
    await FileSink("usage", path).send([body(2_500, 0, 1, OLD)])
    sink = FileSink("usage", path)
    for seq in range(1, 4):
        await sink.send([body(2_000, seq, seq, NEW)])
    await sink.send([body(2_000, 4, 4, NEW), body(3_000, 0, 5, NEW)])
    assert looked == [{uuid_at(2_000).encode()}, {uuid_at(3_000).encode()}]


async def test_a_younger_instance_is_looked_for_nowhere(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> dict[bytes, int]:
        raise AssertionError("looked back")

    monkeypatch.setattr("taximeter.shipping.sinks.earlier._look_back", refuse)
    await FileSink("usage", path).send([body(2_500, 0, 1, OLD)])
    await FileSink("usage", path).send([body(6_000, 0, 1, NEW), body(5_000, 0, 2, NEW)])
    assert len(ids(path)) == 3


async def test_where_a_ledger_is_the_first_its_own_lines_are_not_read_however_old_the_instances_are(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = FileSink("usage", path)
    await sink.send([body(2_000, 0, 1, NEW)])
    read: list[object] = []
    monkeypatch.setattr("taximeter.shipping.sinks.earlier._note", lambda *given: read.append(given))
    asked: list[bytes] = []
    real = earlier._named
    monkeypatch.setattr(earlier, "_named", lambda body: asked.append(body) or real(body))
    for seq in range(2, 9):
        await sink.send([body(2_000 + seq, 0, seq, NEW)])
    assert (read, len(asked)) == ([], 1)


async def test_of_many_instances_it_is_not_remembered_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taximeter.shipping.sinks.earlier._MOST", 3)
    await FileSink("usage", path).send([body(2_000 + at, 0, at, OLD) for at in range(1, 9)])
    kept = Earlier()
    for _ in range(2):
        for at in range(1, 9):
            assert kept.news(path, [body(2_000 + at, 0, at, NEW), body(2_000 + at, 1, at, NEW)], NEW) == [
                body(2_000 + at, 1, at, NEW)
            ]
    assert len(kept._reached) <= 4


async def test_files_of_long_before_an_instance_are_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms = 400_000_000
    await FileSink("usage", path, rotate_bytes=1).send([body(2_000, 0, 1, OLD)])
    path.rename(path.with_name("usage.ndjson.1"))
    os.utime(path.with_name("usage.ndjson.1"), (1, 1))
    opened: list[str] = []
    real: Callable[..., Any] = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args: opened.append(self.name) or real(self, *args))
    await FileSink("usage", path).send([body(now_ms, 0, 1, uuid_at(now_ms + 1))])
    assert opened == []


@pytest.mark.parametrize(("ledger", "expected"), [(OLD, 2), (NEW, None)])
async def test_a_file_says_how_far_it_is(path: Path, ledger: str, expected: int | None) -> None:
    await FileSink("usage", path, rotate_bytes=1).send([body(2_000, 0, 1, OLD), body(3_000, 0, 2, OLD)])
    assert reached(path, ledger) == expected
    path.rename(path.with_name("usage.ndjson.1"))
    assert reached(path, ledger) == expected


def test_a_file_that_cannot_be_read_says_nothing(path: Path) -> None:
    assert reached(path, OLD) is None
    path.mkdir()
    assert reached(path, OLD) is None


_RUNS = st.lists(st.integers(1, 3), min_size=1, max_size=8)


@given(counts=_RUNS, cut=st.integers(0, 24), batch=st.integers(1, 5), rotate=st.sampled_from((None, 1, 400)))
def test_law_however_much_was_shipped_before_a_loss_a_file_has_each_record_once(
    counts: Sequence[int], cut: int, batch: int, rotate: int | None
) -> None:
    names = [(2_000 + at, count) for at, most in enumerate(counts) for count in range(most)]

    async def ship(path: Path, ledger: str, upto: int) -> None:
        sink = FileSink("usage", path, rotate)
        bodies = [body(*name, seq, ledger) for seq, name in enumerate(names[:upto], 1)]
        for at in range(0, len(bodies), batch):
            await sink.send(bodies[at : at + batch])
        await sink.close()

    with TemporaryDirectory() as where:
        path = Path(where, "usage.ndjson")
        anyio.run(ship, path, OLD, cut)
        anyio.run(ship, path, NEW, len(names))
        assert ids(path) == [f"{uuid_at(ms)}-{count:08d}" for ms, count in names]
