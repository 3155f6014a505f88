"""What has ended is read back from the ledger and corrected, a slice at a time, whoever is killed when."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest

from taximeter.agent import reviewer as reviewers
from taximeter.agent.desk import Desk
from taximeter.agent.reviewer import Reviewer
from taximeter.agent.scribe import Scribe
from taximeter.errors import LedgerError
from taximeter.events import Observed
from taximeter.hardware.inventory import Device, Hardware
from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Ledger
from taximeter.rulebook import Rulebook
from tests.agent.desks import SECOND, Node, start, write
from tests.core.stories import book, card
from tests.journal_samples import INSTANCE, clock, fact, mark_line, open_line, options

PREDICTIONS = 20
ANY = Hardware("two", 2, (Device("GPU-a", "a GPU", None, 0), Device("GPU-b", "a GPU", None, 1)), settled=False)
ONE = Hardware("one", 1, (Device("GPU-a", "a GPU", None, 0),))
RULES = book(rates=(card(one="0.1", two="0.2"),))
SEEN = Observed(PREDICTIONS * SECOND, PREDICTIONS * SECOND, ONE)


def worker() -> list[bytes]:
    """A worker with predictions of a second, one after the other."""
    told = options(worker=True, account=None, model=None, prediction=None, units={}, **{"class": None})
    lines = [
        open_line(options=told),
        fact("spawn", 1_002, before=1_001, pid=4712, start=99),
        fact("ready", 1_003, by="exec"),
    ]
    for at in range(PREDICTIONS):
        lines.append(mark_line(at * SECOND + 2_000, {"mark": "start", "prediction": f"p{at}"}))
        lines.append(mark_line((at + 1) * SECOND, {"mark": "finish", "prediction": f"p{at}", "status": "succeeded"}))
    return lines


def end() -> bytes:
    at_ns = PREDICTIONS * SECOND + 5
    return fact("exit", at_ns, code=0, signal=None, core=False, clock=clock(at_ns), usage=None, error=None)


def begin(path: Path, rules: Rulebook = RULES) -> Node:
    """A node whose agent gives every instance both devices, until it is seen on one."""

    def place(_: Mapping[str, str]) -> Hardware:
        return ANY

    return start(path, rules=rules, where=place)


def reviewer(node: Node) -> Reviewer:
    desk = Desk(node.ledger, node.books.tally)
    return Reviewer(node.unsettled, desk, Scribe(node.books, desk))


@pytest.fixture(autouse=True)
def _short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviewers, "SLICE", 8)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with a worker that is found to run on other hardware once all its predictions have ended."""
    made = begin(tmp_path / "node")
    write(made.journal, worker())
    made.reading.read(INSTANCE)
    made.telling.book_look(INSTANCE, [SEEN])
    return made


def corrections(node: Node) -> list[dict[str, Any]]:
    return [one["data"] for one in node.usage() if one["type"].endswith("correction.v1")]


def total(node: Node) -> Decimal:
    return sum((Decimal(one["data"]["billing"]["amount"] or 0) for one in node.usage()), Decimal(0))


def check(node: Node) -> None:
    """Each prediction is corrected once, and all cost what they cost on what they were seen on."""
    assert [data["prediction"] for data in corrections(node)] == [f"p{at}" for at in range(PREDICTIONS)]
    active_ns = sum(one["data"]["time"]["share_ns"] for one in node.usage() if one["data"].get("prediction"))
    assert total(node) == Decimal("0.1") * Decimal(active_ns).scaleb(-9)
    with LedgerReader(node.path / "ledger.db") as reader:
        assert audit(reader).faults == ()


@pytest.mark.anyio
async def test_all_that_has_ended_is_corrected_in_slices_from_what_is_in_the_ledger_by_then(node: Node) -> None:
    slices = 0
    goes_on = reviewer(node)
    while node.books.reviews:
        await goes_on.go_on()
        slices += 1
    node.commit()
    assert slices == 3
    check(node)


@pytest.mark.anyio
@pytest.mark.parametrize("killed_after", range(4))
async def test_an_agent_that_is_killed_corrects_nothing_twice_and_leaves_nothing_out(
    node: Node, killed_after: int
) -> None:
    node.commit()
    goes_on = reviewer(node)
    for _ in range(killed_after):
        await goes_on.go_on()
    node.ledger.close()
    node = begin(node.path)
    goes_on = reviewer(node)
    while node.books.reviews:
        await goes_on.go_on()
    node.commit()
    check(node)


@pytest.mark.anyio
@pytest.mark.parametrize("killed_after", range(4))
async def test_an_instance_that_ends_meanwhile_is_closed_once_all_of_it_is_corrected(
    node: Node, killed_after: int
) -> None:
    write(node.journal, [*worker(), end()])
    node.reading.read(INSTANCE)
    node.commit()
    assert INSTANCE not in node.books.accounts
    goes_on = reviewer(node)
    for _ in range(killed_after):
        assert not node.ledger.closed_at([INSTANCE])
        await goes_on.go_on()
    node.ledger.close()
    node = begin(node.path)
    assert INSTANCE not in node.books.accounts
    goes_on = reviewer(node)
    while node.books.reviews:
        await goes_on.go_on()
    node.commit()
    check(node)
    assert node.ledger.closed_at([INSTANCE]).keys() == {INSTANCE}
    assert node.ledger.journals() == ()


@pytest.mark.anyio
async def test_records_that_are_not_there_are_said_and_keep_nobody(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Ledger, "records", lambda *_: {})
    goes_on = reviewer(node)
    with anyio.fail_after(20):
        while node.books.reviews:
            await goes_on.go_on()
    assert caplog.text.count("review.incomplete") == 3


@pytest.mark.anyio
async def test_a_disk_that_gives_nothing_back_is_asked_again_later(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> dict[str, bytes]:
        raise LedgerError("cannot read")

    goes_on = reviewer(node)
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "records", fails)
        await goes_on.go_on()
    assert not goes_on.is_due
    assert "review.put_off: cannot read" in caplog.text
    goes_on._rests_until_s = 0
    while node.books.reviews:
        await goes_on.go_on()
    node.commit()
    check(node)


@pytest.mark.anyio
async def test_who_has_nothing_to_be_reviewed_is_not_asked_for_again(node: Node) -> None:
    node.books.reviews["somebody else"] = None
    goes_on = reviewer(node)
    await goes_on.go_on()
    await goes_on.go_on()
    assert "somebody else" not in node.books.reviews
