"""Asks the living agent over HTTP: who it is, and its answers.

Owns what is said of an agent that gives none. Refuses to know what the answers mean.
"""

import http.client
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from taximeter.errors import TaximeterError

Json = dict[str, Any]

_TIMEOUT_S = 5.0
_MOST_BYTES = 64 << 20
_PAGE = 1000
_NDJSON = "application/x-ndjson"
#: Answers that say what is wrong with the request, and need no more words.
_ITS_OWN_WORDS = (http.client.BAD_REQUEST, http.client.CONFLICT, http.client.BAD_GATEWAY)


class SourceError(TaximeterError):
    """Nobody could answer; the text says who was asked, and what to do."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Where a living agent listens, and the word that opens its API."""

    url: str
    token: str
    pid: int


class NotFoundError(SourceError):
    """The agent answered that there is no such thing."""


def living_agent(path: Path) -> Agent | None:
    """Return what the run directory says of the agent, if that process lives; a file that was left behind is none."""
    try:
        said = json.loads(path.read_bytes())
        agent = Agent(str(said["url"]), str(said["token"]), int(said["pid"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return agent if _lives(agent.pid) else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # there is one, of another user
    except (OSError, OverflowError):
        return False
    return pid > 0


def silent(pid: int) -> str:
    """Say what to do about an agent that lives and gave no answer that can be used."""
    stopped = f"if it is stopped (state T in `ps -o stat= -p {pid}`), `kill -CONT {pid}` wakes it"
    return f"the agent (pid {pid}) does not answer: {stopped}; else see its log, and restart it: nothing is lost"


def get(agent: Agent, path: str) -> Json:
    """Give the agent's answer; SourceError says why there is none, NotFoundError that there is no such thing."""
    return _object(*_ask(agent, ("GET", path, None)))


def post(
    agent: Agent, path: str, asked: Mapping[str, Any], good: Sequence[int] = (200,), timeout_s: float = _TIMEOUT_S
) -> Json:
    """Have the agent do what is asked, and give its answer, of one of the `good` statuses. Raises SourceError."""
    return _object(*_ask(agent, ("POST", path, json.dumps(asked).encode()), good, timeout_s=timeout_s))


def drain(agent: Agent) -> None:
    """Have the agent ship at once. Raises SourceError."""
    _ask(agent, ("POST", "/v1/drain", b""), (202,))


def records_of(agent: Agent, asked: Mapping[str, str], newest: int | None) -> Iterator[bytes]:
    """Give the bodies of records: ask for the end in one piece where it fits one, else for everything, page by page."""
    if newest is not None and newest <= _PAGE:
        return iter(_page(agent, {**asked, "newest": newest}))
    bodies = _pages(agent, asked)
    return bodies if newest is None else iter(deque(bodies, maxlen=newest))


def _pages(agent: Agent, asked: Mapping[str, str]) -> Iterator[bytes]:
    after = 0
    while True:
        lines = _page(agent, {**asked, "limit": _PAGE, "after": after})
        yield from lines
        if len(lines) < _PAGE:
            return
        after = json.loads(lines[-1])["data"]["ledger"]["seq"]


def _page(agent: Agent, query: Mapping[str, str | int]) -> list[bytes]:
    _, body = _ask(agent, ("GET", f"/v1/records?{urlencode(query)}", None), accept=_NDJSON)
    return [line for line in body.split(b"\n") if line]


def _ask(
    agent: Agent,
    request: tuple[str, str, bytes | None],
    good: Sequence[int] = (200,),
    accept: str = "application/json",
    timeout_s: float = _TIMEOUT_S,
) -> tuple[str, bytes]:
    """Return who was asked, and the body of an answer to a request (method, path and body) with a `good` status."""
    where = urlsplit(agent.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=timeout_s)
    who = f"cannot ask the agent (pid {agent.pid}) at {agent.url}"
    try:
        connection.request(*request, headers={"Authorization": f"Bearer {agent.token}", "Accept": accept})
        response = connection.getresponse()
        body = response.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SourceError(f"{who}: expected an answer within {timeout_s:g} s ({error})") from error
    finally:
        connection.close()
    if response.status == http.client.NOT_FOUND:
        raise NotFoundError(_detail(body))
    if response.status in _ITS_OWN_WORDS:
        raise SourceError(_detail(body))
    if response.status not in good:
        raise SourceError(f"{who}: expected {good[0]}, got {response.status} ({_detail(body)})")
    return who, body


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, TypeError, KeyError):
        return "no reason given"


def _object(who: str, body: bytes) -> Json:
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise SourceError(f"{who}: expected JSON ({error})") from error
    if not isinstance(answer, dict):
        raise SourceError(f"{who}: expected an object as answer")
    return answer
