"""docs/billing.md, row by row: each worked case is told to the meter, and bills what the page says.

The page is read, not repeated: a table is one of cases if its columns are those of CASES. A row's arithmetic is done
here once more, apart from the core.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taximeter.billing import exact
from taximeter.billing.models_file import Document
from taximeter.billing.rates import RateCard, parse_card
from taximeter.events import (
    ActiveMark,
    BecameReady,
    Event,
    FinishMark,
    Marked,
    Options,
    ServiceClass,
    StartMark,
    Status,
    Stopping,
    StopReason,
    UnitsMark,
)
from taximeter.hardware.inventory import Hardware
from taximeter.records import Line, UsageRecord
from taximeter.rulebook import Rulebook
from tests.core.stories import MINUTE, SECOND, book, exited, spawned, tell

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/billing.md").read_text()
CASES = ("case", "model", "class", "ends", "used", "bills", "amount")
_TIME = re.compile(r"(boot|load|idle|active|teardown) ([0-9.]+) s")
_LINE = re.compile(r"([0-9.]+) (.+?) × ([0-9.]+)(?: × (-?[0-9.]+))?")


@dataclass(frozen=True)
class Case:
    """One row."""

    name: str
    model: str | None
    service_class: ServiceClass
    ends: str
    used: tuple[str, ...]
    bills: str
    amount: str


def _rows() -> Iterator[Case]:
    in_cases = False
    for line in PAGE.splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")] if line[:1] == "|" else []
        if not cells:
            in_cases = False
        elif tuple(cells) == CASES:
            in_cases = True
        elif in_cases and set(line) - set("|- "):
            name, model, service_class, ends, used, bills, amount = cells
            words = tuple(word.strip() for word in used.split(","))
            yield Case(name, None if model == "–" else model, ServiceClass(service_class), ends, words, bills, amount)


ALL = list(_rows())


def the_card() -> RateCard:
    """The card that the page works with: what is shipped, the example of models, and the page's own."""
    own = tomllib.loads(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0])
    shipped = tomllib.loads((ROOT / "config/rates.toml").read_text())
    listed = exact.loads((ROOT / "config/models.json").read_text(), "models.json")
    return parse_card({**shipped, **own}, "billing.md", Document(listed, "models.json"))


def _used(case: Case) -> dict[str, int]:
    """Nanoseconds by phase."""
    found = (_TIME.fullmatch(word) for word in case.used)
    return {match[1]: int(Decimal(match[2]) * SECOND) for match in found if match}


def _words(case: Case, kind: str) -> list[str]:
    """What a row says of one kind: `beside another for 6 s`, `recorded every 60 s`, `on gpu-h100-2x`."""
    return [word.removeprefix(kind).strip() for word in case.used if word.startswith(kind)]


def _units(case: Case) -> dict[str, str]:
    counted = (re.fullmatch(r"([0-9.]+) ([a-z_]+)", word) for word in case.used)
    return {match[2]: match[1] for match in counted if match}


def _attributes(case: Case) -> dict[str, str]:
    said = (word.partition("=") for word in case.used)
    return {key: value for key, is_, value in said if is_}


def _happenings(case: Case) -> Iterator[Event]:
    used = _used(case)
    yield spawned(0)
    at_ns = used.get("boot", 0)
    if "never ready" not in case.used:
        yield BecameReady(at_ns, "notify")
        at_ns += used.get("idle", 0)
        begun = StartMark("p", case.model, service_class=_class_of_mark(case), attributes=_attributes(case))
        yield Marked(at_ns, begun)
        at_ns += used.get("load", 0)
        if case.service_class is ServiceClass.FAST_BOOT and "active" in used:
            yield Marked(at_ns, ActiveMark("p"))
        yield from _beside(case, at_ns)
        half_ns = at_ns + used.get("active", 0) // 2
        if _units(case):
            yield Marked(half_ns, UnitsMark("p", _units(case)))
        at_ns += used.get("active", 0)
        yield from _end(case, at_ns)
    at_ns += used.get("teardown", 0)
    yield exited(at_ns, 1 if "never ready" in case.used else 0)


def _class_of_mark(case: Case) -> ServiceClass | None:
    return None if case.service_class in (ServiceClass.PRIVATE, ServiceClass.DEPLOYMENT) else case.service_class


def _beside(case: Case, at_ns: int) -> Iterator[Event]:
    for said in _words(case, "beside another for"):
        yield Marked(at_ns, StartMark("other"))
        yield Marked(at_ns + int(Decimal(said.removesuffix(" s")) * SECOND), FinishMark("other", Status.SUCCEEDED))


def _end(case: Case, at_ns: int) -> Iterator[Event]:
    if case.ends == "aborted":
        yield Stopping(at_ns, StopReason.ABORTED)
        return
    yield Marked(at_ns, FinishMark("p", Status(case.ends)))
    if "teardown" in _used(case):
        yield Stopping(at_ns, StopReason.DRAIN)


def _told(case: Case, card: RateCard) -> list[UsageRecord]:
    online = case.service_class if _class_of_mark(case) is None else None
    tier = (_words(case, "on ") or ["gpu-h100"])[0]
    count = int(re.findall(r"(?:-|^)([0-9])x", tier)[0]) if re.search(r"(?:-|^)([0-9])x", tier) else int(tier != "cpu")
    every = [int(said.removesuffix(" s")) * SECOND for said in _words(case, "recorded every")]
    rules: Rulebook = book(every[0] if every else 60 * MINUTE, (card,))
    events = sorted(_happenings(case), key=lambda event: event.at_ns or 0)
    options = Options(worker=True, service_class=online, model=case.model if online else None)
    told = tell(options, events, rules, on=Hardware(tier, count, rule="as the page says"))
    return [record for record in told.records if record.prediction != "other"]


def _shown(line: Line) -> str:
    unit = "s" if line.unit == "computing_second" else line.unit
    shown = f"{line.quantity} {unit} × {line.rate}"
    return shown if line.multiplier == "1" else f"{shown} × {line.multiplier}"


def _bill(records: list[UsageRecord]) -> tuple[str, str]:
    """What they bill, line for line, and the sum of it, or why there is none."""
    billings: list[Any] = [record.data["billing"] for record in records]
    shown = "; ".join(_shown(line) for billing in billings for line in billing.lines)
    if any(billing.status == "unrated" for billing in billings):
        return shown or "–", "unrated"
    total = sum((Decimal(billing.amount) for billing in billings if billing.amount), Decimal(0))
    currencies = {billing.currency for billing in billings if billing.lines}
    return shown or "–", f"{total.normalize():f} {currencies.pop()}" if currencies else "0"


@pytest.mark.parametrize("case", ALL, ids=[case.name for case in ALL])
def test_a_worked_case_bills_what_the_page_says(case: Case) -> None:
    assert _bill(_told(case, the_card())) == (case.bills, case.amount)


@pytest.mark.parametrize("case", ALL, ids=[case.name for case in ALL])
def test_the_arithmetic_of_a_row_is_right(case: Case) -> None:
    """Not by the core: the products of a row add up to its amount."""
    total = Decimal(0)
    for text in case.bills.split("; ") if case.bills != "–" else ():
        match = _LINE.fullmatch(text)
        assert match is not None, text
        total += Decimal(match[1]) * Decimal(match[3]) * Decimal(match[4] or 1)
    assert Decimal(case.amount.split(" ")[0].replace("unrated", "0")) == total.quantize(Decimal("1e-18"))


def test_every_unit_every_class_and_every_end_is_among_the_cases() -> None:
    text = json.dumps([case.bills for case in ALL], ensure_ascii=False)
    units = ["image", "image_megapixel", "video", "second", "5 seconds", "minute", "audio_second", "video_second"]
    units += ["token", "million_token", "prediction", "s", "gpu"]
    assert [unit for unit in units if f" {unit} ×" not in text] == []
    assert {case.service_class for case in ALL} == set(ServiceClass)
    assert {case.ends for case in ALL} >= {"succeeded", "failed", "canceled", "aborted"}


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("TrueFusion", "0.03 image"),
        ("TrueFusion Video Pro", "0.196 second"),
        ("Lumo", "1.12 prediction"),
        ("Flux 2 Pro Legacy", "0.02 image_megapixel"),
        ("Sora 2", "0.002 video"),
        ("TrueFusion Optima", "0.008 computing_second"),
    ],
)
def test_the_platforms_sample_prices_are_in_the_example_and_among_the_cases(model: str, price: str) -> None:
    found = the_card().models[model]
    assert f"{found.amount} {found.unit}" == price
    assert any(case.model == model for case in ALL)
