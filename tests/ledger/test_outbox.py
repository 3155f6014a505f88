"""The outbox: cursors and dead letters, in one transaction."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from taximeter.events import Options
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch, Ledger
from tests.core.stories import SECOND, exited, ready, spawned, tell
from tests.observe.histories import NODE


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger with records 1 and 2, and a sink."""
    ledger = Ledger.open(tmp_path / "ledger.db", NODE)
    ledger.commit(Batch(tuple(tell(Options(), [spawned(0), ready(0), exited(SECOND)]).records), ()))
    ledger.register_sink("billing")
    yield ledger
    ledger.close()


def letters_of(path: Path) -> list[tuple[str, int, str, str, bool]]:
    with LedgerReader(path) as reader:
        return [(one.sink, one.seq, one.reason, one.said, one.again) for one in reader.dead_letters()]


def test_what_was_refused_is_a_dead_letter_and_no_longer_waits(ledger: Ledger, tmp_path: Path) -> None:
    ledger.shipped("billing", 2, [(1, "rejected", "400")])
    assert letters_of(tmp_path / "ledger.db") == [("billing", 1, "rejected", "400", False)]
    assert ledger.pending("billing") == 0


def test_dead_letters_are_counted_by_sink(ledger: Ledger) -> None:
    ledger.shipped("billing", 2, [(1, "rejected", ""), (2, "rejected", "")])
    assert ledger.dead_letters() == {"billing": 2}


def test_a_dead_letter_is_chosen_by_the_id_of_its_record(ledger: Ledger) -> None:
    ledger.shipped("billing", 2, [(1, "rejected", ""), (2, "rejected", "")])
    (first, id_), _ = ledger.chosen_letters("billing", None)
    assert ledger.chosen_letters("billing", [id_, "nobody"]) == [(first, id_)]


def test_a_dead_letter_that_is_to_be_tried_again_is_given_out_as_it_was_stored(ledger: Ledger) -> None:
    stored = ledger.unshipped("billing", 1)
    ledger.shipped("billing", 2, [(1, "rejected", "")])
    assert ledger.letters_to_retry("billing", 10) == ()
    ledger.retry_letters("billing", [1])
    assert ledger.letters_to_retry("billing", 10) == stored


def test_a_dead_letter_that_is_refused_again_waits_for_somebody_again(ledger: Ledger, tmp_path: Path) -> None:
    ledger.shipped("billing", 2, [(1, "rejected", "")])
    ledger.retry_letters("billing", [1])
    ledger.shipped("billing", 0, [(1, "too_large", "413")])
    assert letters_of(tmp_path / "ledger.db") == [("billing", 1, "too_large", "413", False)]


def test_a_dead_letter_that_was_taken_is_forgotten(ledger: Ledger) -> None:
    ledger.shipped("billing", 2, [(1, "rejected", "")])
    ledger.delete_letters("billing", [1])
    assert ledger.dead_letters() == {}


def test_the_dead_letters_of_a_sink_that_was_dropped_are_gone(ledger: Ledger) -> None:
    ledger.shipped("billing", 2, [(1, "rejected", "")])
    ledger.drop_sink("billing")
    assert ledger.dead_letters() == {}


def test_the_newest_that_a_sink_has_not_is_the_last_of_the_ledger(ledger: Ledger) -> None:
    newest = ledger.newest_unshipped("billing")
    assert newest is not None
    assert newest.seq == 2


def test_a_sink_that_has_everything_lacks_no_newest(ledger: Ledger) -> None:
    ledger.shipped("billing", 2)
    assert ledger.newest_unshipped("billing") is None


def test_dead_letters_are_listed_of_one_sink_and_so_many(ledger: Ledger, tmp_path: Path) -> None:
    ledger.register_sink("archive")
    ledger.shipped("billing", 2, [(1, "rejected", ""), (2, "rejected", "")])
    ledger.shipped("archive", 2, [(2, "rejected", "")])
    with LedgerReader(tmp_path / "ledger.db") as reader:
        listed = [(one.sink, one.seq) for one in reader.dead_letters("billing", 1)]
        everyone = [(one.sink, one.seq) for one in reader.dead_letters()]
    assert (listed, everyone) == ([("billing", 1)], [("archive", 2), ("billing", 1), ("billing", 2)])
