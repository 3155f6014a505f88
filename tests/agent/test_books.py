"""The books: whatever is killed when, the ledger ends up with the same records, each once."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.events import Clock, Exited, Marked, OwnerEnded, ReadyMark, Source
from taximeter.hardware.inventory import Hardware
from taximeter.kernel import boot_id
from taximeter.ledger.reader import LedgerReader
from tests.agent.desks import SECOND, Node, long_run, start, write
from tests.core.stories import BOOT_ID as OTHER_BOOT
from tests.core.stories import book
from tests.journal_samples import (
    BOOT_ID,
    INSTANCE,
    OTHER,
    clock,
    fact,
    held,
    mark_line,
    open_line,
    options,
    sample_lines,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What the long run leads to when nothing goes wrong."""
    node = start(tmp_path_factory.mktemp("whole"))
    write(node.journal, long_run())
    node.read()
    node.commit()
    assert len(node.usage()) > 6
    return node.usage()


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 100_000), max_size=5), crashes=st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_crash_between_any_two_bytes_changes_no_record(
    whole: list[dict[str, object]],
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list[int],
    crashes: list[bool],
) -> None:
    content = b"".join(line + b"\n" for line in long_run())
    node = start(tmp_path_factory.mktemp("node"))
    points = [*sorted(min(cut, len(content)) for cut in cuts), len(content)]
    node.journal.touch(0o640)
    with held(node.journal):
        for point, committed in zip(points, crashes, strict=False):
            with node.journal.open("r+b") as journal:
                journal.write(content[:point])
            node.read()
            if committed:
                node.commit()
            node = node.crash()
        node.read()
        node.commit()
    assert node.usage() == whole


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 100_000), max_size=5), crashes=st.lists(st.booleans(), min_size=6, max_size=6))
def test_whatever_is_killed_when_the_sums_of_a_pool_are_those_of_its_records(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], crashes: list[bool]
) -> None:
    content = b"".join(line.replace(b'"pool": null', b'"pool": "sdxl"') + b"\n" for line in long_run())
    node = start(tmp_path_factory.mktemp("node"))
    node.journal.touch(0o640)
    with held(node.journal):
        for point, committed in zip([*sorted(cuts), len(content)], [*crashes, True], strict=False):
            node.journal.write_bytes(content[:point])
            node.read()
            if committed:
                node.commit()
            node = node.crash()
        node.read()
        node.commit()
    phases = [one["data"]["time"] for one in node.usage() if not one["data"]["prediction"]]
    shares = [one["data"]["time"]["share_ns"] for one in node.usage() if one["data"]["prediction"]]
    with LedgerReader(node.path / "ledger.db") as reader:
        time = reader.pools(0)["sdxl"]
    assert time.wall == sum(one["wall_ns"] for one in phases)
    assert (time.idle, time.active) == (sum(one["idle_ns"] for one in phases), sum(one["active_ns"] for one in phases))
    assert time.sold - time.returned == sum(shares) == time.active


def test_a_batch_that_was_not_committed_is_read_again(tmp_path: Path, whole: list[dict[str, object]]) -> None:
    node = start(tmp_path / "node")
    write(node.journal, long_run())
    node.read()
    node = node.crash()
    node.read()
    node.commit()
    assert node.usage() == whole


def write_some(node: Node) -> list[str]:
    """A refused file, a run, one in two parts, and one that goes on in a second segment; in the order of reading."""
    names = [f"{INSTANCE[:-1]}{number}" for number in range(4)]
    lines = {name: [line.replace(INSTANCE.encode(), name.encode()) for line in long_run()] for name in names}
    os.mkfifo(node.path / f"{names[0]}.0.ndjson")
    write(node.path / f"{names[1]}.0.ndjson", lines[names[1]])
    write(node.path / f"{names[2]}.0.ndjson", lines[names[2]][:3])
    opened = lines[names[3]][0].replace(b'"segment": 0', b'"segment": 1')
    write(node.path / f"{names[3]}.0.ndjson", lines[names[3]][:3])
    write(node.path / f"{names[3]}.1.ndjson", [opened, *lines[names[3]][3:]])
    return names[::-1]


def test_journals_that_are_read_together_lead_to_what_each_leads_to_alone(tmp_path: Path) -> None:
    alone, together = start(tmp_path / "alone"), start(tmp_path / "together")
    for name in reversed(write_some(alone)):
        while alone.reading.read(name):
            pass
    alone.commit()
    due = write_some(together)
    while due:
        together.reading.read_some(due)
    together.commit()
    assert len({event["data"]["instance"] for event in alone.usage()}) == 2
    order = [event["id"] for event in alone.usage()]
    assert sorted(together.usage(), key=lambda event: order.index(event["id"])) == alone.usage()
    assert together.books.accounts.keys() == alone.books.accounts.keys()
    assert together.books.tally.counters() == alone.books.tally.counters()


def test_what_is_read_together_is_bounded_by_its_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taximeter.agent.reading.TURN", 16)
    node = start(tmp_path / "node")
    due = write_some(node)
    assert node.reading.read_some(due) == [f"{INSTANCE[:-1]}0", f"{INSTANCE[:-1]}1"]
    assert len(due) == 3  # the second has more


def test_a_run_of_a_few_facts_is_read_in_one_piece_though_little_is_left_of_a_turn(tmp_path: Path) -> None:
    node, run = start(tmp_path / "node"), [*long_run()[:4], long_run()[-1]]
    due = [f"{INSTANCE[:-3]}{number:03x}" for number in range(200)]
    for name in due:
        write(node.path / f"{name}.0.ndjson", [line.replace(INSTANCE.encode(), name.encode()) for line in run])
    while due:
        node.reading.read_some(due)
        assert not node.books.accounts


def test_the_more_predictions_are_open_the_fewer_facts_are_read_together(tmp_path: Path) -> None:
    node, at = start(tmp_path / "node"), 3 * SECOND
    starts = [mark_line(at + n, {"mark": "start", "prediction": f"p{n}"}) for n in range(1000)]
    write(node.journal, [*long_run()[:3], *starts, *[mark_line(at + n, {"mark": "ready"}) for n in range(1000, 2000)]])
    taken, before = [], 0
    with held(node.journal):
        while node.reading.read(INSTANCE):
            offset = node.books.accounts[INSTANCE].position.offset
            taken.append(node.journal.read_bytes()[before:offset].count(b"\n"))
            before = offset
    assert taken[0] == 128
    assert taken == sorted(taken, reverse=True)
    assert taken[-1] * 1000 < 10_000


def test_an_instance_that_was_closed_is_known_as_booked(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    write(node.journal, long_run())
    node.read()
    node.commit()
    assert node.crash().ledger.closed_at([INSTANCE]) == {INSTANCE: len(node.usage())}


def test_an_orderly_stop_keeps_the_state_of_what_runs(tmp_path: Path, whole: list[dict[str, object]]) -> None:
    lines = long_run()
    node = start(tmp_path / "node")
    write(node.journal, lines[:30])
    node.read()
    last = node.books.take_everything()
    assert last is not None
    node.ledger.commit(last)
    node = node.crash()
    assert node.books.accounts[INSTANCE].position.offset == node.journal.stat().st_size
    write(node.journal, lines)
    node.read()
    node.commit()
    assert node.usage() == whole


def test_where_it_was_placed_is_kept_as_a_fact_while_it_is_open(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    write(node.journal, long_run()[:3])
    node.read()
    node.commit()
    assert b'"tier":"cpu"' in node.ledger.facts(INSTANCE)[0]


def test_a_restart_places_nothing_twice(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    write(node.journal, long_run()[:3])
    node.read()
    node.commit()
    node = node.crash()
    node.read()
    node.commit()
    assert len(node.ledger.facts(INSTANCE)) == 1


def test_a_resumed_instance_keeps_the_tier_it_was_placed_on(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    write(node.journal, long_run()[:100])
    node.read()
    node.commit()
    node = node.crash()
    account = node.books.accounts[INSTANCE]
    assert account.instance is not None
    assert account.instance.hardware == Hardware("cpu", 0, rule="test")


def test_a_wrapper_that_is_gone_leaves_an_end_that_nobody_saw(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    write(node.journal, sample_lines()[:3])
    node.read()
    node.telling.lose(INSTANCE, Clock(9 * SECOND, 9 * SECOND, 9 * SECOND, 0, BOOT_ID))
    node.commit()
    end = node.usage()[-1]["data"]
    assert (end["exit"]["reason"], end["timing"]["end"]["source"]) == ("wrapper_lost", "heartbeat")
    assert end["time"]["unknown_ns"] == 9 * SECOND - 1_200


def test_a_reboot_ends_an_instance_at_its_last_sign_of_life(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    write(node.journal, sample_lines()[:3])
    node.read()
    node.telling.lose(INSTANCE, Clock(5, 5, 5, 0, OTHER_BOOT))
    node.commit()
    assert node.usage()[-1]["data"]["exit"]["reason"] == "rebooted"


def test_a_journal_without_an_opening_is_nothing_to_close(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    write(node.journal, sample_lines()[1:3])
    node.read()
    node.telling.lose(INSTANCE, Clock(5, 5, 5, 0, BOOT_ID))
    assert node.books.take_batch() is None
    assert node.books.tally.counters().journal_faults == {"before_open": 2}


def test_lines_that_cannot_be_believed_are_counted_and_the_others_booked(tmp_path: Path) -> None:
    lines = sample_lines()
    node = start(tmp_path / "node")
    write(node.journal, [*lines[:3], b"{not json", b'{"v":1,"f":"dance","t":1}', *lines[3:]])
    node.read()
    node.commit()
    assert node.books.tally.counters().journal_faults == {"not_json": 1, "bad_fact": 1}
    assert [event["data"]["status"] for event in node.usage()] == ["canceled", "canceled"]


def test_a_journal_of_a_foreign_owner_is_refused_once_and_not_booked(tmp_path: Path) -> None:
    node = start(tmp_path / "node", owners=frozenset({os.geteuid() + 1}))
    write(node.journal, sample_lines())
    for _ in range(3):
        node.read()
    assert node.books.take_batch() is None
    assert node.books.tally.counters().journal_faults == {"foreign_owner": 1}
    assert not node.books.accounts


@pytest.mark.parametrize("kind", ["symlink", "fifo", "hard link", "directory"])
def test_what_is_no_plain_file_is_refused_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    node = start(tmp_path / "node")
    elsewhere = write(tmp_path / "elsewhere", sample_lines())
    match kind:
        case "symlink":
            node.journal.symlink_to(elsewhere)
        case "fifo":
            os.mkfifo(node.journal)
        case "hard link":
            os.link(elsewhere, node.journal)
        case _:
            node.journal.mkdir()
    node.read()
    assert node.books.take_batch() is None
    assert sum(node.books.tally.counters().journal_faults.values()) == 1


def test_a_newer_version_stops_that_instance_and_no_other(tmp_path: Path) -> None:
    lines = sample_lines()
    node = start(tmp_path / "node")
    write(node.journal, [*lines[:3], lines[-1].replace(b'"v": 1', b'"v": 2')])
    other = [line.replace(INSTANCE.encode(), OTHER.encode()) for line in lines]
    write(node.path / f"{OTHER}.0.ndjson", other)
    for name in (INSTANCE, OTHER):
        node.reading.read(name)
    node.commit()
    assert node.books.accounts[INSTANCE].stuck == "newer_version"
    assert {event["data"]["instance"] for event in node.usage()} == {OTHER}


def test_a_journal_that_shrank_is_said_and_what_was_booked_stays(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    write(node.journal, sample_lines()[:5])
    node.read()
    os.truncate(node.journal, 10)
    node.read()
    assert node.books.accounts[INSTANCE].stuck == "shorter"
    assert node.books.tally.counters().journal_faults == {"shorter": 1}


def test_refused_marks_and_illegal_facts_are_counted_apart(tmp_path: Path) -> None:
    lines = sample_lines()
    node = start(tmp_path / "node")
    write(node.journal, [lines[0], lines[2], *lines])
    node.read()
    counters = node.books.tally.counters()
    assert counters.illegal_events == {"ready_in_pending": 1}
    assert counters.rejected_marks == {"not_json": 1}


def test_what_cannot_be_so_of_who_called_whom_is_counted_and_booked(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    mine = str(options()["prediction"])
    write(node.journal, [open_line(options=options(parent=mine)), *sample_lines()[1:]])
    node.read()
    node.commit()
    assert node.books.tally.counters().call_faults == {"own_parent": 1}
    assert {event["data"]["prediction"] for event in node.usage()} == {mine, None}


def test_many_refused_files_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("books", "complaints"):
        monkeypatch.setattr(f"taximeter.agent.{room}.MOST_REMEMBERED", 2)
    node = start(tmp_path / "node")
    names = [f"{INSTANCE[:-2]}{n:02d}" for n in range(5)]
    for name in names:
        os.mkfifo(node.path / f"{name}.0.ndjson")
        node.reading.read(name)
    assert not node.books.accounts
    assert len(node.books.complaints._made) <= 2


def test_a_fact_from_the_future_of_this_boot_is_not_believed(tmp_path: Path) -> None:
    this_boot = boot_id().encode()
    lines = [line.replace(BOOT_ID.encode(), this_boot) for line in sample_lines()]
    lines[-1] = lines[-1].replace(b'"t": 1700', b'"t": %d' % (time.monotonic_ns() + 3600 * SECOND))
    node = start(tmp_path / "node")
    write(node.journal, lines)
    node.read()
    assert node.books.tally.counters().journal_faults == {"future": 1}
    assert INSTANCE in node.books.accounts


def test_a_newer_version_is_counted_once_however_often_it_is_looked_at(tmp_path: Path) -> None:
    lines = sample_lines()
    node = start(tmp_path / "node")
    write(node.journal, [*lines[:3], lines[-1].replace(b'"v": 1', b'"v": 2')])
    for _ in range(3):
        node.read()
    assert node.books.tally.counters().journal_faults == {"newer_version": 1}


def test_a_batch_that_was_put_back_comes_again_before_anything_newer(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    lines = long_run()
    with held(write(node.journal, lines[:8])):
        node.read()
        batch = node.books.take_batch()
        assert batch is not None
        node.books.put_back(batch)
        write(node.journal, lines)
        node.read()
        assert node.books.take_batch() is batch
        assert node.books.take_batch() is not None


def test_warnings_about_journals_are_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node = start(tmp_path / "node")
    write(node.journal, [*sample_lines()[:3], *[b"{not json"] * 500])
    node.read()
    assert node.books.tally.counters().journal_faults == {"not_json": 500}
    assert len(caplog.records) <= 62


def test_facts_that_the_wrapper_had_to_drop_are_counted(tmp_path: Path) -> None:
    lines = sample_lines()
    lines[-1] = lines[-1].replace(b'"error": null', b'"error": null, "dropped": 17')
    node = start(tmp_path / "node")
    write(node.journal, lines)
    node.read()
    assert node.books.tally.counters().journal_faults == {"dropped": 17}


def many_open(count: int) -> list[bytes]:
    """A worker with so many predictions open, and then a heartbeat with which they are cut."""
    starts = [mark_line(3 * SECOND + n, {"mark": "start", "prediction": f"p{n}"}) for n in range(count)]
    beats = [fact("heartbeat", s * SECOND, clock=clock(s * SECOND), usage=None) for s in range(4, 12)]
    return [*long_run()[:3], *starts, *beats]


def test_the_interim_records_of_many_predictions_are_made_in_pieces_and_kept_as_one(tmp_path: Path) -> None:
    node = start(tmp_path / "node", rules=book(10 * SECOND))
    lines = many_open(600)
    with held(write(node.journal, lines[:-2])):
        node.read()
        node.commit()
        write(node.journal, lines)
        pieces = 0
        while not node.books.waiting:
            assert node.reading.read(INSTANCE) or node.books.waiting
            pieces += 1
        assert pieces == 5
        assert node.books.waiting == 601
        node.read()
        node.commit()
    assert len(node.usage()) == 601


def with_an_end(count: int) -> list[bytes]:
    end = 12 * SECOND
    return [*many_open(count), fact("exit", end, code=3, signal=None, core=False, clock=clock(end))]


def test_the_final_records_of_many_predictions_are_made_in_pieces_and_kept_as_one(tmp_path: Path) -> None:
    node, whole = (start(tmp_path / name) for name in ("node", "whole"))
    lines = with_an_end(600)
    with held(write(node.journal, lines[:-1])):
        node.read()
        node.commit()
        write(node.journal, lines)
        pieces = 0
        while not node.books.waiting:
            assert node.reading.read(INSTANCE) or node.books.waiting
            pieces += 1
        assert (pieces, node.books.waiting) == (5, 601)
        node.commit()
    write(whole.journal, lines)
    while INSTANCE not in whole.ledger.closed_at([INSTANCE]):
        whole.read()
        whole.commit()
    assert node.usage() == whole.usage()
    assert len(node.usage()) == 601
    assert node.books.accounts == {}


END = 12 * SECOND
NOW = Clock(END, END + 5, END - 7, 1795341603000000000 + END, BOOT_ID)


def stop(node: Node) -> None:
    write(node.journal, [*many_open(600), fact("signal", END, signal=15, kernel=False, outside=True, sender=99)])


def say_that_it_stops(node: Node) -> None:
    write(node.journal, [*many_open(600), mark_line(END, {"mark": "stopping", "reason": "canceled"})])


def see_it_end(node: Node) -> None:
    node.telling.book_own(INSTANCE, [Exited(END, 1, None, False, NOW, source=Source.AGENT)], 7)


def see_a_child_end(node: Node) -> None:
    node.telling.book_look(INSTANCE, [OwnerEnded(END, 77, END - 1, END)])


def lose(node: Node) -> None:
    node.telling.lose(INSTANCE, NOW)


def of_a_child(lines: list[bytes]) -> list[bytes]:
    marks = [mark_line(3 * SECOND + n, {"mark": "start", "prediction": f"p{n}", "pid": 77}) for n in range(600)]
    return [*lines[:3], *marks, *lines[603:]]


ENDINGS = [stop, say_that_it_stops, see_it_end, see_a_child_end, lose]


def with_many_open(tmp_path: Path, ending: Callable[[Node], None]) -> Iterator[Node]:
    """A node, and another one, that have read of an instance with 600 open predictions."""
    for name in ("node", "whole"):
        node = start(tmp_path / name)
        lines = of_a_child(many_open(600)) if ending is see_a_child_end else many_open(600)
        with held(write(node.journal, lines)):
            while node.reading.read(INSTANCE):
                pass
            node.commit()
            yield node


@pytest.mark.parametrize("ending", ENDINGS)
def test_however_many_predictions_end_at_once_it_is_in_pieces_that_are_kept_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: Callable[[Node], None]
) -> None:
    node, whole = with_many_open(tmp_path, ending)
    ending(node)
    pieces = 0
    while not node.books.waiting:
        assert node.reading.read(INSTANCE) or node.books.waiting
        pieces += 1
    assert pieces >= 4
    assert not node.halves.names
    node.commit()
    for room in ("halves", "reading"):
        monkeypatch.setattr(f"taximeter.agent.{room}.AT_ONCE", 1024)
    ending(whole)
    while whole.reading.read(INSTANCE):
        pass
    whole.commit()
    assert node.usage() == whole.usage()
    assert len(node.usage()) >= 600


@pytest.mark.parametrize("ending", [see_it_end, see_a_child_end, lose])
def test_of_what_the_agent_saw_a_crash_between_two_pieces_keeps_nothing(
    tmp_path: Path, ending: Callable[[Node], None]
) -> None:
    node, _ = with_many_open(tmp_path, ending)
    ending(node)
    node.reading.read(INSTANCE)
    node.commit()
    assert node.usage() == []
    node = node.crash()
    ending(node)
    while node.halves.names:
        node.halves.go_on(INSTANCE)
    node.commit()
    assert len(node.usage()) >= 600
    assert len({event["id"] for event in node.usage()}) == len(node.usage())


def test_what_the_agent_heard_is_booked_as_far_as_it_is_folded(tmp_path: Path) -> None:
    node, _ = with_many_open(tmp_path, see_a_child_end)
    see_a_child_end(node)
    node.telling.book_own(INSTANCE, [Marked(END, ReadyMark())], 7)
    node.telling.book_heard(INSTANCE, 9)
    account = node.books.accounts[INSTANCE]
    assert account.instance is not None
    assert account.instance.heard_bytes == 0
    while node.halves.names:
        node.halves.go_on(INSTANCE)
    assert account.instance.heard_bytes == 9
    assert account.instance.predictions == ()


@pytest.mark.parametrize("at_once", ["look", "heard", "own", "everything", "lost"])
def test_what_else_is_booked_of_an_instance_whose_end_is_half_folded_comes_too_late(
    tmp_path: Path, at_once: str
) -> None:
    node = start(tmp_path / "node")
    lines = with_an_end(600)
    with held(write(node.journal, lines[:-1])):
        node.read()
        node.commit()
        write(node.journal, lines)
        assert node.reading.read(INSTANCE)
        book_it = {
            "look": lambda: node.telling.book_look(INSTANCE, []),
            "heard": lambda: node.telling.book_heard(INSTANCE, 7),
            "own": lambda: node.telling.book_own(INSTANCE, []),
            "lost": lambda: node.telling.lose(INSTANCE, Clock(1, 1, 1, 1, BOOT_ID)),
            "everything": lambda: None,
        }
        book_it[at_once]()
        while node.halves.names:
            node.halves.go_on(INSTANCE)
        last = node.books.take_everything()
        assert last is not None
        node.ledger.commit(last)
    assert len(node.usage()) == 601
    assert INSTANCE in node.ledger.closed_at([INSTANCE])


@pytest.mark.parametrize("pieces", [1, 3, 5])
@pytest.mark.parametrize("committed", [False, True])
def test_a_crash_between_two_pieces_loses_nothing_and_doubles_nothing(
    tmp_path: Path, pieces: int, committed: bool
) -> None:
    whole, node = (start(tmp_path / name, rules=book(10 * SECOND)) for name in ("whole", "node"))
    lines = many_open(600)
    with held(write(whole.journal, lines)), held(write(node.journal, lines[:-2])):
        whole.read()
        whole.commit()
        node.read()
        node.commit()
        write(node.journal, lines)
        for _ in range(pieces):
            node.reading.read(INSTANCE)
        if committed:
            node.telling.book_heard(INSTANCE, None) if pieces == 1 else node.commit()
        node.ledger.close()
        node = start(node.path, rules=book(10 * SECOND))
        node.read()
        node.commit()
        assert node.usage() == whole.usage()


@pytest.mark.parametrize("at_once", ["look", "heard", "own", "everything"])
def test_what_else_is_booked_of_an_instance_comes_behind_what_is_half_folded(tmp_path: Path, at_once: str) -> None:
    node = start(tmp_path / "node", rules=book(10 * SECOND))
    lines = many_open(600)
    with held(write(node.journal, lines[:-2])):
        node.read()
        node.commit()
        write(node.journal, lines)
        assert node.reading.read(INSTANCE)
        book_it = {
            "look": lambda: node.telling.book_look(INSTANCE, []),
            "heard": lambda: node.telling.book_heard(INSTANCE, 7),
            "own": lambda: node.telling.book_own(INSTANCE, []),
            "everything": lambda: None,
        }
        book_it[at_once]()
        while node.halves.names:
            node.halves.go_on(INSTANCE)
        last = node.books.take_everything()
        assert last is not None
        node.ledger.commit(last)
        assert len(node.usage()) == 601
        node.ledger.close()
        node = start(node.path, rules=book(10 * SECOND))
        node.read()
        assert node.books.accounts[INSTANCE].position.offset == node.journal.stat().st_size
        node.commit()
    assert len(node.usage()) == 601
