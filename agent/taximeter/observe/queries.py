"""Answers questions about a node as JSON-able values: for the HTTP API and, without an agent, for the CLI.

Owns what each answer is made of: the ledger for what is written, the snapshot (where an agent lives) for what
runs. Blocks on the ledger, so the API calls it in a thread, one question at a time. Refuses to write.
"""

import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import orjson

from taximeter.billing.credit import Grant
from taximeter.billing.invoice import Rounding
from taximeter.errors import TaximeterError
from taximeter.hardware.tiers import match
from taximeter.ledger.audit import audit, unsealed
from taximeter.ledger.chain import hash_of
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.ledger.runs import Kind
from taximeter.ledger.values import HOUR_NS, POOL_PHASES, PoolTime
from taximeter.observe import models, tree
from taximeter.observe import receipt as receipts
from taximeter.observe.accounts import account_view
from taximeter.observe.calling import Calls, all_calls, calls_of
from taximeter.observe.estimate import KINDS_LISTED, Known, Prices, chosen, estimate, names_of, prices_of
from taximeter.observe.explained import explained
from taximeter.observe.letters import letter_view
from taximeter.observe.offers import offers
from taximeter.observe.since import since_ns
from taximeter.observe.snapshot import InstanceView, PredictionView, SinkView, Snapshot
from taximeter.observe.sums import Item, Run, fold, fold_each
from taximeter.records import RecordType, utc_text

#: Status tells of pools since the hour that began so many hours before this one.
POOL_HOURS = 24

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
SEQ_MAX = 2**63 - 1
#: What records are filtered by; each narrows the answer.
FILTERS = ("since", "account", "model", "prediction", "instance", "root", "type", "limit", "newest", "after")

#: An id that somebody cut short has at least as much: fewer characters would name half the ledger.
_BEGINNING = re.compile(r"[0-9a-f][0-9a-f-]{3,35}")
#: Short for the records' types, so that a person can type them.
_TYPES = {name.rsplit(".", 2)[1]: name for name in (kind.value for kind in RecordType)}

Json = dict[str, Any]


class QuestionError(TaximeterError):
    """A question that cannot be answered as it was put."""


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
            "sinks": [_sink(sink) for sink in view.sinks],
            "witness": asdict(view.witness),
            "instances": _by_phase(view),
            "rates": _rates(view),
            "pools": self._pools(),
            "reader_lag_s": view.reader_lag_s,
            "problems": list(view.problems),
        }

    def _status_of_ledger(self) -> Json:
        """Say what is known with no agent running; the keys are the same, what nobody can know is null."""
        node = {"id": self._reader.node_id, "region": None, "tier": None}
        letters = Counter(letter.sink for letter in self._reader.dead_letters())
        pending = self._reader.sinks().items()
        sinks = [_sink(SinkView(name, None, count, dead_letters=letters[name])) for name, count in pending]
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
        return [_pool(name, used, utc_text(since_hour * HOUR_NS)) for name, used in pools]

    def instances(self) -> list[Json]:
        """List what runs now; nothing, where no agent lives to see it."""
        return [_instance(view) for view in self._views()]

    def records(self, wanted: RecordFilter) -> Iterator[bytes]:
        """Give the stored bytes of the records that `wanted` names, oldest first."""
        return self._reader.records(wanted)

    def receipt(self, asked: str, *, calls: bool = True) -> Json | None:
        """Explain the run of a prediction, of an instance, or of a record's id; None if none is known by it.

        Without `calls`, whom it called and who called it is left out, which may be much. An instance's id is its own:
        a worker can call its predictions anything, and shall not hide another's receipt.
        """
        found = self._of_prediction(asked, calls=calls)
        if found is None or found["instances"] != [asked]:
            found = self._of_instance(asked) or found or self._of_record(asked)
        return found if found is None else found | {"total": receipts.with_invoiced(found["total"], self._invoice)}

    def last_run(self, asked: str) -> Json | None:
        """Explain one run, so that its time and price fit its cost: the last, where several bear the id."""
        whole = self.receipt(asked, calls=False)
        if whole is None or whole["pending"] or len(whole["instances"]) < 2:
            return whole
        own = fold(self._items(prediction=asked, instance=whole["instance"]))
        return whole | receipts.of_prediction(asked, own, self._instance_of(own)) | {"runs": whole["runs"]}

    def unknown(self, asked: str) -> str:
        """Say that no receipt is known by `asked`, and what may have been meant."""
        if not asked:
            return "cannot find a receipt: expected the id of a prediction or an instance, got an empty word"
        said = f"cannot find {asked[:256]!r}: "
        if next(self._reader.of_root(asked), None):
            called = (
                f"predictions that it called have, `taximeter records --root {shlex.quote(asked[:256])}` lists them"
            )
            return f"{said}it has no record here, and {called}"
        begun = self._reader.begun_by(asked) if _BEGINNING.fullmatch(asked) else ()
        if len(begun) > 1:
            return f"{said}ambiguous: it begins the ids of at least {len(begun)} instances; expected one id in full"
        if begun:
            return f"{said}expected an id in full, as in {begun[0]}"
        return f"{said}expected the id of a prediction or an instance; `taximeter records` lists them"

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
        self, held: Iterable[str] = (), key: str | None = None, passed: Callable[[int], object] = lambda _: None
    ) -> Json:
        """Audit the whole ledger: every fault, by record; and what is worth a look in who called whom, no fault.

        `held` are notes of checkpoints that are kept elsewhere; `key` is the public key that is to have signed all.
        `passed` is told now and then which number has been reached.
        """
        report = audit(self._reader, passed)
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

    def _items(self, **wanted: Any) -> Iterator[Item]:
        for body in self._reader.records(RecordFilter(**wanted)):
            yield Item(orjson.loads(body), hash_of(body))

    def _of_prediction(self, asked: str, *, calls: bool) -> Json | None:
        own = fold(self._items(prediction=asked))
        seen = _find(self._views(), asked)
        if own.last is None and seen is None:
            return None
        kin = calls_of(self._reader, self._views(), asked) if calls else None
        if own.last is None and seen is not None:
            return self._pending(asked, kin, *seen)
        built = receipts.of_prediction(asked, own, self._instance_of(own), kin)
        return self._explained(built, running=seen is not None)

    def _instance_of(self, prediction: Run) -> Run:
        """Add up the instance that a prediction ran on, the last of them."""
        return fold(self._items(instance=(prediction.last or {})["instance"], type=RecordType.INSTANCE))

    def _of_instance(self, asked: str) -> Json | None:
        items = (item for item in self._items(instance=asked) if item.event["type"] != RecordType.FACT)
        own, predictions, total = fold_each(items)
        view = next((view for view in self._views() if view.instance == asked), None)
        if own.last is None and not predictions:
            return self._pending(asked, None, view) if view else None
        built = receipts.of_instance(asked, own, predictions, total)
        return self._explained(built, running=view is not None)

    def _of_record(self, asked: str) -> Json | None:
        instance = next((item.data.get("instance") for item in self._items(id=asked)), None)
        return self._of_instance(instance) if instance else None

    def _pending(
        self, asked: str, calls: Calls | None, view: InstanceView, prediction: PredictionView | None = None
    ) -> Json:
        lead, kind = prediction or view, "prediction" if prediction else "instance"
        seen = {
            "instance": view.instance,
            "prediction": prediction.prediction if prediction else None,
            "parent": prediction.parent if prediction else None,
            "root": prediction.root if prediction else None,
            **{name: getattr(lead, name) for name in ("account", "model", "version", "pool", "started_utc")},
            "class": lead.service_class,
            "hardware": {"tier": view.tier, "count": len(view.devices), "rule": view.rule},
        }
        return self._explained(receipts.of_pending(asked, kind, seen, calls), running=True)

    def _explained(self, receipt: Json, *, running: bool) -> Json:
        if not receipt["pending"]:
            return receipt
        if running:
            why = "it still runs: sums are of the records so far, the final record comes when it ends"
        elif self._snapshot is None:
            why = "the final record is not written yet, and no agent runs that would write it: start one"
        else:
            why = "the final record is not written yet"
        return receipt | {"pending_why": why}


def filter_of(asked: Mapping[str, str]) -> RecordFilter:
    """Read the filters of a question for records, written as in a query string; QuestionError names what is wrong."""
    unknown = sorted(set(asked) - set(FILTERS))
    if unknown:
        raise QuestionError(f"cannot filter by {unknown[0][:40]!r}: expected some of {', '.join(FILTERS)}")
    kind = asked.get("type")
    if kind is not None and kind not in _TYPES and kind not in _TYPES.values():
        raise QuestionError(f"cannot filter by type = {kind[:40]!r}: expected one of {', '.join(_TYPES)}")
    return RecordFilter(
        since_utc_ns=_since_ns(asked["since"], time.time_ns()) if "since" in asked else None,
        account=asked.get("account"),
        model=asked.get("model"),
        prediction=asked.get("prediction"),
        instance=asked.get("instance"),
        root=asked.get("root"),
        type=None if kind is None else _TYPES.get(kind, kind),
        limit=_number(
            "limit", asked.get("limit", str(LIMIT_MAX if "newest" in asked else LIMIT_DEFAULT)), 1, LIMIT_MAX
        ),
        newest=_number("newest", asked["newest"], 1, LIMIT_MAX) if "newest" in asked else None,
        after_seq=_number("after", asked.get("after", "0"), 0, SEQ_MAX),
    )


def kind_of(model: str, asked: Mapping[str, str]) -> Kind:
    """Read of what an estimate is wanted, and what it is narrowed to; QuestionError names what is wrong."""
    unknown = sorted(set(asked) - {"version", "tier"})
    if unknown:
        raise QuestionError(f"cannot estimate by {unknown[0][:40]!r}: expected version or tier")
    return Kind(model, asked.get("version", ""), asked.get("tier", ""))


def _since_ns(text: str, now_ns: int) -> int:
    try:
        return since_ns(text, now_ns)
    except ValueError as error:
        raise QuestionError(f"cannot filter by since = {text[:40]!r}: {error}") from error


def _number(name: str, text: str, least: int, most: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most:
        return int(text)
    raise QuestionError(f"cannot use {name} = {text[:40]!r}: expected a number from {least} to {most}")


def _find(views: tuple[InstanceView, ...], prediction: str) -> tuple[InstanceView, PredictionView] | None:
    pairs = ((view, own) for view in views for own in view.predictions)
    return next((pair for pair in pairs if pair[1].prediction == prediction), None)


def _by_phase(view: Snapshot) -> Json:
    phases: Json = {}
    for instance in view.instances:
        phases[instance.phase] = phases.get(instance.phase, 0) + 1
    return phases


def _instance(view: InstanceView) -> Json:
    written = asdict(view)
    written["class"] = written.pop("service_class")
    for prediction in written["predictions"]:
        prediction["class"] = prediction.pop("service_class")
    return written


def _pool(name: str, used: PoolTime, since_utc: str) -> Json:
    """What is sold may exceed what ran: where predictions are billed by their active time, and overlap."""
    sold = used.sold - used.returned
    return {
        "pool": name,
        "since_utc": since_utc,
        "wall_ns": used.wall,
        **{f"{part}_ns": getattr(used, part) for part in (*POOL_PHASES, "load")},
        "sold_ns": sold,
        "sold_ratio": round(sold / used.wall, 4) if used.wall else None,
    }


def _rates(view: Snapshot) -> Json:
    """Say which prices are in force, and how the list that they come from is doing."""
    card, listed = view.card, view.price_list
    shown = None
    if listed is not None:
        shown = {
            "url": listed.url,
            "tag": listed.tag,
            "checked_utc": _utc(listed.checked_unix_s),
            "last_error": listed.last_error,
        }
    if card is None:
        return {"version": None, "effective": None, "currency": None, "models": 0, "hash": None, "list": shown}
    return {
        "version": card.version,
        "effective": utc_text(card.effective_utc_ns),
        "currency": card.currency,
        "models": len(card.models),
        "hash": card.hash,
        "list": shown,
    }


def _utc(unix_s: float | None) -> str | None:
    return None if unix_s is None else utc_text(int(unix_s * 1e9))


def _sink(view: SinkView) -> Json:
    names = ("name", "kind", "pending", "shipped", "last_error", "dead_letters")
    return {name: getattr(view, name) for name in names} | {"failures": dict(view.failures)}
