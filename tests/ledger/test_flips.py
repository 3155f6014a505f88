"""Bits that turn, and sectors that are lost, anywhere in a ledger's file: it is found, rebuilt or refused, in words.

Whatever turned, a start ends in a ledger that goes on or in a LedgerError, and what then can be read is either what
was written or named by the audit. TAXIMETER_SWEEP=all tries many more.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from taximeter.agent.accounts import state_of
from taximeter.errors import LedgerError
from taximeter.ledger.audit import audit
from taximeter.ledger.marked import is_as_written, marked, unmarked
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.ledger.rebuild import Rebuilt, rebuild_if_damaged
from taximeter.ledger.store import Batch, Ledger
from taximeter.ledger.values import JournalState
from tests.ledger.samples import NODE, instance_id, opened, run_batch
from tests.system.faults import SWEEP_ALL

pytestmark = pytest.mark.forged

PAGE_BYTES, SECTOR_BYTES = 16_384, 512
TRIES = 1_500 if SWEEP_ALL else 60
OPEN = tuple(marked(instance_id(100 + number), 0, 1_000 + number, b'{"at":%d}' % number) for number in range(40))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A ledger's file, with records, some of them shipped, and instances that are open."""
    path = tmp_path_factory.mktemp("whole")
    ledger = opened(path)
    ledger.register_sink("usage")
    for number in range(30):
        ledger.commit(run_batch(number))
    ledger.commit(Batch((), OPEN))
    ledger.shipped("usage", 20)
    ledger.close()
    return (path / "ledger.db").read_bytes()


def turned(content: bytes, dice: random.Random) -> bytes:
    """A bit is another: anywhere, in some page's header, or in the file's."""
    at = dice.choice(
        [
            dice.randrange(len(content)),
            dice.randrange(len(content) // PAGE_BYTES) * PAGE_BYTES + dice.randrange(100),
            dice.randrange(400),
        ]
    )
    return content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :]


def lost(content: bytes, dice: random.Random) -> bytes:
    """A sector holds something else."""
    at = dice.randrange(len(content) // SECTOR_BYTES) * SECTOR_BYTES
    return (
        content[:at] + dice.choice([bytes(SECTOR_BYTES), dice.randbytes(SECTOR_BYTES)]) + content[at + SECTOR_BYTES :]
    )


def read(path: Path) -> tuple[bool, list[bytes]]:
    """Whether the audit finds nothing, and the records."""
    with LedgerReader(path) as reader:
        return not audit(reader).faults, [*reader.records(RecordFilter())]


def begin(path: Path) -> tuple[Rebuilt | None, Ledger] | LedgerError:
    """Start as an agent does."""
    try:
        return rebuild_if_damaged(path, NODE, lambda *_: None), opened(path.parent)
    except LedgerError as error:
        return error


@pytest.mark.parametrize("damage", [turned, lost])
def test_law_whatever_is_damaged_a_start_goes_on_or_says_why_not(
    tmp_path: Path, whole: bytes, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    dice, path = random.Random(7), tmp_path / "node" / "ledger.db"
    (tmp_path / "whole.db").write_bytes(whole)
    _, written = read(tmp_path / "whole.db")
    for number in range(TRIES):
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        path.write_bytes(damage(whole, dice))
        begun = begin(path)
        if isinstance(begun, LedgerError):
            assert "expected" in str(begun), number
            continue
        rebuilt, ledger = begun
        ledger.register_sink("usage")
        kept, cursor = ledger.journals(), ledger.sinks()["usage"]
        assert ledger.unshipped("usage", 100) is not None
        ledger.commit(run_batch(999))
        ledger.close()
        is_sound, records = read(path)
        if rebuilt is not None:
            assert is_sound, number
            assert set(kept) <= set(OPEN), number
        else:
            assert not is_sound or records[: len(written)] == written, number
            assert (set(kept), cursor <= len(records)) == (set(OPEN), True), number


# --- What was found so ---


def forged(tmp_path: Path, sql: str) -> Path:
    ledger = opened(tmp_path)
    ledger.register_sink("usage")
    ledger.commit(run_batch(1, 2))
    ledger.commit(Batch((), OPEN[:1]))
    ledger.close()
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    connection.execute(sql)
    connection.close()
    return tmp_path / "ledger.db"


def test_text_that_is_none_is_damage(tmp_path: Path) -> None:
    path = forged(tmp_path, "UPDATE lookups SET account = CAST(x'6375735fae' AS TEXT) WHERE seq = 2")
    with LedgerReader(path) as reader:
        assert any("cannot be read" in fault.what for fault in audit(reader).faults)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE sinks SET seq = 'x'",
        "UPDATE sinks SET name = CAST(x'ae' AS TEXT)",
        "UPDATE facts SET body = 7",
        "UPDATE meta SET value = CAST(x'ae' AS TEXT) WHERE key = 'ledger_id'",
        "UPDATE journals SET state = 'text'",
    ],
)
def test_values_of_another_kind_are_left_behind_where_a_ledger_is_rebuilt(tmp_path: Path, sql: str) -> None:
    path = forged(tmp_path, f"UPDATE records SET hash = zeroblob(32) WHERE seq = 4; {sql}")
    assert rebuild_if_damaged(path, NODE, lambda *_: None) is not None
    opened(tmp_path).close()
    assert read(path)[0]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE journals SET offset = offset + 1",
        "UPDATE journals SET segment = 1",
        "UPDATE journals SET state = CAST(replace(state, '0', '1') AS BLOB)",
        "UPDATE journals SET instance = replace(instance, '7', '6')",
    ],
)
def test_what_is_gone_on_from_is_what_was_written(tmp_path: Path, sql: str) -> None:
    path = forged(tmp_path, sql)
    rebuilt = rebuild_if_damaged(path, NODE, lambda *_: None)
    assert rebuilt is not None
    assert "is not what was written" in rebuilt.why
    ledger = opened(tmp_path)
    assert ledger.journals() == ()
    ledger.close()


def test_a_state_of_an_older_taximeter_has_no_mark() -> None:
    row = JournalState("i", 0, 7, b"null")
    assert is_as_written(row)
    assert unmarked(b"null") == b"null"
    assert state_of(row) is None


@pytest.mark.parametrize("row", [marked("i", 0, 7, b"null")._replace(offset=8), JournalState("i", 0, 7, b"{")])
def test_a_state_that_is_damaged_is_an_error_that_names_the_instance(row: JournalState) -> None:
    with pytest.raises(LedgerError, match=r"cannot go on with instance i: .* damaged: expected"):
        state_of(row)


def test_rows_that_come_in_a_circle_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LedgerReader(forged(tmp_path, "SELECT 1")) as reader:
        row = reader._pages.ask("SELECT seq, body FROM records WHERE seq = 1")[0]
        monkeypatch.setattr(reader._pages, "ask", lambda *_: [row] * 500)
        with pytest.raises(LedgerError, match="expected numbers that ascend, got 1 after 1"):
            list(reader.records())
