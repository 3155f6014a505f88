"""Prices while the agent runs: the last good list stays, whatever the platform answers, and survives a restart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from taximeter.agent.pricing import Prices
from taximeter.billing.rates import RateCard, parse_card
from taximeter.errors import ConfigError
from taximeter.prices import read_copy
from taximeter.prices.fetch import Fetcher
from tests.prices.lists import body_of, serving
from tests.shipping.receiver import say

pytestmark = pytest.mark.anyio

OWN = {"version": "7", "effective": "2026-01-01T00:00:00Z", "currency": "USD", "tiers": {"cpu": "0.0001"}}
ONE, TWO = body_of(("acme/image", "0.1")), body_of(("acme/image", "0.2"))


def own(**more: object) -> RateCard:
    return parse_card(OWN | more, "rates.toml")


class Force:
    """What was put in force."""

    def __init__(self, refused: str | None = None) -> None:
        self.cards: list[RateCard] = []
        self.refused = refused

    async def __call__(self, card: RateCard) -> str | None:
        self.cards.append(card)
        return self.refused

    @property
    def amounts(self) -> list[str]:
        return [str(card.models["acme/image"].prices[0].amount) for card in self.cards]


def prices(tmp_path: Path, url: str, poll_s: float = 0.01) -> Prices:
    return Prices(own(), Fetcher(url, None, 20), tmp_path / "list.json", poll_s)


async def ran(made: Prices, force: Force, until: Callable[[], Any]) -> None:
    """Let it ask until something is so."""
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.run, force, lambda: 0.0)
            while not until():  # noqa: ASYNC110 -- it rings no bell
                await anyio.sleep(0.002)
            tasks.cancel_scope.cancel()


async def test_without_a_list_the_own_card_holds(tmp_path: Path) -> None:
    made = Prices(own(), None, tmp_path / "list.json", 1)
    assert await made.begin() == own()
    assert made.view is None
    await made.run(Force(), lambda: 0.0)


async def test_the_first_agent_asks_before_it_begins(tmp_path: Path) -> None:
    async with serving(ONE) as platform:
        card = await prices(tmp_path, platform.url).begin()
    assert card is not None
    assert str(card.models["acme/image"].prices[0].amount) == "0.1"


async def test_the_first_list_of_a_node_holds_from_its_cards_beginning_and_a_later_one_from_when_it_is_seen(
    tmp_path: Path,
) -> None:
    force = Force()
    async with serving(ONE) as platform:
        made = Prices(own(), Fetcher(platform.url, None, 1), tmp_path / "list.json", 0.01, is_first=True)
        first = await made.begin()
        platform.body = TWO
        await ran(made, force, lambda: force.cards)
    assert first is not None
    assert first.effective_utc_ns == own().effective_utc_ns < force.cards[0].effective_utc_ns


async def test_where_there_never_was_a_list_there_is_no_card(tmp_path: Path) -> None:
    made = prices(tmp_path, "http://127.0.0.1:1/v1/models")
    assert await made.begin() is None
    assert made.view is not None
    assert dict(made.view.failures) == {"connect": 1}


async def test_an_agent_without_network_begins_with_the_copy(tmp_path: Path) -> None:
    async with serving(ONE) as platform:
        first = await prices(tmp_path, platform.url).begin()
        url = platform.url
    assert first is not None
    again = await prices(tmp_path, url).begin()
    assert again is not None
    assert again.hash == first.hash


async def test_a_copy_of_another_list_is_none(tmp_path: Path) -> None:
    async with serving(ONE) as platform:
        await prices(tmp_path, platform.url).begin()
    assert await prices(tmp_path, "http://127.0.0.1:1/v1/models").begin() is None


async def test_a_damaged_copy_is_said_and_asked_for_anew(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("{")
    async with serving(ONE) as platform:
        made = prices(tmp_path, platform.url)
        assert await made.begin() is not None
    assert made.view is not None
    assert dict(made.view.failures) == {"copy": 1}


async def test_a_list_that_changes_is_put_in_force(tmp_path: Path) -> None:
    force = Force()
    async with serving(ONE) as platform:
        made = prices(tmp_path, platform.url)
        await made.begin()
        platform.body = TWO
        await ran(made, force, lambda: force.cards)
    assert force.amounts == ["0.2"]


async def test_a_list_that_says_the_same_in_other_words_is_no_other(tmp_path: Path) -> None:
    force = Force()
    async with serving(ONE) as platform:
        made = prices(tmp_path, platform.url)
        await made.begin()
        platform.body = ONE.replace(b":", b" : ")
        await ran(made, force, lambda: len(platform.asked) > 3)
    assert force.cards == []
    kept = read_copy(tmp_path / "list.json")
    assert kept is not None
    assert kept.body == ONE.decode()


async def test_who_knows_the_list_asks_by_its_etag(tmp_path: Path) -> None:
    async with serving(ONE, etag='"e1"') as platform:
        made = prices(tmp_path, platform.url)
        await made.begin()
        await ran(made, Force(), lambda: len(platform.asked) > 2)
        assert [request.headers.get("if-none-match") for request in platform.asked[:3]] == [None, '"e1"', '"e1"']
    assert made.view is not None
    assert made.view.checked_unix_s is not None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "bad_list"),
        (b'{"data": 7}', "bad_list"),
        (TWO.replace(b'"image"', b'"parsec"'), "bad_list"),
        (TWO.replace(b"USD", b"XXQ"), "bad_list"),
        (TWO.replace(b"0.2", b"NaN"), "bad_list"),
        (TWO.replace(b"0.2", b"-1"), "bad_list"),
        (TWO.replace(b"0.2", b"1E999999"), "bad_list"),
        (b"[" * 100_000, "bad_list"),
        (body_of(("acme/image", "1"), ("acme/image", "2")), "bad_list"),
    ],
)
async def test_a_bad_list_changes_nothing(tmp_path: Path, body: bytes, reason: str) -> None:
    force = Force()
    async with serving(ONE) as platform:
        made = prices(tmp_path, platform.url)
        await made.begin()
        platform.body = body
        await ran(made, force, lambda: made.view and made.view.failures)
    assert force.cards == []
    assert made.view is not None
    assert set(made.view.failures) == {reason}
    assert made.view.last_error is not None
    assert "127.0.0.1" in made.view.last_error
    kept = read_copy(tmp_path / "list.json")
    assert kept is not None
    assert kept.body == ONE.decode()


@pytest.mark.parametrize("body", [b"[]", b'{"data":[]}'])
async def test_a_list_that_has_no_model_any_more_is_an_outage_and_no_price(tmp_path: Path, body: bytes) -> None:
    force = Force()
    async with serving(ONE) as platform:
        made = prices(tmp_path, platform.url)
        await made.begin()
        platform.body = body
        await ran(made, force, lambda: made.view and made.view.failures)
    assert force.cards == []
    assert made.view is not None
    assert set(made.view.failures) == {"bad_list"}


async def test_a_list_older_than_the_one_in_force_changes_nothing(tmp_path: Path) -> None:
    force = Force()
    async with serving(ONE, last_modified="Thu, 26 Nov 2026 07:00:00 GMT") as platform:
        made = prices(tmp_path, platform.url)
        await made.begin()
        platform.body, platform.headers["last-modified"] = TWO, "Thu, 26 Nov 2026 06:59:59 GMT"
        await ran(made, force, lambda: made.view and made.view.failures)
    assert force.cards == []
    assert made.view is not None
    assert set(made.view.failures) == {"older"}


async def test_after_trouble_the_list_is_asked_for_again(tmp_path: Path) -> None:
    force = Force()
    async with serving(ONE, say(500), say(503, "retry-after: 0\r\n")) as platform:
        made = prices(tmp_path, platform.url)
        assert await made.begin() is None
        await ran(made, force, lambda: force.cards)
    assert force.amounts == ["0.1"]
    assert made.view is not None
    assert made.view.last_error is None


async def test_prices_are_read_exactly(tmp_path: Path) -> None:
    async with serving(body_of(("acme/image", "0.10000000000000000001"))) as platform:
        card = await prices(tmp_path, platform.url).begin()
    assert card is not None
    assert str(card.models["acme/image"].prices[0].amount) == "0.10000000000000000001"


async def test_another_own_card_goes_with_the_list_that_is_known(tmp_path: Path) -> None:
    force = Force()
    async with serving(ONE) as platform:
        made = prices(tmp_path, platform.url)
        await made.begin()
        assert await made.reload(own(version="8", tiers={"cpu": "0.5"}), force) is None
    assert force.amounts == ["0.1"]
    assert str(force.cards[0].tiers["cpu"]) == "0.5"


async def test_another_own_card_that_does_not_go_with_the_list_is_a_fault(tmp_path: Path) -> None:
    async with serving(ONE) as platform:
        made = prices(tmp_path, platform.url)
        await made.begin()
        twice = own(models=[{"name": "acme/image", "amount": "3", "unit": "image"}])
        with pytest.raises(ConfigError, match="two prices"):
            await made.reload(twice, Force())


async def test_an_older_own_card_is_told(tmp_path: Path) -> None:
    made = Prices(own(), None, tmp_path / "list.json", 1)
    assert await made.reload(own(version="6"), Force("too old")) == "too old"
    assert made.refused == "too old"
    assert await made.reload(own(version="8"), Force()) is None
    assert made.refused is None
