"""A card that comes late: the agent itself corrects what was billed meanwhile, in pieces, whoever is killed when."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest

from taximeter.agent import corrector as correctors
from taximeter.agent import portions
from taximeter.agent.allowance import AT_ONCE
from taximeter.agent.books import Books
from taximeter.agent.corrector import Corrector
from taximeter.agent.desk import Desk
from taximeter.agent.inforce import card_record, read_known, with_card
from taximeter.agent.scribe import Scribe
from taximeter.billing.notices import own_id
from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch
from taximeter.records import RecordType
from taximeter.records import fact as in_ledger
from taximeter.rulebook import Rulebook
from tests.agent.desks import SECOND, Node, start, write
from tests.core.stories import book, card
from tests.journal_samples import INSTANCE, OTHER, clock, fact, mark_line, open_line, options

ENDED = 20
FIRST = card("0.5")
#: Since second 60 of the journals: when some of it had ended.
LATE = card("2", "2026-11-22T10:01:03Z")
KNOWN = book(20 * SECOND, (FIRST,))
BOTH = replace(KNOWN, cards=(FIRST, LATE))


def lines(instance: str, service_class: str | None) -> list[bytes]:
    """A worker of two minutes: predictions of a moment, and one that began before the card and one that did behind."""
    told = {"worker": True, "account": "cus_7", "model": None, "prediction": None, "units": {}, "class": service_class}
    found = [
        open_line(instance, options=options(**told)),
        fact("spawn", 1_002, before=1_001, pid=4712, start=99),
        fact("ready", 1_003, by="exec"),
    ]
    for at in range(1, 120):
        found.append(fact("heartbeat", at * SECOND, clock=clock(at * SECOND), usage=None))
        name = {50: "before", 62: "behind"}.get(at, f"p{at}")
        if at in (50, 62) or 52 <= at < 52 + ENDED:
            found.append(mark_line(at * SECOND + 2_000, {"mark": "start", "prediction": name + instance[-1]}))
        if name[0] == "p" and 52 <= at < 52 + ENDED:
            done = {"mark": "finish", "prediction": name + instance[-1], "status": "succeeded"}
            found.append(mark_line(at * SECOND + 500_000_000, done))
    return found


def end(at_ns: int = 121 * SECOND) -> bytes:
    return fact("exit", at_ns, code=0, signal=None, core=False, clock=clock(at_ns), usage=None, error=None)


def begin(path: Path, rules: Rulebook, *, ends: bool = False) -> Node:
    """A node with a pool's worker and a private one."""
    node = start(path, rules=rules)
    current = rules.rules[rules.current]
    say(node, ("rules", current.hash, current.content()))
    for one in rules.cards:
        say(node, ("rate_card", one.hash, one.content()))
    for instance, service_class in ((INSTANCE, None), (OTHER, "private")):
        write(path / f"{instance}.0.ndjson", [*lines(instance, service_class), *([end()] if ends else [])])
    read(node)
    return node


def say(node: Node, said: tuple[str, str, object]) -> None:
    record_id = own_id(node.ledger.head.ledger_id, node.ledger.next_own())
    node.ledger.commit(Batch((in_ledger(record_id, 0, said),), ()))


def read(node: Node) -> None:
    for instance in (INSTANCE, OTHER):
        node.read(instance)
    node.commit()


def finish(node: Node) -> None:
    for instance, service_class in ((INSTANCE, None), (OTHER, "private")):
        write(node.path / f"{instance}.0.ndjson", [*lines(instance, service_class), end()])


def put_in_force(node: Node) -> None:
    """As the agent does: a fact first, which says what is to be done."""
    record_id = own_id(node.ledger.head.ledger_id, node.ledger.next_own())
    node.ledger.commit(Batch((card_record(LATE, record_id, 0, corrects=True),), ()))
    node.books.book = replace(node.books.book, cards=with_card(node.books.book.cards, LATE))


class Killed(Exception):
    """The agent was killed."""


class _Mortal(Scribe):
    """Is killed when it has committed so often."""

    def __init__(self, books: Books, desk: Desk, commits: int) -> None:
        super().__init__(books, desk)
        self._left = commits

    async def commit(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Killed
        await super().commit()


def corrector(node: Node, commits: int = 0) -> Corrector:
    desk = Desk(node.ledger, node.books.tally)
    return Corrector(node.path / "ledger.db", node.unsettled, desk, _Mortal(node.books, desk, commits), anyio.Lock())


def bills(node: Node) -> dict[str, Decimal]:
    """What each prediction, and each instance itself, is billed."""
    found: dict[str, Decimal] = {}
    for data in (one["data"] for one in node.usage()):
        whose = data["prediction"] or data["instance"]
        found[whose] = found.get(whose, Decimal(0)) + Decimal(data["billing"]["amount"] or 0)
    return found


def corrections(node: Node) -> list[dict[str, Any]]:
    return [one["data"] for one in node.usage() if one["type"].endswith("correction.v1")]


def late(node: Node) -> tuple[str, ...]:
    with LedgerReader(node.path / "ledger.db") as reader:
        assert audit(reader).faults == ()
        return read_known(reader).late


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correctors, "_PAGE", 8)
    monkeypatch.setattr(portions, "PAGE", 8)
    monkeypatch.setattr(correctors, "_SLICE", 3)


@pytest.fixture
def right(tmp_path: Path) -> dict[str, Decimal]:
    """What all costs where the card came in time."""
    return bills(begin(tmp_path / "right", BOTH, ends=True))


@pytest.mark.anyio
async def test_all_that_is_over_costs_what_it_would_have_cost(tmp_path: Path, right: dict[str, Decimal]) -> None:
    node = begin(tmp_path / "node", KNOWN, ends=True)
    assert bills(node) != right
    put_in_force(node)
    assert late(node) == (LATE.hash,)
    await corrector(node).go_on()
    assert bills(node) == right
    assert late(node) == ()
    count = len(node.usage())
    put_in_force(node)
    await corrector(node).go_on()
    assert len(node.usage()) == count


@pytest.mark.anyio
async def test_what_is_open_is_corrected_at_once_and_is_right_at_its_end(
    tmp_path: Path, right: dict[str, Decimal]
) -> None:
    node = begin(tmp_path / "node", KNOWN)
    put_in_force(node)
    await corrector(node).go_on()
    corrected = {data["prediction"] for data in corrections(node)}
    assert {None, f"p63{INSTANCE[-1]}", f"behind{INSTANCE[-1]}"} <= corrected
    assert f"before{INSTANCE[-1]}" not in corrected
    count = len(corrections(node))
    finish(node)
    read(node)
    assert set(node.unsettled.repriced) == {INSTANCE, OTHER}
    await corrector(node).go_on()
    assert node.ledger.closed_at([INSTANCE, OTHER]).keys() == {INSTANCE, OTHER}
    assert bills(node) == right
    assert len(corrections(node)) == count


@pytest.mark.anyio
@pytest.mark.parametrize("commits", range(1, 26, 2))
@pytest.mark.parametrize("ends", [False, True])
async def test_an_agent_that_is_killed_corrects_nothing_twice_and_leaves_nothing_out(
    tmp_path: Path, right: dict[str, Decimal], commits: int, ends: bool
) -> None:
    node = begin(tmp_path / "node", KNOWN, ends=ends)
    put_in_force(node)
    try:
        await corrector(node, commits).go_on()
    except Killed:
        assert late(node) == (LATE.hash,)
    node.ledger.close()
    node = start(node.path, rules=BOTH)
    finish(node)
    read(node)
    try:
        await corrector(node, commits).go_on()
    except Killed:
        node.ledger.close()
        node = start(node.path, rules=BOTH)
        await corrector(node).go_on()
    assert bills(node) == right
    assert late(node) == ()
    assert not node.books.settling


MANY = 600


def many_open(service_class: str | None) -> list[bytes]:
    """A worker of 90 seconds, with so many predictions that began behind the card and are open."""
    begun = lines(INSTANCE, service_class)[:3]
    for at in range(1, 91):
        begun.append(fact("heartbeat", at * SECOND, clock=clock(at * SECOND), usage=None))
        if at == 65:
            begun.extend(mark_line(at * SECOND + n, {"mark": "start", "prediction": f"n{n}"}) for n in range(MANY))
        if at == 85:
            begun.append(mark_line(at * SECOND + 1, {"mark": "start", "prediction": "last"}))  # behind the last cut
    return begun


def busy(path: Path, rules: Rulebook, service_class: str | None) -> Node:
    node = start(path, rules=rules)
    for one in rules.cards:
        say(node, ("rate_card", one.hash, one.content()))
    write(node.journal, many_open(service_class))
    node.read()
    node.commit()
    return node


def finish_busy(node: Node, service_class: str | None) -> None:
    write(node.journal, [*many_open(service_class), end(91 * SECOND)])
    while INSTANCE in node.books.accounts:
        node.read()
    node.commit()


@pytest.mark.anyio
@pytest.mark.parametrize("service_class", [None, "private"])
async def test_others_have_their_turns_while_what_is_open_is_corrected_and_it_is_right_at_its_end(
    tmp_path: Path, service_class: str | None
) -> None:
    node, turns = busy(tmp_path / "node", KNOWN, service_class), 0
    put_in_force(node)

    async def others() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += INSTANCE in node.halves.names

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        await corrector(node).go_on()
        tasks.cancel_scope.cancel()
    assert turns >= MANY // AT_ONCE
    finish_busy(node, service_class)
    await corrector(node).go_on()
    known = busy(tmp_path / "right", BOTH, service_class)
    finish_busy(known, service_class)
    assert bills(node) == bills(known)
    assert late(node) == ()


@pytest.mark.parametrize("service_class", [None, "private"])
def test_a_crash_between_two_pieces_of_a_correction_keeps_nothing_of_it(
    tmp_path: Path, service_class: str | None
) -> None:
    node = busy(tmp_path / "node", KNOWN, service_class)
    before = len(node.usage())
    put_in_force(node)
    under = node.unsettled.put_under(INSTANCE, LATE.hash)
    node.commit()
    assert len(node.usage()) == before
    assert under is not None
    assert under.records is None
    node.ledger.close()
    node = start(node.path, rules=BOTH)
    under = node.unsettled.put_under(INSTANCE, LATE.hash)
    while node.halves.names:
        node.halves.go_on(INSTANCE)
    node.commit()
    assert under is not None
    assert under.records is not None
    assert len(node.usage()) == before + len(under.records)
    assert len({one["id"] for one in node.usage()}) == len(node.usage())


def test_what_is_told_while_a_card_is_half_taken_up_comes_behind_it(tmp_path: Path) -> None:
    node = busy(tmp_path / "node", KNOWN, "private")
    put_in_force(node)
    under = node.unsettled.put_under(INSTANCE, LATE.hash)
    finish_busy(node, "private")
    assert under is not None
    assert under.records is not None
    assert {one.type for one in under.records} == {RecordType.PREDICTION, RecordType.INSTANCE}
    assert node.usage()[-1]["data"]["final"]
    assert len({one["id"] for one in node.usage()}) == len(node.usage())


@pytest.mark.anyio
async def test_a_card_that_nobody_said_to_be_late_corrects_nothing(tmp_path: Path) -> None:
    node = begin(tmp_path / "node", KNOWN, ends=True)
    node.books.book = BOTH
    await corrector(node).go_on()
    assert corrections(node) == []
