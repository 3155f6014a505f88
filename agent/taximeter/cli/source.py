"""Where the verbs get their answers: from the living agent over HTTP, or from the ledger, read-only.

    status, receipt, account    the agent, which knows what runs; else the ledger (hardware: the machine itself)
    records                     the ledger, which has everything; else (not readable for this user) the agent
    verify                      the ledger

Owns whom to ask; living.py asks the agent. Both sides give the same JSON-able values (observe/queries). Refuses to know
how they look.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from taximeter.cli import living
from taximeter.cli.living import Agent, NotFoundError, SourceError, living_agent
from taximeter.cli.text import safe
from taximeter.config.files import Directories, directories
from taximeter.errors import TaximeterError

if TYPE_CHECKING:
    from taximeter.observe.queries import Queries

Json = dict[str, Any]

#: For a receiver to be asked for some dozen records.
_RECONCILE_S = 600.0


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
                answer |= {"silent_pid": self.agent.pid, "problems": [living.silent(self.agent.pid)]}
        return answer

    def receipt(self, asked: str) -> Json | None:
        """Explain one run; None if it is not known."""
        if self.agent is not None:
            try:
                return living.get(self.agent, f"/v1/receipts/{quote(asked, safe='')}")
            except NotFoundError as error:
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
                return living.get(self.agent, f"/v1/accounts/{quote(asked, safe='')}")
            except NotFoundError as error:
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
        return living.post(self.agent, path, asked, (200, 201))

    def rerate(self, asked: Mapping[str, Any]) -> Json:
        """Have the agent rate what is unrated: it alone writes the ledger. Raises SourceError."""
        if self.agent is None:
            expected = "a living `taximeter agent`, which alone writes the ledger; start it, and rerate again"
            raise SourceError(f"cannot rerate without an agent: expected {expected}")
        return living.post(self.agent, "/v1/rerate", asked)

    def dead_letters(self, sink: str | None) -> list[Json]:
        """List what a sink, or any, refused though it takes others."""
        with self._ledger() as queries:
            return queries.dead_letters(sink)

    def treat_letters(self, order: Mapping[str, Any]) -> Json:
        """Have the agent try dead letters again, or give them up: it alone ships. Raises SourceError."""
        if self.agent is None:
            expected = "a living `taximeter agent`, which alone ships; start it, and try again"
            raise SourceError(f"cannot {order['do']} dead letters without an agent: expected {expected}")
        return living.post(self.agent, "/v1/deadletters", order)

    def reconcile(self, asked: Mapping[str, Any]) -> Json:
        """Have the agent look at some of what a receiver has: it alone ships. Raises SourceError."""
        if self.agent is None:
            raise SourceError(
                "cannot reconcile without an agent: expected a living `taximeter agent`, which alone ships"
            )
        return living.post(self.agent, "/v1/reconcile", asked, timeout_s=_RECONCILE_S)

    def hurry(self) -> None:
        """Have the agent ship at once, whatever it waits for. Raises SourceError."""
        if self.agent is None:
            raise SourceError("cannot drain without an agent: expected a living `taximeter agent`, which alone ships")
        living.drain(self.agent)

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
            return living.records_of(self.agent, asked, newest)
        return self._from_ledger(asked, newest)

    def verify(
        self,
        held: Iterable[str] = (),
        key: str | None = None,
        passed: Callable[[int], object] = lambda _: None,
        jobs: int | None = None,
    ) -> Json:
        """Audit the ledger, also by checkpoints that are held elsewhere, and the key that is to have signed all.

        `passed` is told now and then which number has been reached; `jobs` is by how many processes, if not one a core.
        """
        with self._ledger() as queries:
            return queries.verify(held, key, passed, jobs or len(os.sched_getaffinity(0)))

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
            return living.get(self.agent, path)
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
