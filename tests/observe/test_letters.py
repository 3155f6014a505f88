"""What a request about dead letters may say."""

import orjson
import pytest

from taximeter.ledger.outbox import DeadLetter
from taximeter.observe.letters import Deed, LetterError, Order, letter_view, read_order


def test_all_of_a_sinks_letters_are_ordered_without_naming_any() -> None:
    assert read_order(b'{"do":"retry","sink":"billing"}') == Order(Deed.RETRY, "billing", None)


def test_letters_are_named_by_the_ids_of_their_records() -> None:
    order = read_order(b'{"do":"drop","sink":"billing","records":["a-1","a-2"]}')
    assert order == Order(Deed.DROP, "billing", ("a-1", "a-2"))


@pytest.mark.parametrize(
    "said",
    [
        [],
        "retry",
        {"do": "retry"},
        {"sink": "billing"},
        {"do": "burn", "sink": "billing"},
        {"do": "retry", "sink": 1},
        {"do": "retry", "sink": "../etc"},
        {"do": "retry", "sink": "billing", "records": "a"},
        {"do": "retry", "sink": "billing", "records": {"a": 1}},
        {"do": "retry", "sink": "billing", "records": [1]},
        {"do": "retry", "sink": "billing", "records": [""]},
        {"do": "retry", "sink": "billing", "records": ["a\nb"]},
        {"do": "retry", "sink": "billing", "records": ["a"] * 101},
        {"do": "retry", "sink": "billing", "now": True},
        {"do": ["retry"], "sink": "billing"},
    ],
)
def test_an_order_that_nobody_can_follow_is_refused(said: object) -> None:
    with pytest.raises(LetterError, match=r"^cannot .*: expected "):
        read_order(orjson.dumps(said))


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(LetterError, match="expected JSON"):
        read_order(b'{"do":')


def test_a_letter_is_shown_with_when_and_why_it_was_refused() -> None:
    shown = letter_view(DeadLetter("billing", 7, "a-1", "rejected", "answered 400", 1_795_341_600_000_000_000, False))
    assert shown == {
        "sink": "billing",
        "seq": 7,
        "id": "a-1",
        "reason": "rejected",
        "said": "answered 400",
        "refused_utc": "2026-11-22T10:00:00.000000000Z",
        "again": False,
    }
