"""The journal as it is written: lock, reserve, torn lines, segments."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taximeter import wire
from taximeter.wrap import writer
from taximeter.wrap.writer import Writer

INSTANCE = "01a20319-c917-7053-a4ae-dc26917164f2"
LINE = b'{"line":1}\n'
NAME = f"{INSTANCE}.0.ndjson"
SECOND = 1_000_000_000


def head(segment: int) -> bytes:
    return b'{"segment":%d}\n' % segment


@pytest.fixture
def journal(tmp_path: Path) -> Writer:
    return Writer(str(tmp_path), INSTANCE, head)


def content(directory: Path, segment: int = 0) -> bytes:
    return (directory / f"{INSTANCE}.{segment}.ndjson").read_bytes()


def locker(path: Path) -> int | None:
    """The pid that holds the lock, as another process sees it."""
    look = (
        "import fcntl,struct,sys;f=open(sys.argv[1],'rb');"
        "t,_,_,_,pid=struct.unpack('hhqqi4x',fcntl.fcntl(f,fcntl.F_GETLK,struct.pack('hhqqi4x',fcntl.F_WRLCK,0,0,0,0)));"
        "print(pid if t!=fcntl.F_UNLCK else 0)"
    )
    return int(subprocess.run([sys.executable, "-c", look, path], capture_output=True, check=True).stdout) or None


def test_a_journal_begins_with_its_head(journal: Writer, tmp_path: Path) -> None:
    assert content(tmp_path) == b'{"segment":0}\n'


def test_a_journal_can_be_read_by_its_group_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        Writer(str(tmp_path), INSTANCE, head)
    finally:
        os.umask(old)
    assert (tmp_path / f"{INSTANCE}.0.ndjson").stat().st_mode & 0o777 == 0o640


def test_a_journal_that_is_there_already_is_never_written_to(journal: Writer, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        Writer(str(tmp_path), INSTANCE, head)
    assert content(tmp_path) == b'{"segment":0}\n'


def test_the_writer_holds_the_lock(journal: Writer, tmp_path: Path) -> None:
    assert locker(tmp_path / f"{INSTANCE}.0.ndjson") == os.getpid()


def test_a_reserve_of_zeros_follows_what_is_written(journal: Writer, tmp_path: Path) -> None:
    journal.append(LINE)
    written, _, rest = content(tmp_path).partition(b"\0")
    assert written == b'{"segment":0}\n' + LINE
    assert len(rest) + 1 >= wire.RESERVE_BYTES
    assert not rest.strip(b"\0")


def test_closing_gives_the_reserve_and_the_lock_back(journal: Writer, tmp_path: Path) -> None:
    journal.append(LINE)
    journal.append_last(LINE)
    journal.close()
    assert content(tmp_path) == b'{"segment":0}\n' + LINE * 2
    assert locker(tmp_path / f"{INSTANCE}.0.ndjson") is None


def test_on_a_full_disk_a_line_is_not_written_and_that_is_said(
    journal: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.reserve()
    refuse(monkeypatch, "posix_fallocate", errno.ENOSPC)
    assert not journal.append(LINE)
    assert content(tmp_path).rstrip(b"\0") == b'{"segment":0}\n'


def test_on_a_full_disk_the_last_facts_go_into_the_reserve(
    journal: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.reserve()
    refuse(monkeypatch, "posix_fallocate", errno.ENOSPC)
    journal.append(LINE)
    assert journal.append_last(b'{"exit":1}\n')
    journal.close()
    assert content(tmp_path) == b'{"segment":0}\n{"exit":1}\n'


def test_a_disk_that_has_room_again_is_written_to_again(
    journal: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        refuse(full, "posix_fallocate", errno.EDQUOT)
        assert not journal.append(LINE)
    assert journal.append(LINE)
    journal.close()
    assert content(tmp_path) == b'{"segment":0}\n' + LINE


def test_a_file_system_that_cannot_reserve_is_written_to_all_the_same(
    journal: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "posix_fallocate", errno.EOPNOTSUPP)
    assert journal.append(LINE)
    journal.close()
    assert content(tmp_path) == b'{"segment":0}\n' + LINE


@pytest.mark.parametrize("cut", range(len(LINE)))
def test_a_torn_line_costs_only_itself(
    journal: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    pwrite = os.pwrite
    with monkeypatch.context() as torn:
        torn.setattr(writer.posix, "pwrite", lambda fd, data, at: pwrite(fd, data[:cut], at))
        assert not journal.append_last(LINE)
    journal.append_last(b'{"after":1}\n')
    journal.close()
    assert [line for line in content(tmp_path).split(b"\n") if line] == [
        b'{"segment":0}',
        *([LINE[:cut]] if cut else []),
        b'{"after":1}',
    ]


def test_a_journal_goes_on_in_a_new_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SEGMENT_BYTES", 100)
    journal = Writer(str(tmp_path), INSTANCE, head)
    for n in range(20):
        journal.append(b'{"n":%d}\n' % n)
    journal.close()
    segments = [content(tmp_path, segment).splitlines() for segment in range(len(list(tmp_path.iterdir())))]
    assert len(segments) > 1
    assert [json.loads(segment[0])["segment"] for segment in segments] == list(range(len(segments)))
    assert [json.loads(line)["n"] for segment in segments for line in segment[1:]] == list(range(20))


def test_a_new_segment_is_locked_before_the_old_one_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SEGMENT_BYTES", 100)
    journal = Writer(str(tmp_path), INSTANCE, head)
    seen = []
    close = os.close
    monkeypatch.setattr(
        writer.posix, "close", lambda fd: (seen.append(locker(tmp_path / f"{INSTANCE}.1.ndjson")), close(fd))
    )
    journal.append(b"x" * 99 + b"\n")
    assert seen == [os.getpid()]


def test_where_no_segment_can_be_made_the_old_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SEGMENT_BYTES", 100)
    journal = Writer(str(tmp_path), INSTANCE, head)
    (tmp_path / f"{INSTANCE}.1.ndjson").touch()
    assert journal.append(b"x" * 99 + b"\n")
    journal.close()
    assert content(tmp_path) == b'{"segment":0}\n' + b"x" * 99 + b"\n"


def test_marks_have_their_part_of_the_disk_and_the_wrappers_own_facts_go_on(tmp_path: Path) -> None:
    journal = Writer(str(tmp_path), INSTANCE, head, 1 << 20)
    mark = b"x" * 4095 + b"\n"
    while journal.append_marks(mark):
        pass
    assert (1 << 20) <= sum(path.stat().st_size for path in tmp_path.iterdir()) < (1 << 20) + (1 << 18)
    assert all(journal.append(b"y" * 99 + b"\n") for _ in range(3_000))
    assert not journal.append_marks(mark)


def test_what_the_agent_took_away_is_room_for_marks_again(tmp_path: Path) -> None:
    journal = Writer(str(tmp_path), INSTANCE, head, 1 << 20)
    while journal.append_marks(LINE * 400):
        pass
    for segment in range(3):
        (tmp_path / f"{INSTANCE}.{segment}.ndjson").unlink()
    assert journal.append_marks(LINE)


def test_marks_leave_some_of_the_disk_free_for_everything_else(
    journal: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, free = 1_000_000, 62_000
    monkeypatch.setattr(
        writer.posix, "fstatvfs", lambda _: os.statvfs_result((1, 1, size, free, free, 0, 0, 0, 0, 255))
    )
    assert not journal.append_marks(LINE)
    assert journal.append(LINE)
    free = 63_000
    assert journal.append_marks(LINE)


def test_a_journal_that_cannot_begin_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "lockf", errno.ENOLCK)
    with pytest.raises(OSError, match="No locks"):
        Writer(str(tmp_path), INSTANCE, head)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_for_which_there_is_no_room_begins_once_there_is_some(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as full:
        refuse(full, "pwrite", errno.ENOSPC)
        late = Writer(str(tmp_path), INSTANCE, head)
        assert not late.has_begun()
        assert not late.append_last(LINE)
    assert late.append(LINE)
    assert late.has_begun()
    late.close()
    assert (tmp_path / NAME).read_bytes() == head(0) + LINE


def test_of_a_head_that_had_only_room_in_part_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(writer.posix, "pwrite", lambda fd, data, at: whole(fd, data[:3], at))
    late = Writer(str(tmp_path), INSTANCE, head)
    assert (late.has_begun(), late.append_last(LINE)) == (False, False)
    assert (tmp_path / NAME).read_bytes() == b""


def test_a_journal_for_which_there_never_was_room_says_when_its_run_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "pwrite", errno.ENOSPC)
    before_ns = time.time_ns()
    late = Writer(str(tmp_path), INSTANCE, head)
    began_ns = (tmp_path / NAME).stat().st_mtime_ns
    late.close()
    status = (tmp_path / NAME).stat()
    assert (status.st_size, status.st_mode & 0o777) == (0, wire.UNWRITTEN_MODE)
    assert status.st_mtime_ns == began_ns
    assert before_ns - SECOND < began_ns <= status.st_ctime_ns


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(writer.posix, call, refused)
