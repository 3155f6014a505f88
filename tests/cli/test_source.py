"""Where answers come from: the living agent, else the ledger; and what is said when neither answers."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from taximeter.cli.living import living_agent
from tests.cli import agent
from tests.cli.node import instance, taximeter


def test_the_agent_is_asked_with_its_token(booked: Path) -> None:
    with agent.living({"/v1/receipts/p-one": (500, b"")}) as server:
        taximeter("receipt", "p-one")
    assert server.asked == ["/v1/receipts/p-one"]


def test_an_id_cannot_choose_the_path_that_is_asked(booked: Path) -> None:
    with agent.living({}) as server:
        taximeter("receipt", "../status?a=b#c d")
    assert server.asked == ["/v1/receipts/..%2Fstatus%3Fa%3Db%23c%20d"]


def test_what_the_agent_does_not_know_is_unknown(booked: Path) -> None:
    with agent.living({}):
        answer = taximeter("receipt", "p-one")
    assert answer.code == 1
    assert "cannot find 'p-one'" in answer.err


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (
            (500, b'{"detail":"the agent\'s log says what went wrong"}'),
            "expected 200, got 500 (the agent's log says what",
        ),
        ((500, b"\xff"), "expected 200, got 500 (no reason given)"),
        ((200, b"{"), "expected JSON"),
        ((200, b"[]"), "expected an object as answer"),
    ],
)
def test_an_agent_that_answers_badly_is_complained_about_and_the_ledger_asked(
    booked: Path, answer: tuple[int, bytes], complaint: str
) -> None:
    with agent.living({"/v1/receipts/p-one": answer}):
        said = taximeter("receipt", "p-one")
    assert said.code == 0
    assert said.lines[0].endswith("succeeded")
    assert complaint in said.err
    assert said.err.endswith("; read from the ledger instead\n")


def test_a_wrong_token_is_complained_about(booked: Path) -> None:
    with agent.living({}) as server:
        agent.say(f"http://127.0.0.1:{server.server_port}", token="old")
        said = taximeter("status")
    assert "expected 200, got 401 (expected the token)" in said.err


def test_an_agent_that_does_not_listen_is_complained_about(booked: Path) -> None:
    agent.say("http://127.0.0.1:1")
    said = taximeter("status")
    assert said.lines[0].endswith("no answer")
    assert "cannot ask the agent" in said.err
    assert "Connection refused" in said.err


def test_a_token_is_not_sent_to_whoever_listens_where_a_dead_agent_did(booked: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait(timeout=60)
    with agent.living({}) as server:
        agent.say(f"http://127.0.0.1:{server.server_port}", pid=dead.pid)
        taximeter("status")
    assert server.asked == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"url":"http://x"}', b'{"url":"x","token":"y","pid":-1}', b'{"pid":99999999999999}']
)
def test_what_is_no_agent_file_is_no_agent(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "agent").write_bytes(content)
    assert living_agent(tmp_path / "agent") is None


def test_an_agent_of_another_user_lives_though_it_may_not_be_signalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    (tmp_path / "agent").write_text('{"url":"http://127.0.0.1:1","token":"t","pid":1}')
    monkeypatch.setattr(os, "kill", refuse)
    found = living_agent(tmp_path / "agent")
    assert found is not None
    assert found.pid == 1


def test_records_are_read_from_the_ledger_also_while_an_agent_lives(booked: Path) -> None:
    with agent.living({}) as server:
        assert len(taximeter("records", "--json").lines) > 5
    assert server.asked == []


def test_records_come_from_the_agent_where_the_ledger_may_not_be_read(booked: Path) -> None:
    body = b'{"id":"a","data":{"ledger":{"seq":1}}}'
    (booked / "ledger.db").unlink()
    with agent.living({"/v1/records": (200, body + b"\n" + body + b"\n")}) as server:
        assert taximeter("records", "--json", "--account", "c").lines == [body.decode()] * 2
    assert server.asked == ["/v1/records?account=c&limit=1000&after=0"]


def test_of_the_agent_only_the_end_is_asked_where_no_more_is_wanted(state: Path) -> None:
    with agent.living({"/v1/records": (200, b'{"data":{"ledger":{"seq":7}}}\n')}) as server:
        assert len(taximeter("records", "--json", "--limit", "3", "--model", "m").lines) == 1
    assert server.asked == ["/v1/records?model=m&newest=3"]


def test_many_records_are_asked_for_page_by_page(state: Path) -> None:
    page = b"\n".join(b'{"data":{"ledger":{"seq":%d}}}' % number for number in range(1, 1001))
    with agent.living({"/v1/records": (200, page)}) as server:
        server.answers = _Pages(server, page)  # type: ignore[assignment]
        assert len(taximeter("records", "--json").lines) == 1000
    assert server.asked == ["/v1/records?limit=1000&after=0", "/v1/records?limit=1000&after=1000"]


class _Pages:
    """One full page, then nothing."""

    def __init__(self, server: agent.StandIn, page: bytes) -> None:
        self._server, self._page = server, page

    def get(self, path: str, missing: object) -> tuple[int, bytes]:
        return 200, (self._page if len(self._server.asked) == 1 else b"")


@pytest.mark.parametrize("verb", [["status"], ["records"], ["receipt", "x"], ["verify"]])
def test_a_node_that_has_no_ledger_yet_is_told_how_to_get_one(state: Path, verb: list[str]) -> None:
    answer = taximeter(*verb)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == (
        f"taximeter: cannot read {state}/ledger.db: expected a ledger, which `taximeter agent` begins; run it once\n"
    )


def test_what_is_no_ledger_is_one_clear_line(state: Path) -> None:
    state.mkdir()
    (state / "ledger.db").write_bytes(b"no ledger" * 1000)
    answer = taximeter("status")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("taximeter: cannot ")
    assert len(answer.err.splitlines()) == 1


def test_a_running_prediction_is_explained_by_the_agent(booked: Path) -> None:
    pending = json.loads(taximeter("receipt", "p-one", "--json").out) | {
        "id": "p-new",
        "prediction": "p-new",
        "instance": instance(9),
        "status": None,
        "pending": True,
        "pending_why": "it still runs",
        "time": {},
        "phases": {},
        "timing": None,
        "exit": None,
        "records": [],
        "records_total": 0,
        "ended_utc": None,
        "node": None,
        "resources": None,
        "class": "public",
        "billing": {"status": None, "lines": [], "corrections": [], "rate_cards": [], "amount": None, "reason": None},
        "total": {"amount": None, "currency": None},
    }
    with agent.living({"/v1/receipts/p-new": pending}):
        answer = taximeter("receipt", "p-new")
    assert answer.code == 0
    assert answer.lines[0].endswith("pending")
    assert " pending     it still runs" in answer.lines
    assert " until       not known yet" in answer.lines
    assert " status      not known yet" in answer.lines
    assert not any("Evidence" in line for line in answer.lines)
