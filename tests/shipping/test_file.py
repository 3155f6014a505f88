# ruff: noqa: ASYNC240 -- looking at a file of three lines blocks nobody
"""The file sink: whole lines, on the disk, once each, whoever else touches the file."""

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.errors import SinkError
from taximeter.shipping.sinks.file import FileSink
from taximeter.shipping.sinks.ndjson import place_of
from tests.shipping.receiver import event, events

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.ndjson"


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


async def test_records_are_lines(path: Path) -> None:
    await FileSink("usage", path).send(events(3))
    assert path.read_bytes() == b"".join(body + b"\n" for body in events(3))


async def test_records_are_appended(path: Path) -> None:
    sink = FileSink("usage", path)
    await sink.send(events(4)[:2])
    await sink.send(events(4)[2:])
    assert lines(path) == events(4)


async def test_the_file_is_not_for_everybody(path: Path) -> None:
    await FileSink("usage", path).send(events(1))
    assert path.stat().st_mode & 0o007 == 0


async def test_a_batch_is_on_the_disk_before_it_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    await FileSink("usage", path).send(events(3))
    assert synced[-1] == len(b"".join(events(3))) + 3


async def test_a_batch_that_comes_again_is_not_written_again(path: Path) -> None:
    sink = FileSink("usage", path)
    await sink.send(events(3))
    await sink.send(events(3))
    assert lines(path) == events(3)


async def test_after_a_restart_the_last_line_says_what_is_there(path: Path) -> None:
    await FileSink("usage", path).send(events(3))
    await FileSink("usage", path).send(events(5))
    assert lines(path) == events(5)


async def test_a_torn_last_line_is_repaired_at_every_byte(path: Path) -> None:
    whole = b"".join(body + b"\n" for body in events(2))
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        sink = FileSink("usage", path)
        await sink.send(events(2))
        await sink.close()
        assert path.read_bytes() == whole, f"cut at {length}"


async def test_another_ledgers_numbers_are_no_reason_to_skip(path: Path) -> None:
    sink = FileSink("usage", path)
    await sink.send([event(7, ledger="old")])
    await sink.send([event(1, ledger="new")])
    assert lines(path) == [event(7, ledger="old"), event(1, ledger="new")]


async def test_an_older_ledger_restored_is_no_reason_to_skip_what_it_numbers_anew(path: Path) -> None:
    await FileSink("usage", path).send(events(9))
    renumbered = [*events(5), event(6, source="/nodes/restored"), event(7, source="/nodes/restored")]
    with pytest.raises(SinkError, match=r"another record under number 7 of ledger L1.*expected one history") as caught:
        await FileSink("usage", path).send(renumbered)
    assert caught.value.reason == "diverged"
    assert lines(path) == events(9)


async def test_what_the_file_has_is_found_among_many_lines_wherever_it_stands(path: Path) -> None:
    old, many = [event(seq, ledger="old") for seq in range(1, 4)], events(700)
    path.write_bytes(b"# a note\n" + b"".join(body + b"\n" for body in (*old, *many)))
    sink = FileSink("usage", path)
    for body in many:
        await sink.send([body])
    assert lines(path) == [b"# a note", *old, *many]
    for seq in (1, 2, 350, 699, 700):
        with pytest.raises(SinkError, match="another record"):
            await sink.send([event(seq, source="/nodes/restored")])


async def test_lines_of_others_are_left_alone(path: Path) -> None:
    path.write_bytes(b"# a note by the operator\n")
    await FileSink("usage", path).send(events(1))
    assert lines(path) == [b"# a note by the operator", *events(1)]


async def test_a_last_line_longer_than_a_block_is_found(path: Path) -> None:
    path.write_bytes(b"x" * 200_000 + b"\n" + b"y" * 200_000)
    await FileSink("usage", path).send(events(1))
    assert lines(path) == [b"x" * 200_000, *events(1)]


async def test_a_rotated_file_is_begun_anew(path: Path) -> None:
    sink = FileSink("usage", path)
    await sink.send(events(2))
    path.rename(path.with_suffix(".1"))
    await sink.send(events(4))
    assert lines(path) == events(4)[2:]


async def test_a_removed_file_is_begun_anew(path: Path) -> None:
    sink = FileSink("usage", path)
    await sink.send(events(2))
    path.unlink()
    await sink.send(events(4))
    assert lines(path) == events(4)[2:]


async def test_a_file_truncated_in_place_goes_on(path: Path) -> None:
    sink = FileSink("usage", path)
    await sink.send(events(2))
    os.truncate(path, 0)
    await sink.send(events(4))
    assert lines(path) == events(4)[2:]


async def test_a_directory_that_is_missing_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"cannot append to .*nowhere.*expected") as caught:
        await FileSink("usage", tmp_path / "nowhere" / "usage.ndjson").send(events(1))
    assert caught.value.reason == "file"


async def test_a_fifo_is_refused_and_does_not_hang(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(SinkError, match="not a regular file"):
        await FileSink("usage", path).send(events(1))


@pytest.fixture
def small_files() -> Iterator[int]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield limits[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_a_full_disk_leaves_whole_lines_and_recovers(path: Path, small_files: int) -> None:
    sink = FileSink("usage", path)
    await sink.send(events(2))
    full = len(path.read_bytes()) + 10
    resource.setrlimit(resource.RLIMIT_FSIZE, (full, small_files))
    with pytest.raises(SinkError, match="cannot append"):
        await sink.send(events(4))
    assert lines(path) == events(2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (small_files, small_files))
    await sink.send(events(4))
    assert lines(path) == events(4)


async def test_a_sync_that_failed_is_not_believed_the_second_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, answers = FileSink("usage", path), [OSError(errno.EIO, "Input/output error"), None]
    synced: list[int] = []

    def fdatasync(descriptor: int) -> None:
        if answers and (fault := answers.pop()):
            raise fault
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with pytest.raises(SinkError):
        await sink.send(events(2))
    await sink.send(events(2))
    assert lines(path) == events(2)
    assert synced == [0, 0, path.stat().st_size]  # opened, opened again, written


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"data":{"ledger":null}}', b'{"data":{"ledger":{"id":"x","seq":"a"}}}']
)
def test_a_line_that_is_no_record_says_nothing(body: bytes) -> None:
    assert place_of(body) is None


_PLACES = st.builds(
    b'{"data":{"ledger":{"id":%b,"seq":%b}}}'.__mod__,
    st.tuples(
        st.sampled_from([b'"L1"', b'"L2"', b"7", b"null"]),
        st.sampled_from([b"3", b"1e999", b"-1", b"true", b'"9"', b"[]"]),
    ),
)


@given(st.lists(st.binary(max_size=40) | _PLACES, max_size=6).map(b"\n".join))
def test_whatever_others_wrote_there_their_lines_stay_and_ours_come_behind(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("others") / "usage.ndjson"
    path.write_bytes(content)
    ours = [event(seq, ledger="ours") for seq in (1, 2)]
    FileSink("usage", path)._append(ours)
    FileSink("usage", path)._append(ours)
    whole = content[: content.rfind(b"\n") + 1]
    assert path.read_bytes() == whole + b"".join(body + b"\n" for body in ours)
