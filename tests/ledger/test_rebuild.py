"""A damaged ledger is kept, and another takes its place with what some sink has not had; nothing is shipped twice."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taximeter.billing.credit import Grant
from taximeter.billing.money import decimal_of
from taximeter.errors import LedgerError
from taximeter.ledger import layout
from taximeter.ledger.audit import audit
from taximeter.ledger.damage import damage_of, suspect
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.rebuild import Rebuilt, rebuild_if_damaged
from taximeter.ledger.store import Batch, JournalState, Ledger
from tests.ledger.samples import NODE, instance_id, opened, prediction_record, run_batch

pytestmark = pytest.mark.forged

PAGE = 16_384


def a_ledger(where: Path, runs: int = 8, **cursors: int) -> Path:
    """Records of one-shots, two each, an instance that is open with one record, and sinks."""
    ledger = opened(where)
    for number in range(1, runs + 1):
        ledger.commit(run_batch(number))
    first = prediction_record(instance_id(99), 0, final=False, status="processing")
    ledger.commit(Batch((first,), (JournalState(instance_id(99), 0, 700, b'{"state":1}'),), ((instance_id(99), b"f"),)))
    for name, seq in cursors.items():
        ledger.register_sink(name)
        ledger.shipped(name, seq)
    ledger.close()
    return where / "ledger.db"


def rebuilt(path: Path) -> tuple[Rebuilt, list[tuple[str, Mapping[str, object]]]]:
    told: list[tuple[str, Mapping[str, object]]] = []
    done = rebuild_if_damaged(path, NODE, lambda ledger_id, before: told.append((ledger_id, before)))
    assert done is not None
    return done, told


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def wipe(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(bytes(PAGE))


def hurt_record(path: Path, seq: int) -> None:
    """Flip a bit of a record's bytes, on the disk."""
    connection = apsw.Connection(str(path))
    body = connection.execute("SELECT body FROM records WHERE seq = ?", (seq,)).get
    connection.close()
    assert isinstance(body, bytes)
    offset = path.read_bytes().find(body[:200])
    assert offset > 0
    flip(path, offset + 150)


def ids_of(path: Path) -> list[str]:
    with LedgerReader(path) as reader:
        return [orjson.loads(body)["id"] for body in reader.records()]


def root_page(path: Path, table: str) -> int:
    connection = apsw.Connection(str(path))
    page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).get
    connection.close()
    assert isinstance(page, int)
    return page - 1


# --- What counts as damage ------------------------------------------------------------------------------------------


def test_a_sound_ledger_is_not_damaged(tmp_path: Path) -> None:
    assert damage_of(a_ledger(tmp_path)) is None


def test_a_ledger_without_a_record_is_not_damaged(tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert damage_of(tmp_path / "ledger.db") is None


def test_a_ledger_that_is_not_there_is_not_damaged(tmp_path: Path) -> None:
    assert damage_of(tmp_path / "ledger.db") is None


def test_a_ledger_of_an_agent_that_was_killed_is_not_damaged(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.commit(run_batch(1))
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tmp_path.glob("ledger.db*"):
        shutil.copy(path, copy)
    ledger.close()
    assert (copy / "ledger.db-wal").exists()
    assert damage_of(copy / "ledger.db") is None


def test_another_sqlite_file_is_no_damaged_ledger(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    connection.execute("CREATE TABLE songs (name)")
    connection.close()
    assert damage_of(tmp_path / "ledger.db") is None


def test_a_newer_schema_is_no_damage(tmp_path: Path) -> None:
    path = a_ledger(tmp_path)
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 9)
    connection.close()
    assert damage_of(path) is None


@pytest.mark.parametrize(("pragma", "value"), [("application_id", 7), ("user_version", 1 << 20), ("user_version", 0)])
def test_a_header_that_no_taximeter_writes_is_damage(tmp_path: Path, pragma: str, value: int) -> None:
    path = a_ledger(tmp_path)
    connection = apsw.Connection(str(path))
    connection.pragma(pragma, value)
    connection.close()
    assert damage_of(path) == "its header is not a ledger's, though it has a ledger's tables"


def test_what_is_no_sqlite_file_any_more_is_damage(tmp_path: Path) -> None:
    path = a_ledger(tmp_path)
    flip(path, 3)
    assert "not a database" in str(damage_of(path))


def test_a_header_of_no_known_format_is_damage(tmp_path: Path) -> None:
    path = a_ledger(tmp_path)
    flip(path, 47)
    assert "unsupported file format" in str(damage_of(path))


def test_a_record_that_changed_is_damage(tmp_path: Path) -> None:
    path = a_ledger(tmp_path)
    hurt_record(path, 12)
    assert damage_of(path) == "record 12 does not fit its hash"


def test_a_record_that_is_missing_is_damage(tmp_path: Path) -> None:
    path = a_ledger(tmp_path)
    connection = apsw.Connection(str(path))
    connection.execute("DELETE FROM records WHERE seq = 12")
    connection.close()
    assert damage_of(path) == "record 13 does not follow the one before it"


def test_a_record_that_says_nothing_of_its_place_is_damage(tmp_path: Path) -> None:
    path = a_ledger(tmp_path)
    connection = apsw.Connection(str(path))
    digest = bytes.fromhex("44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")  # of {}
    connection.execute("UPDATE records SET body = ?, hash = ? WHERE seq = 12", (b"{}", digest))
    connection.close()
    assert "follow" in str(damage_of(path))


def test_a_table_that_is_missing_is_damage(tmp_path: Path) -> None:
    path = a_ledger(tmp_path)
    connection = apsw.Connection(str(path))
    connection.execute("DROP TABLE facts")
    connection.close()
    assert damage_of(path) == "there is no table facts"


def test_a_large_ledger_is_looked_through_whole_where_a_commit_met_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_ledger(tmp_path)
    wipe(path, root_page(path, "lookups_account"))
    monkeypatch.setattr("taximeter.ledger.damage.WHOLE_MAX_BYTES", 0)
    assert damage_of(path) is None
    suspect(path)
    assert damage_of(path) is not None


def test_a_suspicion_that_proves_wrong_is_gone(tmp_path: Path) -> None:
    path = a_ledger(tmp_path)
    suspect(path)
    assert damage_of(path) is None
    assert not list(tmp_path.glob("*.suspect"))


# --- What takes its place -------------------------------------------------------------------------------------------


def test_a_damaged_ledger_is_kept_as_it_was(tmp_path: Path) -> None:
    path = a_ledger(tmp_path)
    hurt_record(path, 12)
    before = path.read_bytes()
    done, _ = rebuilt(path)
    assert done.kept_as.read_bytes() == before
    assert done.kept_as.name.startswith("ledger-damaged-")


def test_what_no_sink_has_goes_over_in_order_and_under_the_same_ids(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=10)
    expected = ids_of(path)[10:]
    wipe(path, root_page(path, "lookups_account"))
    rebuilt(path)
    assert ids_of(path) == expected


def test_what_every_sink_has_does_not_go_over(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=17)
    wipe(path, root_page(path, "lookups_account"))
    done, _ = rebuilt(path)
    assert (done.carried, ids_of(path)) == (0, [])


def test_each_sink_goes_on_where_it_was(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=10, archive=14)
    expected = ids_of(path)[14:]
    wipe(path, root_page(path, "lookups_account"))
    rebuilt(path)
    ledger = opened(tmp_path)
    waiting = {sink: [orjson.loads(one.body)["id"] for one in ledger.unshipped(sink, 100)] for sink in ledger.sinks()}
    ledger.close()
    assert (waiting["archive"], len(waiting["billing"])) == (expected, 7)


def test_dead_letters_go_over(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=10)
    ledger = opened(tmp_path)
    ledger.shipped("billing", 13, [(12, "rejected", "400")])
    id_ = ledger.chosen_letters("billing", None)[0][1]
    ledger.register_sink("archive")
    ledger.close()
    wipe(path, root_page(path, "lookups_account"))
    rebuilt(path)
    with LedgerReader(path) as reader:
        assert [(one.sink, one.id, one.reason) for one in reader.dead_letters()] == [("billing", id_, "rejected")]


def test_the_rebuilt_ledger_is_sound(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=9)
    wipe(path, root_page(path, "lookups_account"))
    rebuilt(path)
    with LedgerReader(path) as reader:
        assert audit(reader).faults == ()


def test_what_is_open_is_gone_on_with(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=17)
    wipe(path, root_page(path, "lookups_account"))
    done, _ = rebuilt(path)
    ledger = opened(tmp_path)
    journals, facts = ledger.journals(), ledger.facts(instance_id(99))
    ledger.close()
    assert done.open == 1
    assert (journals, facts) == ((JournalState(instance_id(99), 0, 700, b'{"state":1}'),), (b"f",))


def test_an_instance_whose_first_records_stayed_behind_goes_on_soundly(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=17)
    wipe(path, root_page(path, "lookups_account"))
    rebuilt(path)
    ledger = opened(tmp_path)
    units = {"image": "2"}
    ledger.commit(
        Batch(
            (
                prediction_record(
                    instance_id(99),
                    1,
                    7_000_000_000,
                    8_000_000_000,
                    units=units,
                    units_to_date={"image": "4"},
                    to_date=dict.fromkeys(("wall_ns", "active_ns", "share_ns"), 2_000_000_000) | {"load_ns": 0},
                ),
            ),
            (),
        )
    )
    ledger.close()
    with LedgerReader(path) as reader:
        assert audit(reader).faults == ()


def test_what_was_closed_is_never_booked_again(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=9)
    wipe(path, root_page(path, "lookups_account"))
    rebuilt(path)
    ledger = opened(tmp_path)
    closed = ledger.closed_at([instance_id(1), instance_id(5), instance_id(8), instance_id(50)])
    ledger.close()
    assert closed == {instance_id(1): 0, instance_id(5): 1, instance_id(8): 7}


@pytest.mark.parametrize(("shipped", "expected"), [(17, (0, 1, 0)), (10, (0, 0, 1))])
def test_an_open_instance_of_which_nobody_can_read_how_far_it_was_is_booked_anew_or_given_up(
    tmp_path: Path, shipped: int, expected: tuple[int, int, int]
) -> None:
    path = a_ledger(tmp_path, billing=shipped)
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE journals SET state = ?", (b'{"state":1}#00000000',))
    connection.close()
    done, _ = rebuilt(path)
    assert (done.open, done.given_up, done.from_journals) == expected


def test_a_lost_record_that_nobody_has_is_booked_anew_from_its_journal(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=10)
    hurt_record(path, 13)
    done, _ = rebuilt(path)
    ledger = opened(tmp_path)
    closed = ledger.closed_at([instance_id(7)])
    ledger.close()
    assert (done.lost, done.from_journals, closed) == ((), 1, {})
    assert not [id_ for id_ in ids_of(path) if id_.startswith(instance_id(7))]


def test_a_lost_record_of_which_another_was_shipped_is_said(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=11)
    hurt_record(path, 12)
    done, _ = rebuilt(path)
    assert (done.lost, done.from_journals) == ((12,), 0)


def test_the_new_ledger_is_told_of_before_it_is_there_with_the_head_of_the_old(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=17)
    with LedgerReader(path) as reader:
        head = reader.head
    wipe(path, root_page(path, "lookups_account"))
    _, told = rebuilt(path)
    with LedgerReader(path) as reader:
        assert told == [(reader.ledger_id, {"ledger": head.ledger_id, "size": 17, "head": head.hash})]


def test_a_ledger_of_which_nothing_can_be_read_makes_room_for_an_empty_one(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=3)
    path.write_bytes(b"\x00" * path.stat().st_size)
    done, told = rebuilt(path)
    assert (done.carried, told[0][1]["ledger"], ids_of(path)) == (0, None, [])


def test_a_record_that_fits_its_hash_and_says_nothing_does_not_go_over(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=10)
    connection = apsw.Connection(str(path))
    digest = bytes.fromhex("44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")  # of {}
    connection.execute("UPDATE records SET body = ?, hash = ? WHERE seq = 12", (b"{}", digest))
    connection.close()
    rebuilt(path)
    assert len(ids_of(path)) == 5


@pytest.mark.parametrize("offset", [0, 3, 16, 17, 18, 19, 20, 21, 28, 31, 44, 47, 56, 59])
def test_a_wound_in_the_header_costs_nothing_that_lies_behind_it(tmp_path: Path, offset: int) -> None:
    path = a_ledger(tmp_path, billing=10)
    expected = ids_of(path)[10:]
    flip(path, offset)
    if damage_of(path) is None:
        return  # SQLite does without that byte
    done, _ = rebuilt(path)
    assert (ids_of(path), done.open, done.lost) == (expected, 1, ())
    assert not list(tmp_path.glob("*.mended*"))


def test_a_first_page_that_is_lost_costs_nothing_that_lies_behind_it(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=10)
    expected = ids_of(path)[10:]
    layout.keep(path)
    wipe(path, 0)
    done, _ = rebuilt(path)
    assert (ids_of(path), done.open, done.lost, done.from_journals) == (expected, 1, (), 0)
    assert not list(tmp_path.glob("*.mended*"))


def test_a_first_page_that_is_lost_is_found_in_the_log_where_that_has_more(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=10)
    layout.keep(path)
    ledger = opened(tmp_path)
    ledger.commit(run_batch(20))
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for file in tmp_path.glob("ledger.db*"):
        shutil.copy(file, crashed)
    ledger.close()
    expected = ids_of(path)[10:]
    wipe(crashed / "ledger.db", 0)
    rebuilt(crashed / "ledger.db")
    assert ids_of(crashed / "ledger.db") == expected


def test_a_layout_of_before_a_migration_hides_no_table(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=10)
    layout.keep(path)
    kept = layout.kept(path)
    assert kept is not None
    older = kept._replace(rows=tuple(row for row in kept.rows if row[2] != "dead_letters"))
    (tmp_path / "ledger.db.layout").write_text(json.dumps(older))
    ledger = opened(tmp_path)
    ledger.shipped("billing", 13, [(12, "rejected", "400")])
    ledger.register_sink("archive")
    ledger.close()
    wipe(path, root_page(path, "lookups_account"))
    rebuilt(path)
    with LedgerReader(path) as reader:
        assert len([*reader.dead_letters()]) == 1


@pytest.mark.parametrize(
    "said", ["", "{}", "[1, 2]", "[0, 1, 1, []]", "[4096, 1, 1, [[1]]]", '["4096", 1, 1, []]', "[4096, 1, 1, [[[]]]]"]
)
def test_a_layout_without_sense_is_none(tmp_path: Path, said: str) -> None:
    path = a_ledger(tmp_path, billing=10)
    expected = ids_of(path)[10:]
    (tmp_path / "ledger.db.layout").write_text(said)
    flip(path, 3)
    rebuilt(path)
    assert ids_of(path) == expected


def test_a_layout_is_written_where_it_is_another_only(tmp_path: Path) -> None:
    path = a_ledger(tmp_path)
    layout.keep(path)
    written = (tmp_path / "ledger.db.layout").stat()
    layout.keep(path)
    assert (tmp_path / "ledger.db.layout").stat().st_ino == written.st_ino


def test_credit_that_is_left_goes_over(tmp_path: Path) -> None:
    path = a_ledger(tmp_path, billing=17)
    ledger = opened(tmp_path)
    ledger.grant(Grant("g1", "cus_7", "USD", decimal_of("25"), 5, None))
    ledger.close()
    wipe(path, root_page(path, "lookups_account"))
    rebuilt(path)
    with LedgerReader(path) as reader:
        grant = reader.grant("g1")
        assert grant is not None
        assert (grant.account, grant.amount) == ("cus_7", decimal_of("25"))


def test_a_ledger_that_is_newer_is_refused_and_not_set_aside(tmp_path: Path) -> None:
    path = a_ledger(tmp_path)
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 9)
    connection.close()
    assert rebuild_if_damaged(path, NODE, lambda *_: None) is None
    with pytest.raises(LedgerError, match="use the Taximeter that wrote it"):
        Ledger.open(path, NODE)


@cache
def sound() -> tuple[bytes, list[str]]:
    """A ledger's bytes, and the ids in it."""
    with TemporaryDirectory() as where:
        path = a_ledger(Path(where), 20, billing=20, archive=26)
        return path.read_bytes(), ids_of(path)


_WOUNDS = st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from((1, 100, PAGE)))


@given(wounds=st.lists(_WOUNDS, min_size=1, max_size=3))
@example(wounds=[(0.875, 16384), (0.09375, 16384)])  # read from elsewhere, more of it is found
def test_law_whatever_was_damaged_a_node_starts_and_ships_nothing_twice(wounds: list[tuple[float, int]]) -> None:
    with TemporaryDirectory() as where:
        path, (data, ids) = Path(where, "ledger.db"), sound()
        hurt = bytearray(data)
        for place, length in wounds:
            start = int(place * len(data))
            for at in range(start, min(start + length, len(data))):
                hurt[at] ^= 0x55
        path.write_bytes(hurt)
        done = rebuild_if_damaged(path, NODE, lambda *_: None)
        with contextlib.closing(opened(Path(where))) as ledger:
            if done is not None and ledger.sinks().keys() == {"billing", "archive"}:
                for sink, had in (("billing", ids[:20]), ("archive", ids[:26])):
                    waiting = [orjson.loads(one.body)["id"] for one in ledger.unshipped(sink, 100)]
                    assert not set(had) & set(waiting)
        with LedgerReader(path) as reader:
            assert done is None or done.lost or audit(reader).faults == ()
