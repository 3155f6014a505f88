"""Accounts and grants over the API: what is answered, and that a grant is made once, or not at all."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from taximeter.billing.credit import Grant
from taximeter.billing.thresholds import begin_of, period_of
from taximeter.errors import LedgerError
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch, Ledger
from taximeter.observe import answers, api, granting
from taximeter.observe.queries import Queries
from tests.ledger.samples import BEGAN_UTC_NS, opened
from tests.ledger.spending import paying, put_in_force, rules
from tests.observe.nodes import BUSY, TOKEN
from tests.observe.test_api import KNOCK, serving

pytestmark = [pytest.mark.anyio, pytest.mark.forged]  # records by hand, whose prices are round

BODY = {"id": "g1", "amount": "25.00", "currency": "USD"}
GRANTED = {
    "grant": "g1",
    "account": "cus_7",
    "amount": "25",
    "currency": "USD",
    "expires_utc": None,
    "new": True,
}
NOW_NS = BEGAN_UTC_NS + 60 * 10**9


class Node:
    """A node whose agent grants; `broken` is why its disk does not."""

    client: httpx.AsyncClient

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.broken: str | None = None

    async def grant_credit(self, grant: Grant) -> tuple[Grant, bool]:
        if self.broken:
            raise LedgerError(self.broken)
        return self.ledger.grant(grant)

    async def get(self, account: str) -> httpx.Response:
        return await self.client.get(f"/v1/accounts/{account}", headers=KNOCK)

    async def post(self, account: str = "cus_7", body: object = BODY, **changes: Any) -> httpx.Response:
        content = {**body, **changes} if isinstance(body, dict) else body
        kind = {"json": content} if isinstance(content, dict) else {"content": content}
        return await self.client.post(f"/v1/accounts/{account}/grants", headers=KNOCK, **kind)  # type: ignore[arg-type]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = opened(tmp_path)
    limits = {"cus_7": {"acme/sdxl-lora": "2"}}
    put_in_force(made, rules("1", "100", prepaid=["cus_7"], caps={"cus_7": "500"}, limits=limits))
    made.commit(Batch(paying(1, "3").records, ()))
    yield made
    made.close()


@pytest.fixture
async def node(tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr("time.time_ns", lambda: NOW_NS)
    here = Node(ledger)
    with LedgerReader(tmp_path / "ledger.db") as reader:
        app = api.build(lambda: BUSY, Queries(reader), TOKEN, doing=api.Doing(grant=here.grant_credit))
        async with serving(app) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as here.client:
            yield here


# --- Accounts ---


async def test_an_account_is_told_with_spend_thresholds_credit_and_what_is_refused(node: Node) -> None:
    await node.post()
    crossing = node.ledger.head.ledger_id + "-00000001"
    assert (await node.get("cus_7")).json() == {
        "account": "cus_7",
        "period": "2026-11",
        "since_utc": "2026-11-01T00:00:00.000000000Z",
        "prepaid": True,
        "cap": "500",
        "currencies": [
            {
                "currency": "USD",
                "spend": "3",
                "spend_ever": "3",
                "thresholds": [
                    {
                        "threshold": "1",
                        "crossed": {"id": crossing, "seq": 3, "time_utc": "2026-11-22T10:00:03.123456789Z"},
                    },
                    {"threshold": "100", "crossed": None},
                ],
                "models": [{"model": "acme/sdxl-lora", "spend": "3", "limit": "2"}],
                "balance": "22",
                "grants": [
                    {
                        "grant": "g1",
                        "amount": "25",
                        "left": "22",
                        "granted_utc": "2026-11-22T10:01:03.123456789Z",
                        "expires_utc": None,
                        "expired": False,
                    }
                ],
            }
        ],
        "denials": [
            {
                "model": "acme/sdxl-lora",
                "why": "spent 3 USD on acme/sdxl-lora this month, and the limit is 2",
            }
        ],
    }


async def test_what_an_account_overdrew_is_a_negative_balance(node: Node) -> None:
    view = (await node.get("cus_7")).json()
    assert view["currencies"][0]["balance"] == "-3"
    assert view["denials"][0] == {"model": None, "why": "prepaid, and the balance is -3 USD: expected more than 0"}


async def test_a_new_month_begins_at_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: begin_of("2026-12"))
    view = (await node.get("cus_7")).json()
    (usd,) = view["currencies"]
    assert (view["period"], usd["spend"], usd["spend_ever"], usd["models"]) == ("2026-12", "0", "3", [])
    assert [one["crossed"] for one in usd["thresholds"]] == [None, None]


async def test_an_account_that_nobody_knows_is_not_found(node: Node) -> None:
    answer = await node.get("cus_9")
    assert (answer.status_code, "cus_9" in answer.json()["detail"]) == (404, True)


@pytest.mark.parametrize("account", ["a%2Fb", "a%2Fgrants", "%C3%A9%201"])
async def test_an_account_of_any_name_is_granted_to_and_told(node: Node, account: str) -> None:
    assert (await node.post(account)).status_code == 201
    assert (await node.get(account)).json()["currencies"][0]["balance"] == "25"


# --- Grants ---


async def test_a_grant_is_made_and_told(node: Node) -> None:
    answer = await node.post()
    assert answer.status_code == 201
    assert answer.json() == {**GRANTED, "granted_utc": "2026-11-22T10:01:03.123456789Z"}


async def test_the_same_grant_again_changes_nothing(node: Node) -> None:
    await node.post()
    head = node.ledger.head
    answer = await node.post(amount="25")
    assert (answer.status_code, answer.json()["new"]) == (200, False)
    assert node.ledger.head == head


@pytest.mark.parametrize(
    "change", [{"amount": "26"}, {"currency": "EUR"}, {"expires_utc": "2027-01-01"}, {"account": "cus_8"}]
)
async def test_another_grant_of_the_same_id_conflicts(node: Node, change: dict[str, str]) -> None:
    await node.post()
    answer = await node.post(**change) if "account" not in change else await node.post(change["account"])
    assert (answer.status_code, answer.json()["title"]) == (409, "Conflict")
    assert "that id granted 25 USD to 'cus_7'" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"amount": 25}, "amount = '25'"),
        ({"amount": "0"}, "amount = '0'"),
        ({"amount": "-1"}, "amount = '-1'"),
        ({"amount": "1e3"}, "amount = '1e3'"),
        ({"amount": None}, "amount = 'None'"),
        ({"currency": "usd"}, "currency = 'usd'"),
        ({"id": ""}, "id = ''"),
        ({"id": "a\nb"}, "expected an id of 1 to 256 characters"),
        ({"expires_utc": "soon"}, "expires_utc = 'soon'"),
        ({"expires_utc": 5}, "expires_utc = '5'"),
        ({"expires_utc": "2026-11-22T10:01:00Z"}, "cannot grant what has expired"),
        ({"amonut": "1"}, "cannot grant with 'amonut'"),
    ],
)
async def test_what_is_no_grant_is_said_and_grants_nothing(node: Node, change: dict[str, object], fault: str) -> None:
    head = node.ledger.head
    answer = await node.post(**change)
    assert (answer.status_code, fault in answer.json()["detail"]) == (400, True), answer.json()
    assert node.ledger.head == head


@pytest.mark.parametrize(("body", "status"), [(b"", 400), (b"[]", 400), (b"{", 400), (b" " * 9_000, 413)])
async def test_a_body_that_is_none_is_refused(node: Node, body: bytes, status: int) -> None:
    assert (await node.post(body=body)).status_code == status


@pytest.mark.parametrize("account", ["platform", "unattributed", "x" * 257, "%00"])
async def test_who_is_no_account_is_granted_nothing(node: Node, account: str) -> None:
    assert (await node.post(account)).status_code == 400


async def test_a_grant_that_expired_meanwhile_is_still_the_same_grant(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.post(expires_utc="2026-12-01")
    monkeypatch.setattr("time.time_ns", lambda: begin_of("2027-01"))
    answer = await node.post(expires_utc="2026-12-01T00:00:00Z")
    assert (answer.status_code, answer.json()["new"]) == (200, False)
    assert period_of(begin_of("2026-12")) == "2026-12"


async def test_a_disk_that_does_not_take_it_is_said(node: Node) -> None:
    node.broken = "cannot commit to ledger: the disk is full"
    assert (await node.post()).status_code == 503


async def test_without_the_token_nothing_is_granted(node: Node) -> None:
    assert (await node.client.post("/v1/accounts/cus_7/grants", json=BODY)).status_code == 401


async def test_other_methods_are_told_which_are_allowed(node: Node) -> None:
    answer = await node.client.delete("/v1/accounts/cus_7", headers=KNOCK)
    assert (answer.status_code, set(answer.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})


async def test_a_body_that_drips_in_is_given_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_BODY_S", 0.05)
    patience: Any = iter([b"{"])

    async def drip() -> AsyncIterator[bytes]:
        import anyio

        yield next(patience)
        await anyio.sleep(0.5)

    answer = await node.post(body=drip())
    assert answer.status_code == 408


async def test_a_node_that_cannot_grant_says_so(tmp_path: Path, ledger: Ledger) -> None:
    with LedgerReader(tmp_path / "ledger.db") as reader:
        app = api.build(lambda: BUSY, Queries(reader), TOKEN)
        async with serving(app) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            answer = await client.post("/v1/accounts/cus_7/grants", headers=KNOCK, json=BODY)
            assert answer.status_code == 503


def test_amounts_are_never_floats() -> None:
    with pytest.raises(granting.GrantError):
        granting.read_grant("cus_7", b'{"id":"g","currency":"USD","amount":0.1}', NOW_NS)
