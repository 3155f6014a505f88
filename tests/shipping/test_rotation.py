"""A file sink that rotates: whatever it is killed at, the files together have each record once, in order."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.errors import SinkError
from taximeter.shipping.sinks import file as module
from taximeter.shipping.sinks import filled
from taximeter.shipping.sinks.file import FileSink
from tests.shipping.receiver import event, events

pytestmark = pytest.mark.anyio

LINE_BYTES = len(event(1)) + 1
TWO_LINES = 2 * LINE_BYTES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.ndjson"


def numbers(path: Path) -> list[int]:
    return [int(file.suffix[1:]) for file in filled.numbered(path)]


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def everything(path: Path) -> list[bytes]:
    """All files, the oldest first."""
    return [line for file in (*filled.numbered(path), path) for line in lines(file)]


async def one_by_one(sink: FileSink, bodies: Sequence[bytes]) -> None:
    for body in bodies:
        await sink.send([body])


async def test_a_file_that_would_grow_too_large_is_put_by_with_the_next_number(path: Path) -> None:
    await one_by_one(FileSink("usage", path, TWO_LINES), events(7))
    assert numbers(path) == [1, 2, 3]
    assert [lines(file) for file in filled.numbered(path)] == [events(7)[at : at + 2] for at in (0, 2, 4)]
    assert lines(path) == events(7)[6:]


async def test_a_batch_stays_in_one_file_however_large_it_is(path: Path) -> None:
    sink = FileSink("usage", path, TWO_LINES)
    await sink.send(events(5))
    await sink.send(events(6))
    assert lines(path.with_name("usage.ndjson.1")) == events(5)
    assert lines(path) == events(6)[5:]


async def test_without_a_limit_nothing_is_put_by(path: Path) -> None:
    await one_by_one(FileSink("usage", path), events(7))
    assert (numbers(path), lines(path)) == ([], events(7))


async def test_all_files_stay_where_nobody_says_how_many(path: Path) -> None:
    await one_by_one(FileSink("usage", path, LINE_BYTES), events(30))
    assert everything(path) == events(30)
    assert len(numbers(path)) == 29


async def test_of_the_files_that_are_full_the_newest_stay(path: Path) -> None:
    await one_by_one(FileSink("usage", path, LINE_BYTES, 3), events(12))
    assert numbers(path) == [9, 10, 11]
    assert everything(path) == events(12)[8:]


async def test_the_next_agent_counts_on(path: Path) -> None:
    for count in range(1, 6):
        await one_by_one(FileSink("usage", path, LINE_BYTES), events(count))
    assert (numbers(path), everything(path)) == ([1, 2, 3, 4], events(5))


async def test_what_others_have_beside_it_is_neither_counted_nor_removed(path: Path) -> None:
    others = [f"usage.ndjson.{end}" for end in ("gz", "1.gz", "0", "01", "-1", "٣")] + ["usage.ndjson1", "other.1"]
    for name in others:
        path.with_name(name).write_text("mine")
    await one_by_one(FileSink("usage", path, LINE_BYTES, 1), events(4))
    assert numbers(path) == [3]
    assert all(path.with_name(name).read_text() == "mine" for name in others)


async def test_a_file_behind_a_link_is_put_by_where_it_lies(path: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    os.symlink(tmp_path / "disk" / "real", path)
    await one_by_one(FileSink("usage", path, LINE_BYTES), events(2))
    assert lines(tmp_path / "disk" / "real.1") == events(1)
    assert os.readlink(path).endswith("real")
    assert lines(path) == events(2)[1:]


async def test_a_large_file_of_a_time_before_is_put_by_first(path: Path) -> None:
    await FileSink("usage", path).send(events(9))
    await FileSink("usage", path, TWO_LINES).send(events(11))
    assert lines(path.with_name("usage.ndjson.1")) == events(9)
    assert lines(path) == events(11)[9:]


@pytest.mark.parametrize("torn", [b"", event(3)[:20]], ids=["empty", "torn"])
async def test_where_the_file_is_empty_the_one_that_was_put_by_says_what_is_there(path: Path, torn: bytes) -> None:
    await FileSink("usage", path).send(events(2))
    os.rename(path, f"{path}.1")
    (path.parent / path.name).write_bytes(torn)
    await FileSink("usage", path, TWO_LINES).send(events(3))
    assert (everything(path), lines(path)) == (events(3), events(3)[2:])


@pytest.mark.parametrize("seq", [1, 4, 5, 8, 9])
async def test_an_older_ledger_restored_is_found_in_whatever_file_it_left(path: Path, seq: int) -> None:
    await one_by_one(FileSink("usage", path, TWO_LINES), [event(7, ledger="old"), *events(9)])
    sink = FileSink("usage", path, TWO_LINES)
    await sink.send(events(seq))
    before = everything(path)
    with pytest.raises(SinkError, match=f"has another record under number {seq} of ledger L1") as caught:
        await sink.send([event(seq, source="/nodes/restored")])
    assert caught.value.reason == "diverged"
    assert everything(path) == before


async def test_the_file_that_diverges_is_named(path: Path) -> None:
    await one_by_one(FileSink("usage", path, LINE_BYTES), events(3))
    with pytest.raises(SinkError, match=r"usage\.ndjson\.2 has another record"):
        await FileSink("usage", path, LINE_BYTES).send([event(2, source="/nodes/restored")])


class Killed(BaseException):
    """What a kill looks like from within: nothing behind it is done."""


CALLS = ("open", "write", "fdatasync", "fsync", "ftruncate", "rename", "unlink", "close")


class Kill:
    """Dies at the `at`th call that changes something: before it, or (a write) in the midst of it."""

    def __init__(self, at: int) -> None:
        self.left, self.happened = at, False

    def call(self, name: str, real: Callable[..., Any], *args: Any, **others: Any) -> Any:
        self.left -= 1
        if self.left >= 0:
            return real(*args, **others)
        self.happened = True
        if name == "write" and self.left == -1:
            real(args[0], args[1][: len(args[1]) // 2])
        raise Killed

    def arm(self, patch: pytest.MonkeyPatch) -> None:
        for name in CALLS:
            patch.setattr(os, name, partial(self.call, name, getattr(os, name)))


@pytest.mark.parametrize("keep", [None, 1])
def test_killed_at_any_call_the_next_agent_loses_nothing_and_writes_nothing_twice(
    tmp_path: Path, keep: int | None
) -> None:
    for at in range(200):
        path = tmp_path / str(at) / "usage.ndjson"
        path.parent.mkdir()
        noted, kill = 0, Kill(at)
        with pytest.MonkeyPatch.context() as patch:
            sink = FileSink("usage", path, TWO_LINES, keep)
            kill.arm(patch)
            try:
                for noted in range(6):
                    sink._append(events(noted + 1)[noted:])
            except Killed:
                pass
        FileSink("usage", path, TWO_LINES, keep)._append(events(8)[noted:])
        held = everything(path)
        assert held == events(8)[-len(held) :], f"killed at call {at}"
        assert keep or held == events(8)
        if not kill.happened:
            return
    pytest.fail("200 calls for six records")


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 6), max_size=12), limit=st.integers(1, 6), again=st.integers(0, 9))
def test_however_it_is_cut_the_files_have_each_record_once(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int, again: int
) -> None:
    path = tmp_path_factory.mktemp("law") / "usage.ndjson"
    sent = 0
    for size in sizes:
        begin = max(0, sent - again)  # an agent that died before it noted comes with some of it again
        FileSink("usage", path, limit * LINE_BYTES)._append(events(sent + size)[begin:])
        sent += size
    assert everything(path) == events(sent)
    batches = max(sizes, default=0)
    assert all(len(lines(file)) <= max(limit, batches) for file in filled.numbered(path))


@pytest.mark.parametrize("call", ["rename", "unlink", "open", "fsync"])
async def test_a_call_that_fails_is_said_and_the_next_try_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    sink, real = FileSink("usage", path, LINE_BYTES, 1), getattr(os, call)
    await one_by_one(sink, events(2))
    before, faults = len(os.listdir("/proc/self/fd")), [OSError(24, "Too many open files")]

    def once(*args: Any, **others: Any) -> Any:
        if faults:
            raise faults.pop()
        return real(*args, **others)

    monkeypatch.setattr(os, call, once)
    with pytest.raises(SinkError, match="Too many open files") as caught:
        await sink.send(events(3))
    assert caught.value.reason == module.REASON
    await one_by_one(sink, events(4))
    await sink.close()
    assert everything(path) == events(4)[2:]
    assert len(os.listdir("/proc/self/fd")) < before
