"""`taximeter account` and `taximeter grant`: what is shown, with an agent and without, and what is asked of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli import agent
from tests.cli.conftest import HOSTILE
from tests.cli.node import taximeter
from tests.cli.test_receipt import agrees

ACCOUNT: dict[str, Any] = {
    "account": "cus_7",
    "period": "2026-11",
    "since_utc": "2026-11-01T00:00:00.000000000Z",
    "prepaid": True,
    "cap": "500",
    "currencies": [
        {
            "currency": "USD",
            "spend": "102.003174",
            "spend_ever": "1200.5",
            "thresholds": [
                {"threshold": "10", "crossed": {"id": "L-7", "seq": 41, "time_utc": "2026-11-03T08:00:00.123456789Z"}},
                {"threshold": "1000", "crossed": None},
            ],
            "models": [
                {"model": "acme/sdxl", "spend": "100", "limit": "100"},
                {"model": "acme/llama", "spend": "2.003174", "limit": None},
            ],
            "balance": "-0.25",
            "grants": [
                {
                    "grant": "invoice-77",
                    "amount": "50",
                    "left": "12.5",
                    "granted_utc": "2026-10-01T00:00:00.000000000Z",
                    "expires_utc": "2026-11-01T00:00:00.000000000Z",
                    "expired": True,
                },
                {
                    "grant": "invoice-78",
                    "amount": "25",
                    "left": "0",
                    "granted_utc": "2026-11-01T00:00:00.000000000Z",
                    "expires_utc": None,
                    "expired": False,
                },
            ],
        }
    ],
    "denials": [
        {"model": None, "why": "prepaid, and the balance is -0.25 USD: expected more than 0"},
        {"model": "acme/sdxl", "why": "spent 100 USD on acme/sdxl this month, and the limit is 100"},
    ],
}
GRANTED = {
    "grant": "invoice-78",
    "account": "cus_7",
    "amount": "25",
    "currency": "USD",
    "granted_utc": "2026-11-22T10:00:00.000000000Z",
    "expires_utc": "2027-01-01T00:00:00.000000000Z",
    "new": True,
}
WORDS = ("grant", "cus_7", "25", "USD", "--id", "invoice-78")


@pytest.mark.parametrize("columns", [80, 120])
def test_an_account_reads_as_it_was_drawn(state: Path, columns: int) -> None:
    with agent.living({"/v1/accounts/cus_7": ACCOUNT}):
        answer = taximeter("account", "cus_7", columns=columns)
    assert (answer.code, answer.err) == (0, "")
    assert agrees(answer.out, f"account-{columns}.txt")


def test_an_account_is_also_json(state: Path) -> None:
    with agent.living({"/v1/accounts/cus_7": ACCOUNT}):
        assert json.loads(taximeter("account", "cus_7", "--json").out) == ACCOUNT


def test_without_an_agent_the_ledger_is_read(booked: Path) -> None:
    answer = taximeter("account", "cus_7")
    assert (answer.code, answer.err) == (0, "")
    assert answer.lines[0].endswith("admitted")
    told = json.loads(taximeter("account", "cus_7", "--json").out)
    assert told["currencies"][0]["spend_ever"] == "0.0001262"


def test_an_account_that_nobody_knows_is_said_to_be_so(booked: Path) -> None:
    answer = taximeter("account", "nobody")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "taximeter: cannot find account 'nobody': expected one that this node knows\n"


def test_an_account_that_the_agent_does_not_know_is_told_in_its_words(state: Path) -> None:
    with agent.living({}):
        answer = taximeter("account", "a/b")
    assert (answer.code, answer.err) == (1, "taximeter: no such thing\n")


def test_many_models_are_listed_up_to_a_point(state: Path) -> None:
    models = [{"model": f"m{at}", "spend": "1", "limit": None} for at in range(30)]
    many = {**ACCOUNT, "currencies": [{**ACCOUNT["currencies"][0], "models": models}]}
    with agent.living({"/v1/accounts/cus_7": many}):
        out = taximeter("account", "cus_7").out
    assert "m19" in out
    assert "m20" not in out
    assert "and 10 more: see --json" in out


def test_an_account_that_spent_nothing_says_so(state: Path) -> None:
    nothing = {**ACCOUNT, "currencies": [], "denials": [], "cap": None, "prepaid": False}
    with agent.living({"/v1/accounts/cus_7": nothing}):
        out = taximeter("account", "cus_7").out
    assert "nothing yet" in out
    assert "afterwards" in out


def test_nothing_of_it_commands_the_terminal(hostile: Path) -> None:
    answer = taximeter("account", HOSTILE)
    assert answer.code == 0
    assert all(line.isprintable() for line in answer.lines)


# --- grant ---


def test_a_grant_is_asked_of_the_agent(state: Path) -> None:
    with agent.living({"POST /v1/accounts/cus_7/grants": (201, json.dumps(GRANTED).encode())}) as asked:
        answer = taximeter(*WORDS, "--expires", "2027-01-01")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "invoice-78: granted 25 USD to cus_7 until 2027-01-01 00:00:00.000 UTC\n"
    (body,) = asked.bodies
    assert json.loads(body) == {"id": "invoice-78", "amount": "25", "currency": "USD", "expires_utc": "2027-01-01"}


def test_a_grant_that_was_made_before_is_said_to_be(state: Path) -> None:
    again = {**GRANTED, "new": False, "expires_utc": None}
    with agent.living({"POST /v1/accounts/cus_7/grants": again}):
        answer = taximeter(*WORDS)
    assert (answer.code, answer.out) == (0, "invoice-78: was granted already: 25 USD to cus_7\n")


def test_a_grant_is_also_json(state: Path) -> None:
    with agent.living({"POST /v1/accounts/cus_7/grants": (201, json.dumps(GRANTED).encode())}):
        assert json.loads(taximeter(*WORDS, "--json").out) == GRANTED


def test_a_conflict_is_told_in_the_agents_words(state: Path) -> None:
    with agent.living({"POST /v1/accounts/cus_7/grants": (409, b'{"detail":"cannot grant: another one"}')}):
        answer = taximeter(*WORDS)
    assert (answer.code, answer.err) == (1, "taximeter: cannot grant: another one\n")


def test_without_an_agent_nothing_is_granted(booked: Path) -> None:
    answer = taximeter(*WORDS)
    assert (answer.code, answer.out) == (1, "")
    assert "cannot grant without an agent: expected a living `taximeter agent`" in answer.err


def test_a_grant_without_an_id_makes_no_sense(state: Path) -> None:
    assert taximeter("grant", "cus_7", "25", "USD").code == 2
