"""How what runs is drawn: what is open on it only where somebody looks."""

import pytest

from taximeter.agent import views
from taximeter.meter import fold, open_instance
from taximeter.observe.snapshot import InstanceView
from tests.core.stories import SECOND, WORKER, book, opened, ready, spawned, start


def drawn() -> InstanceView:
    """A worker with two predictions open."""
    events = [spawned(1), ready(2), start(SECOND, "a", account="cus_1"), start(2 * SECOND, "b", parent="a")]
    return views._instance(fold(open_instance(opened(WORKER), book()), events, book()).instance, book())


def test_what_is_open_is_told_in_order() -> None:
    first, second = drawn().predictions
    assert (first.prediction, first.account, second.prediction, second.parent) == ("a", "cus_1", "b", "a")
    assert second in drawn().predictions


def test_it_is_counted_without_being_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_prediction", None)
    view = drawn()
    assert len(view.predictions) == 2
    with pytest.raises(TypeError):
        list(view.predictions)
