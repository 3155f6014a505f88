"""What comes to nothing says why, and claims no more than that."""

from typing import Any

import pytest

from taximeter.billing.rates import parse_card
from taximeter.events import ActiveMark, Event, Marked, Options, ServiceClass, Status, UnitsMark
from taximeter.rulebook import Rulebook
from tests.core.stories import (
    MINUTE,
    SECOND,
    WORKER,
    book,
    card,
    exited,
    finish,
    ready,
    spawned,
    start,
    tell,
)

GIFT = {"name": "acme/gift", "amount": "0.03", "unit": "image", "billable": False}
IMAGE = {"name": "acme/image", "amount": "0.03", "unit": "image"}


def rules(interim_ns: int = MINUTE, **classes: Any) -> Rulebook:
    return book(interim_ns, (parse_card(card().content() | {"models": [GIFT, IMAGE]}, "test"),), **classes)


def billing(
    *marks: Event, status: Status = Status.SUCCEEDED, by: Rulebook | None = None, **said: Any
) -> tuple[str, Any]:
    """How the last record of a run from 0 s to 2 s is billed, and why."""
    events = [
        spawned(0),
        ready(0),
        start(0, "p1", **said),
        *marks,
        finish(2 * SECOND, "p1", status),
        exited(3 * SECOND),
    ]
    data: Any = tell(WORKER, events, by or rules()).predictions()[-1].data
    assert data["billing"].amount == "0"
    return data["billing"].status, data["billing"].reason


def test_a_run_of_no_time_says_so_and_no_more() -> None:
    told = tell(Options(prediction="p1"), [spawned(0), ready(0), exited(0)], rules())
    data: Any = told.predictions()[-1].data
    assert data["time"]["wall_ns"] == 0
    assert (data["billing"].status, data["billing"].amount) == ("free", "0")
    assert data["billing"].reason == "it took no time"


def test_an_online_instance_of_no_time_says_so() -> None:
    told = tell(Options(service_class=ServiceClass.PRIVATE), [spawned(0), ready(0), exited(0)], rules())
    data: Any = told.instances()[-1].data
    assert (data["billing"].status, data["billing"].reason) == ("free", "no time passed that its class bills")


def test_what_was_aborted_says_that_its_class_bills_nothing_of_that() -> None:
    by = rules(public={"failed": "0"})
    reason = "its class bills nothing of a run that is failed"
    assert billing(status=Status.FAILED, by=by) == ("free", reason)


def test_a_model_that_is_not_billed_says_so() -> None:
    assert billing(model="acme/gift") == ("free", "its model is not billed")


def test_what_only_loaded_never_processed() -> None:
    assert billing(service_class=ServiceClass.FAST_BOOT) == ("free", "it never processed")


def test_a_class_that_bills_no_active_time_says_so() -> None:
    assert billing(by=rules(public={"active": "0"})) == ("free", "its class bills no active time")


@pytest.mark.parametrize("marks", [(), (Marked(SECOND, ActiveMark("p1")),)])
def test_what_counted_nothing_that_has_a_price_says_so(marks: tuple[Event, ...]) -> None:
    none = Marked(SECOND, UnitsMark("p1", {"image": "0"}))
    expected = ("free", "nothing that has a price was used or counted since")
    assert billing(none, *marks, model="acme/image") == expected
