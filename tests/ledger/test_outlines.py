"""However a ledger is cut into stretches that somebody else looks at, the audit says what it says without them."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from taximeter.errors import TaximeterError
from taximeter.ledger import chain, crew
from taximeter.ledger.audit import Report, audit
from taximeter.ledger.outline import Outline
from taximeter.ledger.outliner import outline_of
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch
from taximeter.ledger.values import Filed, Row
from taximeter.records import InstanceTime, PredictionTime, RecordType, UsageRecord
from tests.ledger.samples import (
    RATE,
    SECOND_NS,
    billed,
    changed,
    instance_id,
    instance_record,
    interval,
    opened,
    prediction_record,
    record,
    run,
    run_batch,
)
from tests.ledger.spending import grant, paying, put_in_force, rules
from tests.ledger.test_pruning import prune, seal

pytestmark = pytest.mark.forged

LONG = instance_id(99)


def own(count: int, second: int, **changes: Any) -> UsageRecord:
    """A second of an instance that goes on, and is active all the time."""
    end_ns = (second + 1) * SECOND_NS
    data = {
        "interval": interval(end_ns - SECOND_NS, end_ns),
        "time": InstanceTime(
            wall_ns=SECOND_NS, boot_ns=0, idle_ns=0, active_ns=SECOND_NS, teardown_ns=0, suspended_ns=0, unknown_ns=0
        ),
        "to_date": {"wall_ns": end_ns, "active_ns": end_ns},
        "final": False,
    }
    return changed(instance_record(LONG, count), **{**data, **changes})


def part(count: int, second: int, **changes: Any) -> UsageRecord:
    """A second of its one prediction, which goes on too."""
    begin_ns, to_ns = second * SECOND_NS, (second + 1) * SECOND_NS
    time = PredictionTime(
        wall_ns=SECOND_NS, load_ns=0, active_ns=SECOND_NS, share_ns=SECOND_NS, suspended_ns=0, unknown_ns=0
    )
    to_date = dict.fromkeys(("wall_ns", "active_ns", "share_ns"), to_ns)
    data = {"time": time, "to_date": to_date, "final": False, "billing": billed("1", RATE)}
    return prediction_record(LONG, count, begin_ns, to_ns, **{**data, **changes})


def written(where: Path) -> None:
    """A ledger with something of all that an audit looks at, and of what goes on from one stretch to the next."""
    with contextlib.closing(opened(where)) as ledger:
        ledger.commit(run_batch(1))
        put_in_force(ledger, rules("0.5", "2", "3.001525", prepaid=["cus_9"]))
        ledger.commit(Batch((part(0, 0), own(1, 0)), ()))
        ledger.grant(grant("g1", "1.5", account="cus_9"))
        ledger.commit(paying(2, "1"))
        seal(ledger)
        ledger.commit(Batch((part(2, 1), own(3, 1)), ()))
        ledger.commit(paying(3, "2", account="cus_9"))
        correction = {
            "instance": LONG,
            "prediction": f"p-{LONG}",
            "billing": billed("-1", f"-{RATE}"),
            "account": "cus_7",
        }
        ledger.commit(Batch((record(LONG, 4, RecordType.CORRECTION, correction, prediction=f"p-{LONG}"),), ()))
        ledger.commit(paying(4, "1"))
        ledger.commit(Batch((part(5, 2, final=True), own(6, 2, final=True)), ()))
        correction = {**correction, "account": "cus_9"}
        ledger.commit(Batch((record(LONG, 7, RecordType.CORRECTION, correction, prediction=f"p-{LONG}"),), ()))
        ledger.commit(paying(5, "1"))


def pruned(where: Path) -> None:
    """The same, whose older records are gone: from one on behind which an instance is open, and credit is left."""
    written(where)
    with contextlib.closing(opened(where)) as ledger:
        prune(where, ledger, 9)
        ledger.commit(run_batch(6))


class Forged:
    """A ledger that says of its rows whatever it is told to."""

    def __init__(self, sound: LedgerReader, rows: Sequence[Row]) -> None:
        self._sound, self.rows = sound, sorted(rows, key=lambda row: row.seq)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sound, name)

    def walk(self, after_seq: int) -> Iterator[Row]:
        return (row for row in self.rows if row.seq > after_seq)

    def hash_at(self, seq: int) -> bytes | None:
        found = [row.hash for row in self.rows if row.seq == seq]
        return found[0] if found else self._sound.base.hash if seq and seq == self._sound.base.seq else None


def cut(reader: Any, cuts: Sequence[int]) -> Iterator[Outline]:
    """Outlines as they come from other processes, of stretches that end at these numbers."""
    begin = reader.base.seq
    for end in sorted({*cuts, max((row.seq for row in reader.walk(0)), default=0)}):
        if end > begin:
            yield crew.decoded(crew.encoded(outline_of(reader, begin, end)), begin, end)
            begin = end


# --- Damage ---------------------------------------------------------------------------------------------------------


def resealed(rows: Sequence[Row], base: Any) -> list[Row]:
    """Rows whose chain was made anew, and whose look-ups say what they say: what is left are the laws."""
    made, (seq, previous) = [], base
    for row in rows:
        if row.seq <= base.seq:
            made.append(row)
            continue
        seq += 1
        event = orjson.loads(row.body)
        place = event.get("data", {}).get("ledger")
        if isinstance(place, dict):
            place |= {"seq": seq, "previous": chain.digest_text(previous)}
        body = orjson.dumps(event)
        previous = chain.digest_of(body)
        made.append(Row(seq, previous, body, filed_by(event, row.filed)))
    return made


def filed_by(event: Any, filed: Filed | None) -> Filed | None:
    data = event.get("data")
    if filed is None or not isinstance(data, dict):
        return filed
    root, prediction = data.get("root"), data.get("prediction")
    names = (event.get("id"), event.get("type"), filed.time_utc_ns, prediction, root if root != prediction else None)
    return Filed(*names, data.get("account"), data.get("model"))


#: What is said instead; of numbers also one that no other process can be told.
INSTEAD = st.one_of(
    st.sampled_from([None, True, 0, 1, -1, SECOND_NS, 2**70, "", "0", "1", "x", "2", "cus_9", "1e99", [], {}]),
    st.sampled_from([f"{LONG}-00000000", LONG, instance_id(2), "taximeter.usage.instance.v1", "rated", "USD"]),
)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [deeper for key, inner in pairs for deeper in [(*path, key), *leaves(inner, (*path, key))]]


def put(event: Any, path: Sequence[Any], value: Any) -> None:
    for key in path[:-1]:
        event = event[key]
    event[path[-1]] = value


def dumped(event: Any) -> bytes:
    try:
        return orjson.dumps(event)
    except TypeError:  # an integer beyond 64 bits
        return repr(event).replace("'", '"').replace("None", "null").replace("True", "true").encode()


def said_otherwise(data: st.DataObject, rows: list[Row], at: int) -> None:
    event = orjson.loads(rows[at].body)
    put(event, data.draw(st.sampled_from(leaves(event))), data.draw(INSTEAD))
    body = dumped(event)
    digest = chain.digest_of(body) if data.draw(st.booleans()) else rows[at].hash
    rows[at] = Row(rows[at].seq, digest, body, rows[at].filed)


def more_or_less(data: st.DataObject, rows: list[Row], at: int) -> None:
    """A number that is near what it was."""
    event = orjson.loads(rows[at].body)
    numbers = [path for path in leaves(event) if type(_at(event, path)) is int]
    path = data.draw(st.sampled_from(numbers))
    put(event, path, _at(event, path) + data.draw(st.sampled_from([-1, 1, SECOND_NS])))
    rows[at] = Row(rows[at].seq, rows[at].hash, orjson.dumps(event), rows[at].filed)


def _at(event: Any, path: Sequence[Any]) -> Any:
    for key in path:
        event = event[key]
    return event


def removed(data: st.DataObject, rows: list[Row], at: int) -> None:
    del rows[at]


def repeated(data: st.DataObject, rows: list[Row], at: int) -> None:
    where = data.draw(st.integers(0, len(rows)))
    rows.insert(where, rows[at])


def swapped(data: st.DataObject, rows: list[Row], at: int) -> None:
    other = data.draw(st.integers(0, len(rows) - 1))
    rows[at], rows[other] = rows[other], rows[at]


def cut_off(data: st.DataObject, rows: list[Row], at: int) -> None:
    del rows[max(at, 1) :]


def filed_nowhere(data: st.DataObject, rows: list[Row], at: int) -> None:
    rows[at] = Row(rows[at].seq, rows[at].hash, rows[at].body, None)


def garbled(data: st.DataObject, rows: list[Row], at: int) -> None:
    rows[at] = Row(rows[at].seq, rows[at].hash, rows[at].body[:-9], rows[at].filed)


DAMAGES: list[Callable[[st.DataObject, list[Row], int], None]] = [
    said_otherwise,
    more_or_less,
    removed,
    repeated,
    swapped,
    cut_off,
    filed_nowhere,
    garbled,
]


def damaged(data: st.DataObject, sound: LedgerReader) -> Forged:
    """Records that were changed in one way or two; the chain, perhaps, was made anew, so that laws alone tell."""
    rows = list(sound.walk(0))
    for _ in range(data.draw(st.integers(0, 2))):
        with contextlib.suppress(ValueError):  # it was garbled, and has nothing to be changed
            data.draw(st.sampled_from(DAMAGES))(data, rows, data.draw(st.integers(0, len(rows) - 1)))
    with contextlib.suppress(ValueError, AttributeError):
        if data.draw(st.booleans()):
            return Forged(sound, resealed(rows, sound.base))
    how = data.draw(st.sampled_from(["as they stand", "as they were"]))
    if how == "as they stand":  # each under the number of its place
        first = sound.base.seq + 1
        kept = [row for row in rows if row.seq < first]
        moved = [row for row in rows if row.seq >= first]
        rows = [*kept, *(Row(first + i, row.hash, row.body, row.filed) for i, row in enumerate(moved))]
    return Forged(sound, list({row.seq: row for row in rows}.values()))


@pytest.fixture(scope="module", params=[written, pruned], ids=["whole", "pruned"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerReader]:
    where = tmp_path_factory.mktemp("ledger")
    request.param(where)
    with LedgerReader(where / "ledger.db") as reader:
        yield reader


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_whatever_is_damaged_and_wherever_it_is_cut_the_report_is_the_same(
    sound: LedgerReader, data: st.DataObject
) -> None:
    forged = damaged(data, sound)
    cuts = data.draw(st.lists(st.integers(1, 40), max_size=8))
    alone: Report = audit(forged)
    assert audit(forged, outlines=cut(forged, cuts)) == alone


def test_a_sound_ledger_is_sound_wherever_it_is_cut_and_no_record_is_read_twice(sound: LedgerReader) -> None:
    rows = list(sound.walk(sound.base.seq))
    for end in range(rows[0].seq, rows[-1].seq):
        outlines = [outline_of(sound, sound.base.seq, end), outline_of(sound, end, rows[-1].seq)]
        assert [one.is_sound for one in outlines] == [True, True]
        deaf = Forged(sound, [row for row in sound.walk(0) if row.seq <= sound.base.seq])
        assert audit(deaf, outlines=outlines) == Report(len(rows), ())


def test_an_instance_that_begins_again_while_it_runs_is_named_though_each_stretch_is_sound(tmp_path: Path) -> None:
    with contextlib.closing(opened(tmp_path)) as ledger:
        ledger.commit(Batch((part(0, 0), *run(1)), ()))
    with LedgerReader(tmp_path / "ledger.db") as reader:
        rows = list(reader.walk(0))
        again = Row(4, rows[0].hash, rows[0].body, rows[0].filed)
        forged = Forged(reader, resealed([*rows, again], reader.base))
        outlines = list(cut(forged, [3]))
        assert [one.is_sound for one in outlines[:1]] == [True]
        assert audit(forged, outlines=outlines) == audit(forged)
        assert "is out of its instance's order" in audit(forged).faults[0].what


def test_an_outline_that_stands_behind_another_record_is_not_taken(sound: LedgerReader) -> None:
    outline = outline_of(sound, sound.base.seq, sound.head.seq)
    deaf = Forged(sound, [row for row in sound.walk(0) if row.seq <= sound.base.seq])
    of_another = structs.replace(outline, begins=b"?" * 32)
    assert audit(deaf, outlines=[outline]).records == sound.head.seq - sound.base.seq
    assert audit(deaf, outlines=[of_another]).records == 0


# --- Real processes -------------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LedgerReader]:
    """A ledger that is worth some processes."""
    with contextlib.closing(opened(tmp_path)) as ledger:
        for begin in range(0, 12_100, 1_100):
            ledger.commit(run_batch(*range(begin, begin + 1_100)))
    with LedgerReader(tmp_path / "ledger.db") as reader:
        yield reader


def children() -> set[str]:
    return set(Path("/proc/thread-self/children").read_text().split())


def test_several_processes_find_what_one_finds(many: LedgerReader) -> None:
    passed: list[int] = []
    with crew.outlines_of(many, 2) as outlines:
        kept = list(outlines)
    assert [(one.after_seq, one.until_seq) for one in kept[::6]] == [(0, 4_000), (24_000, 24_200)]
    assert audit(many, passed.append, kept) == Report(24_200, ())
    assert passed == [*range(4_000, 24_001, 4_000), 24_200]


def test_a_fault_is_named_by_several_processes_as_by_one(many: LedgerReader, tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    connection.execute("DELETE FROM records WHERE seq = 4000; UPDATE lookups SET account = 'x' WHERE seq = 20001")
    connection.close()
    with crew.outlines_of(many, 2) as outlines:
        report = audit(many, outlines=outlines)
    assert report == audit(many)
    assert {fault.seq for fault in report.faults} >= {4_001, 20_001}


def test_numbers_that_are_none_keep_no_process_busy_for_ever(many: LedgerReader, tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    connection.execute("UPDATE records SET seq = 1 << 60 WHERE seq = 24200")
    connection.close()
    with crew.outlines_of(many, 2) as outlines:
        report = audit(many, outlines=outlines)
    assert report == audit(many)
    assert report.records == 24_200


def test_whoever_stops_early_leaves_no_process_behind(many: LedgerReader) -> None:
    before = children()
    with crew.outlines_of(many, 2) as outlines:
        assert next(iter(outlines)).is_sound
        assert len(children() - before) == 2
    assert children() == before


@pytest.mark.parametrize(("words", "status"), [("exit 3", "3"), ("kill -9 $$", "-9"), ("echo no; exit 0", "0")])
def test_a_process_that_ends_early_is_an_error_and_no_verdict(
    many: LedgerReader, monkeypatch: pytest.MonkeyPatch, words: str, status: str
) -> None:
    monkeypatch.setattr(crew, "COMMAND", ("/bin/sh", "-c", words))
    with crew.outlines_of(many, 2) as outlines, pytest.raises(TaximeterError, match=f"ended with status {status};"):
        audit(many, outlines=outlines)


@pytest.mark.parametrize("depth", [500, 900, 940, 960, 980, 990])
def test_what_is_too_deep_to_be_handed_on_is_looked_at_by_the_audit_itself(tmp_path: Path, depth: int) -> None:
    with contextlib.closing(opened(tmp_path)) as ledger:
        put_in_force(ledger, rules("1"))
    with LedgerReader(tmp_path / "ledger.db") as reader:
        rows = list(reader.walk(0))
        body = rows[0].body.replace(b'"content":{', b'"content":{"x":' + b"[" * depth + b"]" * depth + b",", 1)
        forged = Forged(reader, [Row(1, chain.digest_of(body), body, rows[0].filed)])
        assert audit(forged, outlines=[crew.decoded(crew.encoded(outline_of(forged, 0, 1)), 0, 1)]) == audit(forged)


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_ledger_that_is_not_worth_it_is_looked_at_by_one_process(tmp_path: Path, jobs: int) -> None:
    with contextlib.closing(opened(tmp_path)) as ledger:
        ledger.commit(run_batch(1))
    with LedgerReader(tmp_path / "ledger.db") as reader, crew.outlines_of(reader, jobs) as outlines:
        assert list(outlines) == []
