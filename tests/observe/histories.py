"""Records as a ledger holds them, from the real meter and the real seal, for tests of the faces."""

from collections.abc import Iterable
from typing import Any

import msgspec
import orjson

from taximeter.billing.rates import parse_card
from taximeter.events import ActiveMark, Event, Marked, Measured, Observed, Options, ServiceClass, Status
from taximeter.hardware.inventory import Device, Hardware
from taximeter.ledger import chain
from taximeter.ledger.seal import Author, seal
from taximeter.ledger.values import NodeInfo
from taximeter.records import Billing, Line, RecordType, UsageRecord
from taximeter.values import replace
from tests.core.stories import INSTANCE, MS, SECOND, beat, book, card, exited, finish, ready, spawned, start, tell

ANOTHER = INSTANCE[:-1] + "2"
NODE = NodeInfo("n1", "eu-west", "taximeter 0.1.0", f"sha256:{'0' * 64}")


def bodies(records: Iterable[UsageRecord]) -> list[bytes]:
    """The stored bytes of `records` in a new ledger."""
    return [body for _, _, body in seal(records, Author.of("L1", NODE), 0, chain.GENESIS).rows]


def data_of(body: bytes) -> dict[str, object]:
    """What a stored record says."""
    data: dict[str, object] = orjson.loads(body)["data"]
    return data


def one_shot(**options: object) -> list[UsageRecord]:
    """A predictor that was ready at once, ran for 412 ms and ended well."""
    told = tell(Options(prediction="p1", **options), [spawned(MS), ready(MS), exited(413 * MS)])
    return told.records


def twice(account: str | None = "cus_a", other: str | None = "cus_b") -> list[UsageRecord]:
    """One prediction's id on two instances, of two accounts: 412 ms on the first, 500 ms on the second."""
    first = one_shot(account=account)
    second = tell(Options(prediction="p1", account=other), [spawned(MS), ready(MS), exited(501 * MS)]).records
    return first + [_on_another(record) for record in second]


def read_back(written: bytes) -> dict[str, Any]:
    """A record's data from JSON, its price as the meter makes it, so that the ledger adds up what is spent."""
    data: dict[str, Any] = orjson.loads(written)
    billing = data["billing"]
    lines = tuple(Line(**line) for line in billing.pop("lines"))
    return data | {"billing": Billing(lines=lines, **billing)}


def _on_another(record: UsageRecord) -> UsageRecord:
    data = read_back(msgspec.json.encode(record.data).replace(INSTANCE.encode(), ANOTHER.encode()))
    return replace(record, id=record.id.replace(INSTANCE, ANOTHER), data=data, instance=ANOTHER)


def namesake() -> list[UsageRecord]:
    """A one-shot that has its instance's id, and another instance's worker that gives a prediction the same one."""
    events = [spawned(0), ready(0), start(SECOND, "stolen"), finish(3 * SECOND, "stolen"), exited(4 * SECOND)]
    others = [_on_another(record) for record in tell(Options(worker=True, account="cus_b"), events).records]
    stolen = [
        orjson.loads(msgspec.json.encode(record.data).replace(b'"stolen"', f'"{INSTANCE}"'.encode()))
        for record in others
    ]
    return tell(Options(account="cus_a"), [spawned(0), ready(0), exited(SECOND)]).records + [
        replace(record, data=data, prediction=record.prediction and INSTANCE)
        for record, data in zip(others, stolen, strict=True)
    ]


def long_run(until_s: int = 9, code: int = 0) -> list[UsageRecord]:
    """A one-shot with an interim record every two seconds."""
    beats = [beat(at * SECOND) for at in range(1, until_s + 1)]
    events = [spawned(0), ready(0), *beats, exited(until_s * SECOND, code)]
    return tell(Options(prediction="p1"), events, book(interim_ns=2 * SECOND)).records


def aborted_run() -> list[UsageRecord]:
    """A worker's prediction that the platform ended after an interim record had billed it."""
    beats = [beat(at * SECOND) for at in range(1, 4)]
    events = [spawned(0), ready(0), start(0, "p1"), *beats, exited(3 * SECOND, None, 9)]
    told = tell(Options(worker=True), events, book(interim_ns=2 * SECOND, public={"failed": "0"}))
    assert any(record.type is RecordType.CORRECTION for record in told.records)
    return told.records


def shared_worker() -> list[UsageRecord]:
    """A worker with two predictions that overlap, one of a fine-tune that loads first, one called by the other."""
    events = [
        spawned(0),
        ready(200 * MS),
        start(300 * MS, "p1", account="cus_7", model="acme/sdxl", attributes={"resolution": "1080p"}),
        start(500 * MS, "p2", account="cus_8", parent="p1", root="p1", service_class=ServiceClass.FAST_BOOT),
        Marked(600 * MS, ActiveMark("p2")),
        finish(700 * MS, "p1"),
        finish(900 * MS, "p2", Status.FAILED),
        exited(950 * MS),
    ]
    return tell(Options(worker=True, pool="sdxl", labels={"team": "a"}), events).records


def call(
    prediction: str, parent: str | None = None, at_ms: int = 0, ms: int = 100, code: int | None = 0, **told: object
) -> list[UsageRecord]:
    """A one-shot that runs from `at_ms` on for `ms`, and was called by `parent`; code None: it still runs."""
    options = Options(prediction=prediction, parent=parent, **{"root": "p-root" if parent else None, **told})
    events: list[Event] = [spawned(at_ms * MS), ready(at_ms * MS)]
    events += [beat((at_ms + ms) * MS) if code is None else exited((at_ms + ms) * MS, code)]
    records = tell(options, events, book(interim_ns=ms * MS if code is None else 60 * SECOND)).records
    written = [
        msgspec.json.encode(record.data).replace(INSTANCE.encode(), f"i-{prediction}".encode()) for record in records
    ]
    return [
        replace(record, id=record.id.replace(INSTANCE, f"i-{prediction}"), data=data, instance=f"i-{prediction}")
        for record, data in zip(records, map(read_back, written), strict=True)
    ]


def calls() -> list[UsageRecord]:
    """A root that failed after its calls: two of its own, one of which called another, of another account, and one
    that still runs."""
    return [
        *call("p-search", "p-plan", 200, 100, account="cus_9", model="acme/search"),
        *call("p-plan", "p-root", 100, 400, account="cus_7", model="acme/llm"),
        *call("p-root", None, 0, 2000, 3, account="cus_7", model="acme/agent"),
        *call("p-draw", "p-root", 600, 1200, None, account="cus_7", model="acme/sdxl-lora"),
    ]


def private_run() -> list[UsageRecord]:
    """A private instance: it is billed, its prediction is informative."""
    options = Options(prediction="p1", account="cus_7", service_class=ServiceClass.PRIVATE)
    return tell(options, [spawned(0), ready(100 * MS), exited(500 * MS)]).records


def unpriced_run() -> list[UsageRecord]:
    """A run on a tier that no card prices."""
    return tell(Options(prediction="p1"), [spawned(0), ready(0), exited(SECOND)], tier="gpu-odd").records


def never_ready_run() -> list[UsageRecord]:
    """A private instance whose server never answered."""
    options = Options(prediction="p1", service_class=ServiceClass.PRIVATE, ready="http://localhost:5000/")
    return tell(options, [spawned(0), exited(SECOND, 1)]).records


def killed_run() -> list[UsageRecord]:
    """A run that died of SIGKILL."""
    return tell(Options(prediction="p1"), [spawned(0), ready(0), exited(SECOND, None, 9)]).records


_GPUS = tuple(Device(f"GPU-{at}", "NVIDIA H100 80GB HBM3", 85520809984, at) for at in range(2))
_ONE = Hardware("gpu-h100", 1, _GPUS[:1], rule="rule 17, gpu-h100: 1 × NVIDIA H100 80GB HBM3")
_TWO = Hardware("gpu-h100-2x", 2, _GPUS, rule="rule 18, gpu-h100-2x: 2 × NVIDIA H100 80GB HBM3")


def _on_gpus(declared: Hardware, observed: Observed) -> list[UsageRecord]:
    events = [spawned(0), ready(0), *[beat(at * SECOND) for at in range(1, 4)], observed]
    used = Measured(4200 * MS, gpu_memory_peak_bytes=7 << 30, energy_mj=812_345, energy_source="counter")
    rates = (card(**{"gpu-h100": "0.001525", "gpu-h100-2x": "0.00305"}),)
    told = tell(
        Options(prediction="p1", account="cus_7"),
        [*events, beat(4 * SECOND), used, exited(4500 * MS)],
        book(2 * SECOND, rates),
        silent=True,
        on=declared,
    )
    return told.records


def seen_run() -> list[UsageRecord]:
    """A run that NVML saw on the device that it declared, beside another instance."""
    return _on_gpus(_ONE, Observed(3 * SECOND, SECOND, _ONE, ("GPU-0",)))


def mismatched_run() -> list[UsageRecord]:
    """A run that declared two devices and used one of them, as came out after an interim record."""
    return _on_gpus(_TWO, Observed(3900 * MS, SECOND, _ONE))


def elsewhere_run() -> list[UsageRecord]:
    """A run of a model that the card publishes with another tier, priced by the images that it made."""
    model = {"name": "acme/sdxl", "amount": "0.03", "unit": "image", "hardware": "gpu-h100"}
    rates = (parse_card(card().content() | {"models": [model]}, "test"),)
    options = Options(prediction="p1", account="cus_7", model="acme/sdxl", units={"image": "2"})
    return tell(options, [spawned(0), ready(0), exited(1500 * MS)], book(rates=rates)).records


ALL = (
    elsewhere_run,
    seen_run,
    mismatched_run,
    one_shot,
    long_run,
    aborted_run,
    shared_worker,
    private_run,
    unpriced_run,
    killed_run,
)

__all__ = ["ALL", "INSTANCE", "NODE", "bodies"]
