"""Answers questions about a node as JSON-able values: for the HTTP API and, without an agent, for the CLI.

Owns what each answer is made of: the ledger for what is written, the snapshot (where an agent lives) for what
runs. Blocks on the ledger, so the API calls it in a thread, one question at a time. Refuses to write.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import orjson

from taximeter.billing.credit import Grant
from taximeter.billing.invoice import Rounding
from taximeter.hardware.tiers import match
from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.ledger.runs import Kind
from taximeter.ledger.unsealed import unsealed
from taximeter.ledger.values import HOUR_NS
from taximeter.observe import models, tree
from taximeter.observe.accounts import account_view
from taximeter.observe.calling import all_calls
from taximeter.observe.estimate import KINDS_LISTED, Known, Prices, chosen, estimate, names_of, prices_of
from taximeter.observe.explained import explained
from taximeter.observe.finding import Receipts
from taximeter.observe.letters import letter_view
from taximeter.observe.offers import offers
from taximeter.observe.snapshot import InstanceView, SinkView, Snapshot
from taximeter.observe.state import by_phase, instance_view, pool_view, rates_view, sink_view
from taximeter.records import RecordType, utc_text

#: Status tells of pools since the hour that began so many hours before this one.
POOL_HOURS = 24

Json = dict[str, Any]


class Queries:
    """Questions to one node: `reader` is its ledger, `snapshot` gives the living agent's view, if there is one."""

    def __init__(
        self,
        reader: LedgerReader,
        snapshot: Callable[[], Snapshot] | None = None,
        invoice: Mapping[str, Rounding] | None = None,
    ) -> None:
        """Keep at hand what is asked; `invoice` says how sums are rounded where they are paid, by currency."""
        self._reader = reader
        self._snapshot = snapshot
        self._invoice = invoice or {}
        self._receipts = Receipts(reader, snapshot, self._invoice)

    def at(self, view: Snapshot) -> "Queries":
        """Answer from this one view: what runs is looked at in the event loop, the ledger in a thread."""
        return Queries(self._reader, lambda: view, self._invoice)

    def status(self) -> Json:
        """Say how the node is: agent, ledger, sinks, how much runs; without an agent, what the ledger knows."""
        head = self._reader.head
        ledger = {"id": head.ledger_id, "seq": head.seq, "hash": head.hash}
        if self._snapshot is None:
            return self._status_of_ledger() | {"ledger": ledger, "pools": self._pools()}
        view = self._snapshot()
        return {
            "agent": {"version": view.version, "started_utc": view.started_utc, "config": view.config},
            "ready": view.ready,
            "node": {"id": view.node, "region": view.region, "tier": view.node_tier},
            "ledger": ledger,
            "sinks": [sink_view(sink) for sink in view.sinks],
            "witness": asdict(view.witness),
            "instances": by_phase(view),
            "rates": rates_view(view),
            "pools": self._pools(),
            "reader_lag_s": view.reader_lag_s,
            "problems": list(view.problems),
        }

    def _status_of_ledger(self) -> Json:
        """Say what is known with no agent running; the keys are the same, what nobody can know is null."""
        node = {"id": self._reader.node_id, "region": None, "tier": None}
        letters = Counter(letter.sink for letter in self._reader.dead_letters())
        pending = self._reader.sinks().items()
        sinks = [sink_view(SinkView(name, None, count, dead_letters=letters[name])) for name, count in pending]
        problems = ["no agent is running: what runs now is measured, and booked when one starts"]
        nothing = {
            "agent": None,
            "ready": False,
            "witness": None,
            "instances": None,
            "rates": None,
            "reader_lag_s": None,
        }
        return nothing | {"node": node, "sinks": sinks, "problems": problems}

    def dead_letters(self, sink: str | None = None, limit: int | None = None) -> list[Json]:
        """List what a sink, or any, refused though it takes others."""
        return [letter_view(letter) for letter in self._reader.dead_letters(sink, limit)]

    def _pools(self) -> list[Json]:
        """Tell how the time of pools was used in the last 24 hours and some minutes, the largest first."""
        since_hour = time.time_ns() // HOUR_NS - POOL_HOURS
        pools = sorted(self._reader.pools(since_hour).items(), key=lambda pair: (-pair[1].wall, pair[0]))
        return [pool_view(name, used, utc_text(since_hour * HOUR_NS)) for name, used in pools]

    def instances(self) -> list[Json]:
        """List what runs now; nothing, where no agent lives to see it."""
        return [instance_view(view) for view in self._views()]

    def records(self, wanted: RecordFilter) -> Iterator[bytes]:
        """Give the stored bytes of the records that `wanted` names, oldest first."""
        return self._reader.records(wanted)

    def receipt(self, asked: str, *, calls: bool = True) -> Json | None:
        """Explain the run of a prediction, of an instance, or of a record's id; None if none is known by it."""
        return self._receipts.receipt(asked, calls=calls)

    def last_run(self, asked: str) -> Json | None:
        """Explain one run: the last, where several bear the id."""
        return self._receipts.last_run(asked)

    def unknown(self, asked: str) -> str:
        """Say that no receipt is known by `asked`, and what may have been meant."""
        return self._receipts.unknown(asked)

    def account(self, asked: str) -> Json | None:
        """Tell what an account spent, crossed and has; None where this node knows nothing of it."""
        kept, rules = self._reader.statement(asked), self._reader.spending_rules()
        named = asked in rules.credit.named or asked in rules.thresholds.accounts
        if named or kept.spends or kept.purses or any(self._reader.records(RecordFilter(account=asked, limit=1))):
            return account_view(asked, kept, rules, time.time_ns())
        return None

    def granted(self, grant_id: str) -> Grant | None:
        """Give the grant of that id, if there is one."""
        return self._reader.grant(grant_id)

    def hardware(self) -> list[Json]:
        """List what is sold, with prices, what this node has first; nothing, where no agent lives to say it."""
        view = self._snapshot() if self._snapshot else None
        return [] if view is None else offers(view.catalogue, view.card, view.hardware)

    def devices(self) -> Json:
        """Tell devices, host and the tier they are sold as; null where no agent has looked."""
        view = self._snapshot() if self._snapshot else None
        if view is None or view.hardware is None:
            return {"tier": None, "rule": None, "host": None, "devices": [], "problems": []}
        read = asdict(view.hardware)
        for device, written in zip(view.hardware.devices, read["devices"], strict=True):
            if view.catalogue is not None:
                alone = match((device,), view.hardware.host, view.catalogue)
                written |= {"tier": alone.tier, "rule": alone.rule}
        return {"tier": view.node_tier, "rule": view.node_tier_rule, **read}

    def explained(self) -> Json:
        """Tell which rules were tried on the node, each device and each instance, and why they missed."""
        view = self._snapshot() if self._snapshot else None
        if view is None or view.hardware is None or view.catalogue is None:
            return {"node": None, "devices": [], "instances": []}
        return explained(view.hardware, view.catalogue, view.instances)

    def estimate(self, wanted: Kind, prices: Prices | None = None) -> Json:
        """Estimate what a run of a model takes and costs; by `prices`, or by those of the living agent."""
        prices = prices or self._prices()
        kinds = [one for name in names_of(prices.card, wanted.model) for one in self._reader.kinds(name)]
        seen = chosen(kinds, wanted)
        runs = self._reader.runs(one.kind for one in seen[:KINDS_LISTED])
        known = Known(runs, len(seen) - len(runs), self._reader.calls(), [] if runs else self._models())
        return estimate(wanted, known, prices)

    def models(self) -> list[Json]:
        """List the models of the card in force, and those that ran here, in the platform's shape."""
        prices = self._prices()
        runs = self._reader.runs(models.to_read(self._reader.kinds(), prices))
        return models.listed(runs, self._reader.calls(), prices)

    def public_models(self, listed: list[Json]) -> list[Json]:
        """Of listed models what anybody may know."""
        return models.public(listed, self._prices())

    def _prices(self) -> Prices:
        view = self._snapshot() if self._snapshot else None
        return Prices() if view is None else prices_of(view.card, view.terms, view.catalogue)

    def _models(self) -> list[str]:
        """The models of which runs are known, those with most runs first."""
        ended: dict[str, int] = {}
        for one in self._reader.kinds():
            ended[one.kind.model] = ended.get(one.kind.model, 0) + one.ended
        return sorted(ended, key=lambda name: (-ended[name], name))

    def newest(self) -> int:
        """The number of the ledger's newest record."""
        return self._reader.head.seq

    def verify(
        self,
        held: Iterable[str] = (),
        key: str | None = None,
        passed: Callable[[int], object] = lambda _: None,
        jobs: int = 1,
    ) -> Json:
        """Audit the whole ledger: every fault, by record; and what is worth a look in who called whom, no fault.

        `held` are notes of checkpoints that are kept elsewhere; `key` is the public key that is to have signed all.
        `passed` is told now and then which number has been reached. With several `jobs` the records are looked at by so
        many processes; what is found is the same. Raises TaximeterError where one of those fails.
        """
        from taximeter.ledger import crew  # noqa: PLC0415 -- an agent, which answers here too, starts no such process

        with crew.outlines_of(self._reader, jobs) as outlines:
            report = audit(self._reader, passed, outlines)
        faults: list[Json] = [{"seq": fault.seq, "id": fault.id, "what": fault.what} for fault in report.faults]
        faults += [{"seq": None, "id": "", "what": what} for what in self._unsealed(held, key)]
        notes = tree.found(finding for calls in all_calls(self._reader) for finding in calls.tree.findings)
        noted = {"notes": notes["findings"], "notes_total": notes["findings_total"]}
        return {"ok": not faults, "records": report.records, "faults": faults} | noted

    def _unsealed(self, held: Iterable[str], key: str | None) -> Iterator[str]:
        wanted = RecordFilter(type=RecordType.CHECKPOINT)
        told = (orjson.loads(body)["data"].get("key") for body in self._reader.records(wanted))
        keys = tuple(dict.fromkeys(str(one) for one in told))
        if key is not None and any(other != key for other in keys):
            yield f"was sealed with another key than {key}: {', '.join(other for other in keys if other != key)}"
        for note in held:
            signer = key or (keys[-1] if keys else "")
            reader = self._reader
            yield from unsealed(note, signer, reader.head.ledger_id, reader.hash_at, reader.base.seq)

    def _views(self) -> tuple[InstanceView, ...]:
        return self._snapshot().instances if self._snapshot else ()
