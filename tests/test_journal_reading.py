"""Reading journals on: each whole line once, whatever the file is cut, grown, replaced or filled with."""

import os
import random
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter import events, wire
from taximeter.errors import JournalFault
from taximeter.journal import (
    Chunk,
    Position,
    is_loose,
    list_instances,
    open_directory,
    open_heard,
    open_marks,
    parse_line,
    read_on,
    remove,
    sync,
    writer_pid,
)
from taximeter.journal.mending import mended
from tests.journal_samples import INSTANCE, NAME, OTHER, fact, held, open_line, sample, sample_lines, sealed_anew
from tests.require import require_root

MINE = frozenset({os.geteuid()})


@pytest.fixture
def directory_fd(tmp_path: Path) -> Iterator[int]:
    fd = open_directory(tmp_path)
    yield fd
    os.close(fd)


def read(directory_fd: int, position: Position | None = None, limit_bytes: int = 1 << 20) -> Chunk:
    chunk = read_on(directory_fd, INSTANCE, position or Position(), MINE, limit_bytes)
    assert chunk.owner == os.geteuid()
    return chunk._replace(owner=-1)


def reasons(chunk: Chunk) -> list[str]:
    return [fault.reason for fault in chunk.faults]


def fault_of(directory_fd: int, position: Position | None = None) -> str:
    with pytest.raises(JournalFault) as caught:
        read(directory_fd, position)
    return caught.value.reason


def sample_events() -> tuple[events.Event, ...]:
    return tuple(parse_line(line) for line in sample_lines())


def test_a_journal_is_read_whole_and_in_order(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).write_bytes(sample())
    chunk = read(directory_fd)
    assert chunk == Chunk(sample_events(), Position(0, len(sample())), (), ended=True)


def test_a_journal_cut_at_any_byte_and_then_completed_gives_the_events_of_the_whole(
    tmp_path: Path, directory_fd: int
) -> None:
    path, whole = tmp_path / NAME, sample()
    path.touch()
    with held(path):
        for cut in range(len(whole) + 1):
            path.write_bytes(whole[:cut])
            first = read(directory_fd)
            assert first.position.offset == whole[:cut].rfind(b"\n") + 1
            path.write_bytes(whole)
            second = read(directory_fd, first.position)
            assert first.events + second.events == sample_events(), cut
            assert first.faults + second.faults == (), cut


def test_a_journal_cut_at_any_byte_whose_writer_is_gone_loses_the_torn_line_only(
    tmp_path: Path, directory_fd: int
) -> None:
    whole = sample()
    for cut in range(len(whole) + 1):
        (tmp_path / NAME).write_bytes(whole[:cut])
        chunk = read(directory_fd)
        lines = whole[:cut].count(b"\n")
        assert chunk.events == sample_events()[:lines], cut
        assert reasons(chunk) == ([] if whole[:cut].endswith(b"\n") or not cut else ["torn"]), cut
        assert chunk.position == Position(0, cut)


def test_nothing_is_read_twice(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).write_bytes(sample())
    chunk = read(directory_fd)
    assert read(directory_fd, chunk.position) == Chunk((), chunk.position, (), ended=False)


def test_a_torn_tail_is_a_fault_once(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).write_bytes(open_line() + b'\n{"v":1,')
    chunk = read(directory_fd)
    assert reasons(chunk) == ["torn"]
    assert read(directory_fd, chunk.position) == Chunk((), chunk.position, (), ended=False)


def test_a_torn_line_in_the_middle_costs_that_line_only(tmp_path: Path, directory_fd: int) -> None:
    lines = sample_lines()
    (tmp_path / NAME).write_bytes(lines[0] + b"\n" + lines[1][:20] + b"\n" + lines[2] + b"\n")
    chunk = read(directory_fd)
    assert chunk.events == (parse_line(lines[0]), events.Unread(), parse_line(lines[2]))
    assert reasons(chunk) == ["not_json"]


def test_blank_lines_are_nothing(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).write_bytes(b"\n" + open_line() + b"\n\n")
    chunk = read(directory_fd)
    assert (len(chunk.events), chunk.faults) == (1, ())


def test_a_nul_ends_the_file_for_it_is_the_reserve(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).write_bytes(sample() + bytes(wire.RESERVE_BYTES))
    chunk = read(directory_fd)
    assert chunk == Chunk(sample_events(), Position(0, len(sample())), (), ended=True)


def test_a_line_that_was_begun_in_the_reserve_waits_for_its_end(tmp_path: Path, directory_fd: int) -> None:
    path, line = tmp_path / NAME, open_line()
    path.write_bytes(line[:50] + bytes(wire.RESERVE_BYTES))
    with held(path):
        first = read(directory_fd)
        assert first == Chunk((), Position(0, 0), (), ended=False)
        path.write_bytes(line + b"\n" + bytes(wire.RESERVE_BYTES))
        assert read(directory_fd, first.position).events == (parse_line(line),)


def test_lines_of_another_instance_are_faults_and_lost(tmp_path: Path, directory_fd: int) -> None:
    lines = [open_line(), open_line(OTHER), open_line(segment=3), fact("ready", 1_300, by="exec")]
    (tmp_path / NAME).write_bytes(b"\n".join(lines) + b"\n")
    chunk = read(directory_fd)
    assert chunk.events == (parse_line(lines[0]), events.Unread(), events.Unread(), parse_line(lines[3]))
    assert reasons(chunk) == ["foreign", "foreign"]


def test_a_newer_version_stops_at_its_line_and_keeps_what_came_before(tmp_path: Path, directory_fd: int) -> None:
    before = open_line() + b"\n\n"
    (tmp_path / NAME).write_bytes(before + b'{"v":2,"f":"new"}\n' + fact("ready", 1_300, by="exec") + b"\n")
    chunk = read(directory_fd)
    assert chunk.events == (parse_line(open_line()),)
    assert reasons(chunk) == ["newer_version"]
    assert chunk.position == Position(0, len(before))
    assert not chunk.more
    assert reasons(read(directory_fd, chunk.position)) == ["newer_version"]


def test_a_long_journal_is_read_in_pieces_and_says_that_there_is_more(tmp_path: Path, directory_fd: int) -> None:
    lines = [fact("ready_timeout", number) for number in range(10_000)]
    (tmp_path / NAME).write_bytes(b"\n".join(lines) + b"\n")
    position, seen, reads = Position(), [], 0
    while True:
        chunk = read(directory_fd, position, limit_bytes=1)
        seen += [event.at_ns for event in chunk.events if isinstance(event, events.ReadyTimedOut)]
        position, reads = chunk.position, reads + 1
        if not chunk.more:
            break
    assert seen == list(range(10_000))
    assert reads > 3


def test_no_more_lines_are_read_at_a_time_than_were_asked_for_and_none_twice(tmp_path: Path, directory_fd: int) -> None:
    lines = [b"", b"no fact", *[fact("ready_timeout", number) for number in range(10)], b"", b"neither"]
    (tmp_path / NAME).write_bytes(b"\n".join(lines) + b"\n")
    position, seen, sizes, more = Position(), [], [], True
    while more:
        chunk = read_on(directory_fd, INSTANCE, position, MINE, 1 << 20, 3)
        seen += [event.at_ns for event in chunk.events if event != events.Unread()]
        sizes.append(len(chunk.events))
        position, more = chunk.position, chunk.more
    assert seen == list(range(10))
    assert sizes == [3, 3, 3, 3]
    assert position.offset == (tmp_path / NAME).stat().st_size


def test_a_line_without_end_is_skipped_in_bounded_memory_and_counted_once(tmp_path: Path, directory_fd: int) -> None:
    with (tmp_path / NAME).open("wb") as journal:
        journal.write(open_line() + b"\n")
        for _ in range(32):
            journal.write(b'{"v":1,"f":"ready_timeout","t":9}' + b"x" * (1 << 20))
        journal.write(b"\n" + fact("ready", 1_300, by="exec") + b"\n")
    tracemalloc.start()
    found: list[events.Event] = []
    faults: list[str] = []
    position, more = Position(), True
    while more:
        chunk = read(directory_fd, position, limit_bytes=1 << 18)
        found += chunk.events
        faults += reasons(chunk)
        position, more = chunk.position, chunk.more
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [parse_line(open_line()), events.Unread(), parse_line(fact("ready", 1_300, by="exec"))]
    assert faults == ["too_long"]
    assert peak_bytes < 4 << 20


def test_a_sparse_file_of_2_gib_is_an_end_and_not_a_line(tmp_path: Path, directory_fd: int) -> None:
    with (tmp_path / NAME).open("wb") as journal:
        journal.write(open_line() + b"\n")
        journal.truncate(2 << 30)
    assert read(directory_fd) == Chunk((parse_line(open_line()),), Position(0, len(open_line()) + 1), (), ended=False)


def test_a_line_of_64_kib_less_one_byte_is_the_longest(tmp_path: Path, directory_fd: int) -> None:
    shorter = open_line(argv=[""])
    longest = open_line(argv=["a" * (wire.LINE_MAX_BYTES - 1 - len(shorter))])
    assert len(longest) == wire.LINE_MAX_BYTES - 1
    too_long = open_line(argv=["a" * (wire.LINE_MAX_BYTES - len(shorter))])
    (tmp_path / NAME).write_bytes(longest + b"\n" + too_long + b"\n")
    chunk = read(directory_fd)
    assert chunk.events == (parse_line(longest), events.Unread())
    assert reasons(chunk) == ["too_long"]


# --- What is damaged ------------------------------------------------------------------------------------------------


def sealed(line: bytes) -> bytes:
    """As a wrapper of today ends it."""
    return sealed_anew(line[:-1] + b"\n").rstrip(b"\n")


def sealed_sample() -> list[bytes]:
    return [sealed(line) for line in sample_lines()]


@pytest.mark.parametrize("number", range(len(sample_lines())))
def test_a_bit_that_turned_anywhere_in_a_line_is_turned_back(tmp_path: Path, directory_fd: int, number: int) -> None:
    lines = sealed_sample()
    line = lines[number]
    for at in range(len(line)):
        turned = line[:at] + bytes([line[at] ^ 1 << at % 8]) + line[at + 1 :]
        if b"\n" in turned or b"\0" in turned:
            continue
        (tmp_path / NAME).write_bytes(b"\n".join([*lines[:number], turned, *lines[number + 1 :]]) + b"\n")
        chunk = read(directory_fd)
        assert chunk.events == sample_events(), (at, turned)
        assert reasons(chunk) in ([], ["mended"])  # a name of the checksum's own key is no loss


@given(number=st.integers(0, len(sample_lines()) - 1), dice=st.randoms(use_true_random=False))
def test_what_more_than_one_bit_is_wrong_with_is_lost_and_never_another_fact(number: int, dice: random.Random) -> None:
    line = bytearray(sealed_sample()[number])
    for at in dice.sample(range(len(line)), dice.randint(2, 30)):
        line[at] ^= dice.randint(1, 255)
    whole = mended(bytes(line))
    assert whole in (None, sealed_sample()[number])


def test_a_damaged_heartbeat_is_no_other_fact_so_nothing_else_is_lost(tmp_path: Path, directory_fd: int) -> None:
    lines = sealed_sample()
    lines[8] = b'{"v":1,"f":"heartbeat","t":1600,"clock":{"mono????????????},"c":"01234567"}'
    (tmp_path / NAME).write_bytes(b"\n".join(lines) + b"\n")
    chunk = read(directory_fd)
    assert chunk.events == (*sample_events()[:8], sample_events()[9])
    assert reasons(chunk) == ["damaged"]


def test_what_is_damaged_behind_the_end_changes_nothing(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).write_bytes(sample() + b"no fact\n")
    chunk = read(directory_fd)
    assert chunk.events == sample_events()
    assert (chunk.ended, reasons(chunk)) == (True, ["not_json"])


def test_a_mended_line_of_a_newer_version_stops_as_any_other(tmp_path: Path, directory_fd: int) -> None:
    turned = sealed(b'{"v":2,"f":"new"}').replace(b"new", b"neu")
    (tmp_path / NAME).write_bytes(open_line() + b"\n" + turned + b"\n")
    chunk = read(directory_fd)
    assert (chunk.events, reasons(chunk)) == ((parse_line(open_line()),), ["newer_version"])


def test_a_line_of_an_older_wrapper_cannot_be_mended() -> None:
    line = fact("ready", 1_300, by="exec")
    assert [mended(line[:at] + b"~" + line[at + 1 :]) for at in range(len(line))] == [None] * len(line)


def test_a_line_in_which_a_bit_cannot_be_told_from_others_is_not_mended() -> None:
    line = sealed(open_line(argv=["a" * 12_000]))
    assert mended(line.replace(b"aaaa", b"aaac", 1)) is None


# --- What may lie in a drop-box -------------------------------------------------------------------------------------


def test_a_journal_that_is_not_there_is_missing(directory_fd: int) -> None:
    assert fault_of(directory_fd) == "missing"


def test_a_symlink_is_not_followed(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / "elsewhere").write_bytes(sample())
    (tmp_path / NAME).symlink_to("elsewhere")
    assert fault_of(directory_fd) == "symlink"


@pytest.mark.timeout(10)
def test_a_fifo_is_not_waited_for(tmp_path: Path, directory_fd: int) -> None:
    os.mkfifo(tmp_path / NAME)
    assert fault_of(directory_fd) == "not_regular"


def test_a_directory_is_no_journal(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).mkdir()
    assert fault_of(directory_fd) == "not_regular"


def test_a_file_with_a_second_name_is_no_journal(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).write_bytes(sample())
    (tmp_path / "second").hardlink_to(tmp_path / NAME)
    assert fault_of(directory_fd) == "linked"


@pytest.mark.parametrize("mode", [0o660, 0o642, 0o666])
def test_a_journal_that_others_may_write_to_is_not_believed(tmp_path: Path, directory_fd: int, mode: int) -> None:
    (tmp_path / NAME).write_bytes(sample())
    (tmp_path / NAME).chmod(mode)
    assert fault_of(directory_fd) == "loose_mode"


LOOSE_OR_NOT = [(0o700, False), (0o3733, False), (0o1777, False), (0o777, True), (0o2770, True)]


@pytest.mark.parametrize(("mode", "loose"), LOOSE_OR_NOT)
def test_a_directory_is_loose_where_users_may_take_away_each_others_files(
    tmp_path: Path, directory_fd: int, mode: int, loose: bool
) -> None:
    tmp_path.chmod(mode)
    assert is_loose(directory_fd) is loose


def test_a_journal_of_an_owner_who_is_not_permitted_is_not_read(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).write_bytes(sample())
    with pytest.raises(JournalFault, match=rf"expected an owner .* got uid {os.geteuid()}") as caught:
        read_on(directory_fd, INSTANCE, Position(), frozenset({os.geteuid() + 1}))
    assert caught.value.reason == "foreign_owner"


def test_without_a_list_of_owners_all_are_permitted(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).write_bytes(sample())
    assert read_on(directory_fd, INSTANCE, Position(), None).ended


def test_a_journal_shorter_than_what_was_read_is_a_fault(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).write_bytes(sample()[:100])
    assert fault_of(directory_fd, Position(0, 101)) == "shorter"


def test_a_journal_replaced_between_two_reads_is_a_fault(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).write_bytes(open_line() + b"\n")
    position = read(directory_fd).position
    (tmp_path / "new").write_bytes(sample())
    (tmp_path / "new").rename(tmp_path / NAME)
    assert fault_of(directory_fd, position) == "replaced"


def test_no_descriptor_is_left_behind_by_what_is_refused(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        fault_of(directory_fd)
    assert len(os.listdir("/proc/self/fd")) == before


def test_only_names_that_a_wrapper_gives_are_instances(tmp_path: Path, directory_fd: int) -> None:
    for name in (
        NAME,
        f"{INSTANCE}.10.ndjson",
        f"{INSTANCE}.2.ndjson",
        f"{OTHER}.0.ndjson",
        f"{OTHER}.marks",
        f"{OTHER}.01.ndjson",
        f"{OTHER}.٣.ndjson",
        f"{OTHER}.1.ndjson\n",
        f"{OTHER.upper()}.1.ndjson",
        ".ndjson",
        "notes.0.ndjson",
    ):
        (tmp_path / name).touch()
    assert list_instances(directory_fd) == {INSTANCE: [0, 2, 10], OTHER: [0]}
    assert list_instances(tmp_path) == list_instances(directory_fd)


# --- Segments and writers -------------------------------------------------------------------------------------------


def test_a_later_segment_is_read_once_the_earlier_one_was_let_go(tmp_path: Path, directory_fd: int) -> None:
    first, second = tmp_path / NAME, tmp_path / f"{INSTANCE}.1.ndjson"
    first.write_bytes(open_line() + b"\n")
    second.write_bytes(open_line(segment=1) + b"\n")
    with held(first):
        held_back = read(directory_fd)
        assert (held_back.position, held_back.more) == (Position(0, len(open_line()) + 1), False)
    let_go = read(directory_fd, held_back.position)
    assert (let_go.position, let_go.more) == (Position(1, 0), True)
    assert read(directory_fd, let_go.position).events == (parse_line(open_line(segment=1)),)


def test_a_torn_end_of_a_segment_is_settled_before_the_next(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).write_bytes(open_line() + b'\n{"v":')
    (tmp_path / f"{INSTANCE}.1.ndjson").write_bytes(open_line(segment=1) + b"\n")
    chunk = read(directory_fd)
    assert (len(chunk.events), reasons(chunk), chunk.position) == (1, ["torn"], Position(1, 0))


def test_the_holder_of_a_journals_lock_is_its_writer(tmp_path: Path, directory_fd: int) -> None:
    path = tmp_path / NAME
    path.touch()
    with held(path) as process:
        assert writer_pid(path) == process.pid
        assert writer_pid(NAME, directory_fd) == process.pid
        with path.open() as journal:
            assert writer_pid(journal.fileno()) == process.pid
    assert writer_pid(path) is None


def test_a_killed_writer_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.touch()
    with held(path) as process:
        process.kill()
        process.wait()
        assert writer_pid(path) is None


def test_a_journal_is_synced_by_its_name(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / NAME).write_bytes(sample())
    sync(directory_fd, NAME)
    with pytest.raises(JournalFault):
        sync(directory_fd, "absent")


def test_removing_an_instance_takes_its_segments_and_its_fifo_and_nothing_else(
    tmp_path: Path, directory_fd: int
) -> None:
    for name in (NAME, f"{INSTANCE}.1.ndjson", f"{OTHER}.0.ndjson"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / f"{INSTANCE}.marks")
    remove(directory_fd, INSTANCE, [0, 1, 2])
    assert [path.name for path in tmp_path.glob("*.*")] == [f"{OTHER}.0.ndjson"]


def test_the_agent_holds_a_fifo_so_that_no_mark_dies_with_the_wrapper(tmp_path: Path, directory_fd: int) -> None:
    path = tmp_path / f"{INSTANCE}.marks"
    os.mkfifo(path)
    fd = open_marks(directory_fd, INSTANCE, MINE)
    writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.write(writer, b'{"mark":"ready"}\n')
    os.close(writer)
    assert os.read(fd, 4_096) == b'{"mark":"ready"}\n'
    assert stat.S_ISFIFO(os.fstat(fd).st_mode)
    os.close(fd)


def test_a_regular_file_in_the_place_of_a_fifo_is_refused(tmp_path: Path, directory_fd: int) -> None:
    (tmp_path / f"{INSTANCE}.marks").touch()
    with pytest.raises(JournalFault) as caught:
        open_marks(directory_fd, INSTANCE, MINE)
    assert caught.value.reason == "not_fifo"


def test_what_the_agent_heard_is_kept_in_a_file_that_nobody_else_may_have_put_there(
    directory_fd: int, tmp_path: Path
) -> None:
    os.close(open_heard(directory_fd, INSTANCE))
    (heard,) = [path for path in Path(f"/proc/self/fd/{directory_fd}").iterdir() if path.name.endswith(".heard")]
    assert stat.S_IMODE(heard.stat().st_mode) == 0o600
    heard.unlink()
    heard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalFault, match="a file of the agent's own"):
        open_heard(directory_fd, INSTANCE)


def test_a_next_segment_of_somebody_else_stops_nobody(tmp_path: Path) -> None:
    require_root()
    (tmp_path / NAME).write_bytes(b"".join(line + b"\n" for line in sample_lines()[:3]))
    stranger = tmp_path / f"{INSTANCE}.1.ndjson"
    stranger.touch(0o600)
    os.chown(stranger, 65534, 65534)
    directory_fd = open_directory(tmp_path)
    chunk = read_on(directory_fd, INSTANCE, Position(), None)
    os.close(directory_fd)
    assert (chunk.position.segment, chunk.more) == (0, False)
