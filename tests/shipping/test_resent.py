# ruff: noqa: ASYNC240 -- looking at a file of three lines blocks nobody
"""What a file lost is told from what somebody took away, and is written beside it, once."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from taximeter.errors import SinkError
from taximeter.shipping.reconcile import reconcile
from taximeter.shipping.sinks.file import FileSink
from taximeter.shipping.sinks.filled import first_of
from tests.shipping.receiver import event, events
from tests.shipping.test_earlier import NEW, OLD, body

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.ndjson"


def write(path: Path, bodies: Sequence[bytes]) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in bodies))


def resent(path: Path) -> list[bytes]:
    beside = path.with_name(f"{path.name}.resent")
    return beside.read_bytes().splitlines() if beside.exists() else []


async def test_what_is_older_than_all_that_is_there_was_taken_away(path: Path) -> None:
    write(path, events(9)[4:])
    assert await FileSink("usage", path).missing(events(9)) == []


async def test_what_is_missing_behind_the_last_line_was_lost(path: Path) -> None:
    write(path, events(9)[:7])
    assert await FileSink("usage", path).missing(events(9)) == [7, 8]


async def test_what_is_missing_between_files_that_were_put_by_was_lost(path: Path) -> None:
    write(path.with_name("usage.ndjson.3"), events(9)[1:3])
    write(path.with_name("usage.ndjson.5"), events(9)[5:6])
    write(path, events(9)[6:])
    assert await FileSink("usage", path).missing(events(9)) == [3, 4]


async def test_files_that_are_all_put_by_are_read_too(path: Path) -> None:
    write(path.with_name("usage.ndjson.1"), [events(9)[0], events(9)[8]])
    assert await FileSink("usage", path).missing(events(9)) == [1, 2, 3, 4, 5, 6, 7]


async def test_lines_of_an_older_ledger_are_no_lines_of_this(path: Path) -> None:
    write(path, [event(seq, ledger="old") for seq in range(1, 8)] + events(9)[3:4] + events(9)[6:])
    assert first_of(path, "L1") == 4
    assert await FileSink("usage", path).missing(events(9)) == [4, 5]


async def test_what_an_older_ledger_shipped_before_it_was_lost_is_there(path: Path) -> None:
    write(path, [body(2_000, 0, 7, OLD), body(6_000, 0, 1, NEW), body(7_000, 0, 4, NEW)])
    assert await FileSink("usage", path).missing([body(2_000, 0, 2, NEW), body(3_000, 0, 3, NEW)]) == [1]


async def test_where_no_line_of_the_ledger_is_there_nobody_can_tell(path: Path) -> None:
    for lines in ([], [event(1, ledger="old")]):
        write(path, lines)
        with pytest.raises(SinkError, match="nobody can tell") as caught:
            await FileSink("usage", path).missing(events(2))
        assert caught.value.reason == "unreadable"


async def test_what_was_written_beside_is_not_missing_and_a_torn_line_there_is_cut_off(path: Path) -> None:
    write(path, [events(9)[0], events(9)[8]])
    path.with_name("usage.ndjson.resent").write_bytes(events(9)[3] + b"\n" + events(9)[4][:20])
    assert await reconcile(FileSink("usage", path), events(9)) == 6
    assert resent(path) == [events(9)[at] for at in (3, 1, 2, 4, 5, 6, 7)]
    assert await reconcile(FileSink("usage", path), events(9)) == 0


async def test_a_file_that_cannot_be_read_or_written_is_said(path: Path) -> None:
    path.mkdir()
    with pytest.raises(SinkError, match="cannot read back") as caught:
        await FileSink("usage", path).missing(events(2))
    assert caught.value.reason == "file"
    path.with_name("usage.ndjson.resent").symlink_to(path)
    with pytest.raises(SinkError, match=r"cannot write .*resent") as caught:
        await FileSink("usage", path).send_lost(events(2))
    assert caught.value.reason == "file"


async def test_the_shipper_goes_on_in_its_own_file(path: Path) -> None:
    sink = FileSink("usage", path)
    await sink.send(events(9)[:1] + events(9)[3:5])
    assert await reconcile(FileSink("usage", path), events(9)[:5]) == 2
    await sink.send(events(9)[5:])
    assert path.read_bytes().splitlines() == events(9)[:1] + events(9)[3:]
