"""Finds whose receipt is asked for, by any id a person may have in hand, and has it made.

Owns which id is meant, and what is said where none is. What a receipt is made of is receipt.py's.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from taximeter.billing.invoice import Rounding
from taximeter.ledger.chain import hash_of
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.observe import receipt as receipts
from taximeter.observe.calling import Calls, calls_of
from taximeter.observe.snapshot import InstanceView, PredictionView, Snapshot
from taximeter.observe.sums import Item, Run, fold, fold_each
from taximeter.records import RecordType

#: An id that somebody cut short has at least as much: fewer characters would name half the ledger.
_BEGINNING = re.compile(r"[0-9a-f][0-9a-f-]{3,35}")

Json = dict[str, Any]


class Receipts:
    """The receipts of one node: of what its ledger has and, where an agent lives, of what still runs."""

    def __init__(
        self, reader: LedgerReader, snapshot: Callable[[], Snapshot] | None, invoice: Mapping[str, Rounding]
    ) -> None:
        """Keep at hand what is asked; `invoice` says how sums are rounded where they are paid, by currency."""
        self._reader = reader
        self._snapshot = snapshot
        self._invoice = invoice

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


def _find(views: tuple[InstanceView, ...], prediction: str) -> tuple[InstanceView, PredictionView] | None:
    pairs = ((view, own) for view in views for own in view.predictions)
    return next((pair for pair in pairs if pair[1].prediction == prediction), None)
