"""Where the verbs get their answers: from the living agent over HTTP, or from the ledger, read-only.

    status, receipt, account    the agent, which knows what runs; else the ledger (hardware: the machine itself)
    records                     the ledger, which has everything; else (not readable for this user) the agent
    verify                      the ledger

Owns finding and asking the agent. Both sides give the same JSON-able values (observe/queries). Refuses to know
how they look.
"""

import http.client
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from taximeter.cli.text import safe
from taximeter.config.files import Directories, directories
from taximeter.errors import TaximeterError

if TYPE_CHECKING:
    from taximeter.observe.queries import Queries

Json = dict[str, Any]

_TIMEOUT_S = 5.0
#: For a receiver to be asked for some dozen records.
_RECONCILE_S = 600.0
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


class Source:
    """Answers about this node."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.directories: Directories = directories(environ)
        self.agent: Agent | None = living_agent(self.directories.agent_file)
        self.complaint: str | None = None  #: why the agent, though it lives, was not the one who answered
        self.unknown: str | None = None  #: why there is no receipt, in the words of whoever was asked

    def complain(self) -> None:
        """Say on stderr why the ledger answered in the agent's stead, if it did."""
        if self.complaint:
            print(f"taximeter: {safe(self.complaint)}; read from the ledger instead", file=sys.stderr)

    def status(self) -> Json:
        """Say how the node is."""
        answer = self._asked("/v1/status")
        if answer is None:
            with self._ledger() as queries:
                answer = queries.status()
            if self.agent is not None:
                answer |= {"silent_pid": self.agent.pid, "problems": [_silent(self.agent.pid)]}
        return answer

    def receipt(self, asked: str) -> Json | None:
        """Explain one run; None if it is not known."""
        if self.agent is not None:
            try:
                return _json(*_get(self.agent, f"/v1/receipts/{quote(asked, safe='')}"))
            except _NotFoundError as error:
                self.unknown = str(error)
                return None
            except SourceError as error:
                self.complaint = str(error)
        with self._ledger() as queries:
            found = queries.receipt(asked)
            self.unknown = None if found else queries.unknown(asked)
            return found

    def account(self, asked: str) -> Json | None:
        """Tell what an account spent and has; None if it is not known."""
        if self.agent is not None:
            try:
                return _json(*_get(self.agent, f"/v1/accounts/{quote(asked, safe='')}"))
            except _NotFoundError as error:
                self.unknown = str(error)
                return None
            except SourceError as error:
                self.complaint = str(error)
        with self._ledger() as queries:
            found = queries.account(asked)
        self.unknown = None if found else f"cannot find account {asked[:256]!r}: expected one that this node knows"
        return found

    def grant(self, account: str, asked: Mapping[str, str | None]) -> Json:
        """Have the agent grant credit: it alone writes the ledger. Raises SourceError."""
        if self.agent is None:
            expected = "a living `taximeter agent`, which alone writes the ledger; start it, and grant again"
            raise SourceError(f"cannot grant without an agent: expected {expected}")
        path = f"/v1/accounts/{quote(account, safe='')}/grants"
        return _json(*_ask(self.agent, ("POST", path, json.dumps(asked).encode()), (200, 201)))

    def rerate(self, asked: Mapping[str, Any]) -> Json:
        """Have the agent rate what is unrated: it alone writes the ledger. Raises SourceError."""
        if self.agent is None:
            expected = "a living `taximeter agent`, which alone writes the ledger; start it, and rerate again"
            raise SourceError(f"cannot rerate without an agent: expected {expected}")
        return _json(*_ask(self.agent, ("POST", "/v1/rerate", json.dumps(asked).encode()), (200,)))

    def dead_letters(self, sink: str | None) -> list[Json]:
        """List what a sink, or any, refused though it takes others."""
        with self._ledger() as queries:
            return queries.dead_letters(sink)

    def treat_letters(self, order: Mapping[str, Any]) -> Json:
        """Have the agent try dead letters again, or give them up: it alone ships. Raises SourceError."""
        if self.agent is None:
            expected = "a living `taximeter agent`, which alone ships; start it, and try again"
            raise SourceError(f"cannot {order['do']} dead letters without an agent: expected {expected}")
        return _json(*_ask(self.agent, ("POST", "/v1/deadletters", json.dumps(order).encode()), (200,)))

    def reconcile(self, asked: Mapping[str, Any]) -> Json:
        """Have the agent look at some of what a receiver has: it alone ships. Raises SourceError."""
        if self.agent is None:
            raise SourceError(
                "cannot reconcile without an agent: expected a living `taximeter agent`, which alone ships"
            )
        request = ("POST", "/v1/reconcile", json.dumps(asked).encode())
        return _json(*_ask(self.agent, request, (200,), timeout_s=_RECONCILE_S))

    def hurry(self) -> None:
        """Have the agent ship at once, whatever it waits for. Raises SourceError."""
        if self.agent is None:
            raise SourceError("cannot drain without an agent: expected a living `taximeter agent`, which alone ships")
        _ask(self.agent, ("POST", "/v1/drain", b""), (202,))

    def devices(self) -> Json | None:
        """Tell what the agent found; None where no agent has looked."""
        answer = self._asked("/v1/devices")
        return answer if answer and answer.get("host") else None

    def explained(self) -> Json | None:
        """Tell which rules the agent tries on what; None where no agent has looked."""
        answer = self._asked("/v1/devices/explained")
        return answer if answer and answer.get("node") else None

    def estimate(self, model: str, version: str | None, tier: str | None) -> Json:
        """Estimate what a run of a model takes and costs; without an agent, by the prices of the configuration."""
        narrowed = {name: said for name, said in (("version", version), ("tier", tier)) if said}
        answer = self._asked(f"/v1/estimates/{quote(model, safe='')}?{urlencode(narrowed)}")
        if answer is not None:
            return answer
        from taximeter.config import load  # noqa: PLC0415 - only where no agent knows the prices
        from taximeter.events import ServiceClass  # noqa: PLC0415
        from taximeter.ledger.runs import Kind  # noqa: PLC0415
        from taximeter.observe.estimate import prices_of  # noqa: PLC0415

        config = load(None, os.environ)
        terms = config.billing.classes.terms[ServiceClass.PUBLIC]
        with self._ledger() as queries:
            wanted = Kind(model, version or "", tier or "")
            return queries.estimate(wanted, prices_of(config.rate_card, terms, config.catalogue))

    def records(self, asked: Mapping[str, str], newest: int | None) -> Iterator[bytes]:
        """Give the bodies of the records that the filters name, oldest first; only the last `newest` of them."""
        if self.agent and not os.access(self.directories.ledger, os.R_OK):
            return _from_agent(self.agent, asked, newest)
        return self._from_ledger(asked, newest)

    def verify(
        self, held: Iterable[str] = (), key: str | None = None, passed: Callable[[int], object] = lambda _: None
    ) -> Json:
        """Audit the ledger, also by checkpoints that are held elsewhere, and the key that is to have signed all.

        `passed` is told now and then which number has been reached.
        """
        with self._ledger() as queries:
            return queries.verify(held, key, passed)

    def newest(self) -> int | None:
        """The number of the ledger's newest record; None where it cannot be read."""
        try:
            with self._ledger() as queries:
                return queries.newest()
        except TaximeterError:
            return None

    def _from_ledger(self, asked: Mapping[str, str], newest: int | None) -> Iterator[bytes]:
        from taximeter.observe.filters import filter_of  # noqa: PLC0415 - SQLite, only where it is read

        wanted = replace(filter_of(asked), limit=None, newest=newest)
        with self._ledger() as queries:
            yield from queries.records(wanted)

    def _asked(self, path: str) -> Json | None:
        """Ask the agent, if one lives; one that does not answer is complained about, and the ledger is asked."""
        if self.agent is None:
            return None
        try:
            return _json(*_get(self.agent, path))
        except SourceError as error:
            self.complaint = str(error)
            return None

    @contextmanager
    def _ledger(self) -> "Iterator[Queries]":
        from taximeter.ledger.reader import LedgerReader  # noqa: PLC0415 - SQLite, only where it is read
        from taximeter.observe.queries import Queries  # noqa: PLC0415

        path = self.directories.ledger
        if not os.access(path, os.F_OK) and (not path.parent.exists() or os.access(path.parent, os.X_OK)):
            raise SourceError(f"cannot read {path}: expected a ledger, which `taximeter agent` begins; run it once")
        if not os.access(path, os.R_OK):
            raise SourceError(f"cannot read {path}: expected leave to; ask as root or as the agent's user")
        reader = LedgerReader(path)
        try:
            yield Queries(reader)
        finally:
            reader.close()


class _NotFoundError(SourceError):
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


def _silent(pid: int) -> str:
    """Say what to do about an agent that lives and gave no answer that can be used."""
    stopped = f"if it is stopped (state T in `ps -o stat= -p {pid}`), `kill -CONT {pid}` wakes it"
    return f"the agent (pid {pid}) does not answer: {stopped}; else see its log, and restart it: nothing is lost"


def _from_agent(agent: Agent, asked: Mapping[str, str], newest: int | None) -> Iterator[bytes]:
    """Ask for the end in one piece where it fits one, else for everything, page by page."""
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
    _, body = _get(agent, f"/v1/records?{urlencode(query)}", accept=_NDJSON)
    return [line for line in body.split(b"\n") if line]


def _get(agent: Agent, path: str, accept: str = "application/json") -> tuple[str, bytes]:
    """Return whom was asked, and the body of an answer; SourceError names who did not give one."""
    return _ask(agent, ("GET", path, None), accept=accept)


def _ask(
    agent: Agent,
    request: tuple[str, str, bytes | None],
    good: Sequence[int] = (200,),
    accept: str = "application/json",
    timeout_s: float = _TIMEOUT_S,
) -> tuple[str, bytes]:
    """The same of any request: its method, path and body, and the statuses of a good answer."""
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
        raise _NotFoundError(_detail(body))
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


def _json(who: str, body: bytes) -> Json:
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise SourceError(f"{who}: expected JSON ({error})") from error
    if not isinstance(answer, dict):
        raise SourceError(f"{who}: expected an object as answer")
    return answer
