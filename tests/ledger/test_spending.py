"""Spend and credit in the ledger: kept with the records that they follow from, whatever crashes or comes again."""

import contextlib
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import apsw
import pytest

from taximeter.billing.thresholds import ALL_MODELS
from taximeter.errors import LedgerError
from taximeter.ledger import backfill
from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch, Ledger
from taximeter.records import RecordType
from taximeter.values import replace
from tests.ledger.samples import BEGAN_UTC_NS, opened, run
from tests.ledger.spending import MONTH, fact, grant, kept, paying, put_in_force, rules, spent, told

pytestmark = pytest.mark.forged  # records by hand, whose prices are round

DAY_NS = 86_400 * 10**9


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened_ledger = opened(tmp_path)
    put_in_force(opened_ledger, rules("1", "2.5"))
    yield opened_ledger
    opened_ledger.close()


def is_sound(directory: Path) -> bool:
    with LedgerReader(directory / "ledger.db") as reader:
        return audit(reader).faults == ()


# --- Spend and thresholds ---


def test_what_an_account_spends_is_kept_by_month_currency_and_model(tmp_path: Path, ledger: Ledger) -> None:
    ledger.commit(paying(1, "0.25"))
    ledger.commit(paying(2, "0.5"))
    ledger.commit(paying(3, "7", account="cus_8"))
    assert kept(tmp_path).spends == {
        ("USD", MONTH, ALL_MODELS): Decimal("0.75"),
        ("USD", MONTH, "acme/sdxl-lora"): Decimal("0.75"),
    }


def test_the_record_of_a_threshold_stands_behind_the_one_that_crossed_it(tmp_path: Path, ledger: Ledger) -> None:
    ledger.commit(Batch((*paying(1, "0.5").records, *paying(2, "0.5").records, *paying(3, "2").records), ()))
    assert told(tmp_path) == [("1", "1", 5), ("2.5", "3", 8)]
    assert is_sound(tmp_path)


def test_one_record_may_cross_several_thresholds(tmp_path: Path, ledger: Ledger) -> None:
    ledger.commit(paying(1, "3"))
    assert told(tmp_path) == [("1", "3", 3), ("2.5", "3", 4)]
    assert ledger.head.seq == 5
    assert is_sound(tmp_path)


def test_facts_and_thresholds_are_numbered_together(tmp_path: Path, ledger: Ledger) -> None:
    ledger.commit(paying(1, "3"))
    assert ledger.next_own() == 3
    put_in_force(ledger, rules())
    assert ledger.next_own() == 4


def test_a_threshold_is_told_once_over_restarts(tmp_path: Path, ledger: Ledger) -> None:
    for number in range(4):
        ledger.close()
        ledger = opened(tmp_path)
        ledger.charge_by(rules("1", "2.5"))
        ledger.commit(paying(number, "0.75"))
    ledger.close()
    assert [name for name, *_ in told(tmp_path)] == ["1", "2.5"]
    assert spent(tmp_path).spends["USD", MONTH, ALL_MODELS] == 3
    assert is_sound(tmp_path)


def test_each_crossing_is_told_with_its_record(tmp_path: Path, ledger: Ledger) -> None:
    ledger.commit(paying(1, "1"))
    (crossing,) = kept(tmp_path).crossings
    assert (crossing.threshold, crossing.period, crossing.seq) == ("1", MONTH, 3)
    assert crossing.time_utc_ns == BEGAN_UTC_NS


def test_what_is_not_committed_is_not_spent(tmp_path: Path, ledger: Ledger) -> None:
    ledger.commit(paying(1, "0.75"))
    with pytest.raises(LedgerError):
        ledger.commit(Batch((*paying(2, "0.75").records, *paying(1, "0.75").records), ()))
    assert kept(tmp_path).spends["USD", MONTH, ALL_MODELS] == Decimal("0.75")
    assert told(tmp_path) == []
    ledger.commit(paying(2, "0.75"))
    assert told(tmp_path) == [("1", "1.5", 5)]


def failing_write(monkeypatch: pytest.MonkeyPatch, *, late: bool) -> None:
    """The next write fails: before anything is on the disk, or once all of it is."""
    write = Ledger._write

    def fail(self: Ledger, *given: object) -> None:
        monkeypatch.setattr(Ledger, "_write", write)
        if late:
            write(self, *given)  # type: ignore[arg-type]
        raise apsw.IOError("the disk lied")

    monkeypatch.setattr(Ledger, "_write", fail)


@pytest.mark.parametrize("seed", range(10))
def test_a_commit_that_failed_and_is_tried_again_charges_once(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    for number in range(12):
        batch = paying(number, "0.3")
        while True:
            if chance.random() < 0.5:
                failing_write(monkeypatch, late=chance.random() < 0.5)
            try:
                ledger.commit(batch)
                break
            except LedgerError:
                if chance.random() < 0.3:  # another one comes in between, as a grant of billing's may
                    with contextlib.suppress(LedgerError):
                        ledger.grant(grant(f"g{number}", "0.1"))
    assert spent_of(tmp_path) == Decimal("3.6")
    assert [name for name, *_ in told(tmp_path)] == ["1", "2.5"]
    assert is_sound(tmp_path)


def spent_of(tmp_path: Path) -> Decimal:
    return kept(tmp_path).spends["USD", MONTH, ALL_MODELS]


def test_what_was_touched_and_what_was_led_to_is_said_once(ledger: Ledger) -> None:
    ledger.commit(paying(1, "1"))
    assert [record.type for record in ledger.told] == [RecordType.THRESHOLD]
    assert (ledger.take_touched(), ledger.take_touched()) == ({"cus_7"}, set())
    ledger.commit(Batch(run(9)[1:], ()))
    assert (list(ledger.told), ledger.take_touched()) == ([], set())


def test_what_landed_although_it_was_reported_as_failed_is_said_to_be_touched(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_write(monkeypatch, late=True)
    with pytest.raises(LedgerError):
        ledger.commit(paying(1, "1"))
    assert ledger.take_touched() == set()
    ledger.commit(paying(1, "1"))
    assert ledger.take_touched() == {"cus_7"}


# --- Credit ---


def test_a_grant_is_a_record_and_is_made_once(tmp_path: Path, ledger: Ledger) -> None:
    first = ledger.grant(grant("g1", "10"))
    again = ledger.grant(grant("g1", "10")._replace(granted_utc_ns=BEGAN_UTC_NS + 5))
    assert (first, again) == ((grant("g1", "10"), True), (grant("g1", "10"), False))
    assert told(tmp_path, RecordType.GRANT) == [("g1", "10", 2)]
    assert is_sound(tmp_path)


def test_another_grant_of_the_same_id_is_given_as_it_is_kept(ledger: Ledger) -> None:
    ledger.grant(grant("g1", "10"))
    assert ledger.grant(grant("g1", "11")) == (grant("g1", "10"), False)


@pytest.mark.parametrize("late", [False, True])
def test_a_grant_whose_commit_failed_is_made_once_when_it_is_tried_again(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    failing_write(monkeypatch, late=late)
    with pytest.raises(LedgerError):
        ledger.grant(grant("g1", "10"))
    assert ledger.grant(grant("g1", "10")) == (grant("g1", "10"), not late)
    assert len(told(tmp_path, RecordType.GRANT)) == 1
    assert is_sound(tmp_path)


def test_usage_takes_from_credit_and_a_prepaid_account_owes_the_rest(tmp_path: Path, ledger: Ledger) -> None:
    put_in_force(ledger, rules(prepaid=["cus_7"]))
    ledger.grant(grant("g1", "1"))
    ledger.commit(paying(1, "3"))
    purse = kept(tmp_path).purses["USD"]
    assert ([part.left for part in purse.parts], purse.owed) == ([0], 2)
    ledger.grant(grant("g2", "5"))
    purse = kept(tmp_path).purses["USD"]
    assert ([part.left for part in purse.parts], purse.owed) == ([0, 3], 0)


def test_an_account_without_credit_that_pays_afterwards_has_no_purse(tmp_path: Path, ledger: Ledger) -> None:
    ledger.grant(grant("g1", "1", account="cus_8"))
    ledger.commit(paying(1, "3"))
    assert kept(tmp_path).purses == {}
    assert ledger.accounts() == ["cus_7", "cus_8"]


def test_accounts_whose_grants_expired_meanwhile_are_told(ledger: Ledger) -> None:
    ledger.grant(grant("g1", "1", BEGAN_UTC_NS + DAY_NS))
    ledger.grant(grant("g2", "1", account="cus_8"))
    assert ledger.expired(BEGAN_UTC_NS, BEGAN_UTC_NS + DAY_NS) == ["cus_7"]
    assert ledger.expired(BEGAN_UTC_NS + DAY_NS, BEGAN_UTC_NS + 2 * DAY_NS) == []


# --- Older ledgers ---


def storied(directory: Path) -> None:
    """A ledger of everything: rules that change, accounts, grants, thresholds."""
    ledger = opened(directory)
    put_in_force(ledger, rules("1"))
    ledger.commit(paying(1, "1.5"))
    ledger.grant(grant("g1", "2", BEGAN_UTC_NS + DAY_NS))
    ledger.commit(paying(2, "0.5", account="cus_8"))
    put_in_force(ledger, rules("1", "2.5", prepaid="all"))
    ledger.commit(paying(3, "3.25"))
    ledger.grant(grant("g2", "0.5"))
    ledger.commit(paying(4, "0.75", account="cus_8"))
    ledger.close()


def drop(directory: Path) -> None:
    """As an older Taximeter left the file."""
    connection = apsw.Connection(str(directory / "ledger.db"))
    for name in ("spends", "crossings", "grants", "debts"):
        connection.execute(f"DROP TABLE {name}")
    connection.execute("DELETE FROM meta WHERE key = 'spending'")
    connection.close()


def test_an_older_ledger_gains_the_sums_of_its_records_when_it_is_opened(tmp_path: Path) -> None:
    storied(tmp_path)
    before = [spent(tmp_path, account) for account in ("cus_7", "cus_8")]
    assert before[0].spends["USD", MONTH, ALL_MODELS] == Decimal("4.75")
    assert (len(before[0].crossings), before[0].purses["USD"].owed) == (2, Decimal("0.75"))
    assert before[1].purses["USD"].owed == Decimal("0.75")
    drop(tmp_path)
    assert [spent(tmp_path, account) for account in ("cus_7", "cus_8")] == before


def test_making_the_sums_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storied(tmp_path)
    before = [spent(tmp_path, account) for account in ("cus_7", "cus_8")]
    drop(tmp_path)
    monkeypatch.setattr(backfill, "_STRETCH", 2)
    add, calls = backfill._add, []

    def interrupted(*given: object) -> object:
        calls.append(given)
        if len(calls) % 2 == 0:
            raise apsw.InterruptError("killed")
        return add(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(backfill, "_add", interrupted)
    for _ in range(5):
        with pytest.raises(LedgerError, match="killed"):
            opened(tmp_path)
    monkeypatch.setattr(backfill, "_add", add)
    assert [spent(tmp_path, account) for account in ("cus_7", "cus_8")] == before


def test_a_record_that_makes_no_sense_does_not_keep_the_agent_from_opening_the_ledger(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    bad = fact(0, ledger, rules())
    ledger.commit(Batch((replace(bad, data={"fact": "spending", "content": 5}), *paying(1, "1").records), ()))
    ledger.close()
    drop(tmp_path)
    assert spent(tmp_path).spends["USD", MONTH, ALL_MODELS] == 1


def test_thresholds_of_an_older_ledger_fire_once_from_the_first_usage_on(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.commit(paying(1, "5"))
    ledger.close()
    drop(tmp_path)
    ledger = opened(tmp_path)
    put_in_force(ledger, rules("1"))
    for number in (2, 3):
        ledger.commit(paying(number, "0.25"))
    ledger.close()
    assert told(tmp_path) == [("1", "5.25", 5)]
    assert is_sound(tmp_path)
