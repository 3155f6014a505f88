"""The ledger: what is committed is there, whole, numbered and chained; what is not, is not there at all."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from taximeter.errors import LedgerError
from taximeter.ledger import chain
from taximeter.ledger.audit import audit
from taximeter.ledger.migration import SCHEMA_VERSION
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch, JournalState, Ledger, NodeInfo, Stored
from taximeter.values import replace
from tests.ledger.samples import instance_id, opened, run, run_batch

pytestmark = pytest.mark.forged


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened_ledger = opened(tmp_path)
    yield opened_ledger
    opened_ledger.close()


def bodies(directory: Path) -> list[bytes]:
    with LedgerReader(directory / "ledger.db") as reader:
        return list(reader.records())


# --- Records --------------------------------------------------------------------------------------------------------


def test_a_new_ledger_is_empty_and_has_an_id(ledger: Ledger) -> None:
    assert (ledger.head.seq, ledger.head.hash) == (0, "sha256:" + "0" * 64)
    assert ledger.head.ledger_id[14] == "7"


def test_a_ledger_keeps_its_id_and_its_head(tmp_path: Path) -> None:
    first = opened(tmp_path)
    head = first.commit(run_batch(1))
    first.close()
    again = opened(tmp_path)
    assert again.head == head
    again.close()


def test_records_are_numbered_without_a_gap_over_commits_and_restarts(tmp_path: Path) -> None:
    for number in range(3):
        ledger = opened(tmp_path)
        ledger.commit(run_batch(number))
        ledger.close()
    assert [json.loads(body)["data"]["ledger"]["seq"] for body in bodies(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_each_record_names_the_hash_of_the_stored_bytes_before_it(tmp_path: Path, ledger: Ledger) -> None:
    head = ledger.commit(run_batch(1, 2))
    previous = "sha256:" + "0" * 64
    for body in bodies(tmp_path):
        assert json.loads(body)["data"]["ledger"]["previous"] == previous
        previous = "sha256:" + hashlib.sha256(body).hexdigest()
        assert chain.hash_of(body) == previous
    assert head.hash == previous


def test_the_audit_finds_nothing_in_what_was_committed(tmp_path: Path, ledger: Ledger) -> None:
    for number in range(20):
        ledger.commit(run_batch(number))
    with LedgerReader(tmp_path / "ledger.db") as reader:
        assert audit(reader).faults == ()


def test_a_record_id_is_booked_once_and_the_batch_that_repeats_it_not_at_all(tmp_path: Path, ledger: Ledger) -> None:
    ledger.commit(Batch(run(1)[:1], ()))
    head = ledger.head
    with pytest.raises(LedgerError, match=r"cannot commit to ledger .*: .* UNIQUE constraint failed: lookups.id"):
        ledger.commit(Batch((*run(2), *run(1)), ()))
    assert ledger.head == head
    assert len(bodies(tmp_path)) == 1


def test_after_a_refused_batch_the_next_is_taken(tmp_path: Path, ledger: Ledger) -> None:
    ledger.commit(run_batch(1))
    with pytest.raises(LedgerError):
        ledger.commit(Batch(run(1), ()))
    assert ledger.commit(run_batch(2)).seq == 4
    with LedgerReader(tmp_path / "ledger.db") as reader:
        assert audit(reader).faults == ()


def test_a_refused_batch_is_refused_again(tmp_path: Path, ledger: Ledger) -> None:
    ledger.commit(run_batch(1))
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"UNIQUE"):
            ledger.commit(Batch((*run(2), *run(1)), ()))
    assert len(bodies(tmp_path)) == 2


def test_what_json_cannot_say_is_refused_before_anything_is_written(ledger: Ledger) -> None:
    strange = replace(run(1)[0], data={"instance": object()})
    with pytest.raises(LedgerError, match=r"cannot write record .*-00000000: expected what JSON can say"):
        ledger.commit(Batch((strange,), ()))
    assert ledger.commit(run_batch(2)).seq == 2


def test_the_node_id_of_the_first_start_is_kept(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert first.node_id_kept("old-name") == "old-name"
    first.commit(run_batch(1))
    first.close()
    second = opened(tmp_path)
    assert second.node_id_kept("new name") == "old-name"
    second.commit(run_batch(2))
    second.close()
    for body in bodies(tmp_path):
        event = json.loads(body)
        assert (event["source"], event["data"]["node"]["id"]) == ("/nodes/old-name", "old-name")


def test_a_node_id_is_quoted_in_the_source_which_is_a_uri(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.db", NodeInfo("rack 7/ü", None, "taximeter", "sha256:0"))
    ledger.commit(run_batch(1))
    ledger.close()
    assert json.loads(bodies(tmp_path)[0])["source"] == "/nodes/rack%207%2F%C3%BC"


# --- Journals and facts ---------------------------------------------------------------------------------------------


def test_an_open_journal_is_read_on_from_where_it_was_booked(tmp_path: Path, ledger: Ledger) -> None:
    ledger.commit(Batch((), (JournalState(instance_id(1), 0, 100, b"a"), JournalState(instance_id(2), 0, 50, b""))))
    ledger.commit(Batch((), (JournalState(instance_id(1), 1, 7, b"b"),)))
    ledger.close()
    again = opened(tmp_path)
    assert set(again.journals()) == {
        JournalState(instance_id(1), 1, 7, b"b"),
        JournalState(instance_id(2), 0, 50, b""),
    }
    again.close()


def test_a_closed_journal_is_not_read_on(ledger: Ledger) -> None:
    ledger.commit(run_batch(1))
    assert ledger.journals() == ()


def test_an_instance_that_was_closed_is_known_by_its_last_record_for_ever(tmp_path: Path, ledger: Ledger) -> None:
    assert ledger.closed_at([instance_id(1)]) == {}
    ledger.commit(Batch(run(1)[:1], (JournalState(instance_id(1), 0, 9, b"state"),)))
    assert ledger.closed_at([instance_id(1)]) == {}
    ledger.commit(Batch(run(1)[1:], (JournalState(instance_id(1), 0, 99, None),)))
    ledger.close()
    again = opened(tmp_path)
    assert again.closed_at([instance_id(2), instance_id(1)]) == {instance_id(1): 2}
    assert again.closed_at([instance_id(1)[:8]]) == {}
    again.close()


def test_facts_are_kept_in_order_while_their_instance_is_open(ledger: Ledger) -> None:
    ledger.commit(Batch((), (), ((instance_id(1), b"one"), (instance_id(2), b"other"))))
    ledger.commit(Batch((), (JournalState(instance_id(1), 0, 9, b"state"),), ((instance_id(1), b"two"),)))
    assert ledger.facts(instance_id(1)) == (b"one", b"two")
    ledger.commit(Batch(run(1), (JournalState(instance_id(1), 0, 9, None),), ((instance_id(1), b"three"),)))
    assert (ledger.facts(instance_id(1)), ledger.facts(instance_id(2))) == ((), (b"other",))


# --- Sinks ----------------------------------------------------------------------------------------------------------


def test_a_new_sink_begins_with_the_first_record(ledger: Ledger) -> None:
    ledger.commit(run_batch(1))
    ledger.register_sink("billing")
    assert [stored.seq for stored in ledger.unshipped("billing", 10)] == [1, 2]
    assert ledger.pending("billing") == 2


def test_a_sink_goes_on_where_it_acknowledged_also_after_a_restart(tmp_path: Path, ledger: Ledger) -> None:
    ledger.register_sink("billing")
    ledger.commit(run_batch(1, 2))
    ledger.shipped("billing", 3)
    ledger.close()
    again = opened(tmp_path)
    again.register_sink("billing")
    assert again.unshipped("billing", 10) == (Stored(4, bodies(tmp_path)[3]),)
    assert (again.pending("billing"), again.sinks()) == (1, {"billing": 3})
    again.close()


def test_at_most_so_many_records_are_taken_at_once(ledger: Ledger) -> None:
    ledger.register_sink("billing")
    ledger.commit(run_batch(1, 2))
    assert [stored.seq for stored in ledger.unshipped("billing", 3)] == [1, 2, 3]


def test_a_cursor_never_goes_back_and_never_beyond_the_head(ledger: Ledger) -> None:
    ledger.register_sink("billing")
    ledger.commit(run_batch(1, 2))
    ledger.shipped("billing", 3)
    ledger.shipped("billing", 1)
    assert ledger.pending("billing") == 1
    with pytest.raises(LedgerError, match=r"cannot note 5 as shipped to billing: expected at most 4"):
        ledger.shipped("billing", 5)


def test_a_sink_that_nobody_registered_is_an_error_that_names_those_that_were(ledger: Ledger) -> None:
    ledger.register_sink("billing")
    with pytest.raises(LedgerError, match=r"cannot find sink bilking: expected one of billing"):
        ledger.unshipped("bilking", 1)


# --- Files that are no ledger of ours -------------------------------------------------------------------------------


def test_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    opened(tmp_path).close()
    path = tmp_path / "ledger.db"
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", SCHEMA_VERSION + 1)
    connection.close()
    before = path.read_bytes()
    for open_it in (lambda: opened(tmp_path), lambda: LedgerReader(path)):
        with pytest.raises(LedgerError, match=r"expected schema version \d at most, got \d; use the Taximeter that"):
            open_it()
    assert path.read_bytes() == before


def test_another_sqlite_file_is_refused(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    connection.execute("CREATE TABLE songs (name)")
    connection.close()
    with pytest.raises(LedgerError, match=r"expected a Taximeter ledger, got another SQLite file"):
        opened(tmp_path)


def test_a_file_of_anything_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"milk, bread, butter " * 100)
    with pytest.raises(LedgerError, match=r"cannot open ledger .*: .* not a database"):
        opened(tmp_path)
    assert path.read_bytes() == b"milk, bread, butter " * 100


def test_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(LedgerError, match=r"cannot open ledger"):
        opened(tmp_path)


def test_a_ledger_in_a_directory_that_is_absent_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"cannot open ledger .*No such file"):
        opened(tmp_path / "absent")


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path).close()
    monkeypatch.setattr(os, "geteuid", lambda: 4_711)
    with pytest.raises(LedgerError, match=r"expected a file of uid 4711, .*; run the agent as its owner"):
        opened(tmp_path)


def test_a_new_ledger_is_for_its_owner_and_group_only(tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert (tmp_path / "ledger.db").stat().st_mode & 0o007 == 0


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE records SET body = replace(body, 'cus_7', 'cus_8') WHERE seq = 4",
        "UPDATE records SET hash = zeroblob(32) WHERE seq = 4",
        "UPDATE records SET seq = 9 WHERE seq = 4",
        "DELETE FROM records WHERE seq = 3",
        "UPDATE meta SET value = 'another' WHERE key = 'ledger_id'",
    ],
)
def test_a_head_that_does_not_fit_is_not_continued(tmp_path: Path, ledger: Ledger, damage: str) -> None:
    ledger.commit(run_batch(1, 2))
    ledger.close()
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    connection.execute(damage)
    connection.close()
    with pytest.raises(LedgerError, match=r"cannot continue ledger .*: expected record . *, the newest, to fit"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("kept", "zeroed"),
    [(0.0, True), (0.3, True), (0.7, True), (0.99, True), (0.3, False), (0.7, False), (0.99, False)],
)
def test_a_file_that_lost_its_tail_is_never_taken_for_a_sound_one(
    tmp_path: Path, ledger: Ledger, kept: float, zeroed: bool
) -> None:
    for number in range(40):
        ledger.commit(run_batch(number))
    ledger.close()
    path = tmp_path / "ledger.db"
    whole = path.read_bytes()
    cut = int(len(whole) * kept)
    path.write_bytes(whole[:cut] + bytes(len(whole) - cut if zeroed else 0))
    assert what_is_wrong(path)


def what_is_wrong(path: Path) -> list[str]:
    try:
        with LedgerReader(path) as reader:
            return [fault.what for fault in audit(reader).faults]
    except LedgerError as error:
        return [str(error)]
