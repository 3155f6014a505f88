"""What is asked to be rated, and no more, is: in portions, once."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest

from taximeter.agent import portions
from taximeter.agent import rerater as reraters
from taximeter.agent.desk import Desk
from taximeter.agent.rerater import Rerater
from taximeter.agent.scribe import Scribe
from taximeter.billing.notices import own_id
from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.ledger.store import Batch
from taximeter.observe.rerating import Asked
from taximeter.records import fact as in_ledger
from taximeter.rerating import LateCards
from tests.agent.desks import SECOND, Node, start, write
from tests.core.stories import book, card
from tests.journal_samples import INSTANCE, OTHER, clock, fact, mark_line, open_line, options

PREDICTIONS = 12
BARE = book(5 * SECOND, ())
CARD = card("0.5")


def lines(instance: str, service_class: str | None) -> list[bytes]:
    """A worker whose predictions are of two customers in turn; or one that a third has for itself."""
    account = None if service_class is None else "cus_3"
    told = {"worker": True, "account": account, "model": None, "prediction": None, "units": {}, "class": service_class}
    found = [
        open_line(instance, options=options(**told)),
        fact("spawn", 1_002, before=1_001, pid=4712, start=99),
        fact("ready", 1_003, by="exec"),
    ]
    for at in range(1, 2 * PREDICTIONS + 2):
        found.append(fact("heartbeat", at * SECOND, clock=clock(at * SECOND), usage=None))
        who = {"prediction": f"p{at // 2}{instance[-1]}"}
        if at % 2 == 0:
            customer = {} if service_class else {"account": f"cus_{1 + at // 2 % 2}", "model": f"acme/{at // 2 % 3}"}
            found.append(mark_line(at * SECOND + 1, {"mark": "start", **who, **customer}))
        elif at > 1:
            found.append(mark_line(at * SECOND + 1, {"mark": "finish", **who, "status": "succeeded"}))
    end_ns = (2 * PREDICTIONS + 2) * SECOND
    over = {"code": 0, "signal": None, "core": False, "clock": clock(end_ns), "usage": None, "error": None}
    return [*found, fact("exit", end_ns, **over)]


def say(node: Node, said: tuple[str, str, object]) -> None:
    record_id = own_id(node.ledger.head.ledger_id, node.ledger.next_own())
    node.ledger.commit(Batch((in_ledger(record_id, 0, said),), ()))


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node whose card came when all was over; it looks at little at once."""
    monkeypatch.setattr(portions, "PAGE", 5)
    monkeypatch.setattr(reraters, "_SLICE", 2)
    monkeypatch.setattr(reraters, "_STRETCH", 7)
    made = start(tmp_path / "node", rules=BARE)
    current = BARE.rules[BARE.current]
    say(made, ("rules", current.hash, current.content()))
    for instance, service_class in ((INSTANCE, None), (OTHER, "private")):
        write(made.path / f"{instance}.0.ndjson", lines(instance, service_class))
        made.read(instance)
    made.commit()
    say(made, ("rate_card", CARD.hash, CARD.content()))
    made.books.book = replace(BARE, cards=(CARD,))
    return made


def rerater(node: Node) -> Rerater:
    scribe = Scribe(node.books, Desk(node.ledger, node.books.tally))
    return Rerater(node.path / "ledger.db", node.books, scribe, anyio.Lock())


def corrected(node: Node) -> list[dict[str, Any]]:
    with LedgerReader(node.path / "ledger.db") as reader:
        assert audit(reader).faults == ()
    return [one["data"] for one in node.usage() if one["type"].endswith("correction.v1")]


@pytest.mark.anyio
async def test_all_that_has_no_price_is_rated_once(node: Node) -> None:
    said = await rerater(node)(Asked(dry_run=True))
    assert corrected(node) == []
    done = await rerater(node)(Asked())
    assert replace(said, dry_run=False) == done
    assert (done.corrected, done.left) == (PREDICTIONS + 1, {})
    again = await rerater(node)(Asked())
    assert (again.corrected, again.left) == (0, {})
    billed = [Decimal(data["billing"]["amount"]) for data in corrected(node)]
    assert sum(billed) == Decimal(done.amounts["USD"])
    assert billed[:PREDICTIONS] == [Decimal("0.5")] * PREDICTIONS


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("asked", "of"),
    [
        (Asked(account="cus_1"), {"cus_1"}),
        (Asked(account="cus_3"), {"cus_3"}),
        (Asked(model="acme/1"), {"cus_1", "cus_2"}),
        (Asked(prediction="p45"), {"cus_1"}),
        (Asked(since_utc_ns=clock(20 * SECOND)["realtime"]), {"cus_1", "cus_2", "cus_3"}),
    ],
)
async def test_what_is_not_asked_for_stays_as_it_is(node: Node, asked: Asked, of: set[str]) -> None:
    """A worker has predictions of many customers."""
    done = await rerater(node)(asked)
    found = corrected(node)
    assert 0 < done.corrected == len(found) < PREDICTIONS
    assert {data["account"] for data in found} == of
    assert {data["model"] for data in found} <= {asked.model} or asked.model is None


@pytest.mark.anyio
async def test_whoever_is_stopped_while_it_looks_for_what_is_unrated_looks_no_further(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    real = Rerater._look

    with anyio.CancelScope() as scope:

        def look(self: Rerater, wanted: RecordFilter, late: LateCards) -> list[str]:
            looked.append(wanted.after_seq)
            anyio.from_thread.run_sync(scope.cancel)
            return real(self, wanted, late)

        monkeypatch.setattr(Rerater, "_look", look)
        await rerater(node)(Asked())
    assert scope.cancelled_caught
    assert len(looked) == 1
    assert corrected(node) == []
