"""Usage records as the meter makes them, by hand, and ledgers that hold them."""

from pathlib import Path
from typing import Any

from taximeter.ledger.store import Batch, JournalState, Ledger, NodeInfo
from taximeter.records import (
    Billing,
    Concurrency,
    DeviceUse,
    Exit,
    HardwareUse,
    InstanceTime,
    Interval,
    Line,
    PredictionTime,
    RecordType,
    Resources,
    Timing,
    UsageRecord,
    Witness,
    utc_text,
)
from taximeter.values import replace

NODE = NodeInfo("gpu-node-7", "eu-west", "taximeter 0.1.0", "sha256:" + "c" * 64)
BOOT_ID = "9e64c0d8-5c6e-4a0d-b4a4-5ff44e2e6a31"
BEGAN_UTC_NS = 1_795_341_603_123_456_789
SECOND_NS = 1_000_000_000
RATE = "0.001525"


def instance_id(number: int) -> str:
    return f"0198c2f4-7b11-7cc0-9d4f-{number:012x}"


def record(instance: str, count: int, kind: RecordType, data: dict[str, Any], **filed: Any) -> UsageRecord:
    return UsageRecord(
        id=f"{instance}-{count:08d}",
        type=kind,
        subject=data.get("account") or "unattributed",
        time_utc_ns=BEGAN_UTC_NS,
        data=data,
        instance=instance,
        account=data.get("account"),
        model=data.get("model"),
        **filed,
    )


def interval(start_ns: int, end_ns: int) -> Interval:
    began_ns = BEGAN_UTC_NS - 5 * SECOND_NS
    return Interval(
        start_utc=utc_text(began_ns + start_ns),
        end_utc=utc_text(began_ns + end_ns),
        start_ns=start_ns,
        end_ns=end_ns,
        boot_id=BOOT_ID,
    )


def billed(quantity: str, amount: str, *, meter: str = "share", rate: str = RATE) -> Billing:
    line = Line(meter, quantity, "computing_second", rate, "1", amount)
    return Billing("rated", (line,), amount, "USD", "sha256:" + "a" * 64)


INFORMATIVE = Billing("informative", (), None, "USD", "sha256:" + "a" * 64)


def prediction_record(
    instance: str, count: int, start_ns: int = 6 * SECOND_NS, end_ns: int = 7 * SECOND_NS, **changes: Any
) -> UsageRecord:
    """A second of a prediction alone on its instance."""
    wall_ns = end_ns - start_ns
    data: dict[str, Any] = {
        "account": "cus_7",
        "model": "acme/sdxl-lora",
        "version": "3f2a",
        "class": "fast_boot",
        "pool": "sdxl",
        "kind": "inference",
        "instance": instance,
        "prediction": f"p-{instance}",
        "parent": None,
        "root": f"p-{instance}",
        "status": "succeeded",
        "final": True,
        "interval": interval(start_ns, end_ns),
        "time": PredictionTime(
            wall_ns=wall_ns, load_ns=0, active_ns=wall_ns, share_ns=wall_ns, suspended_ns=0, unknown_ns=0
        ),
        "to_date": {"wall_ns": wall_ns, "load_ns": 0, "active_ns": wall_ns, "share_ns": wall_ns},
        "concurrency": Concurrency(mean="1", max=1),
        "units": {"image": "2"},
        "attributes": {"resolution": "1080p"},
        "labels": {},
        "hardware": HardwareUse(
            "gpu-h100", 1, (DeviceUse("GPU-5a", "NVIDIA H100 80GB HBM3", 85_520_809_984),), "observed"
        ),
        "resources": Resources(
            cpu_ns=812_000_000,
            rss_peak_bytes=1_234_567,
            gpu_memory_peak_bytes=7_516_192_768,
            energy_mj=812_345,
            energy_source="counter",
        ),
        "billing": billed("1", RATE),
        "timing": Timing(
            start=Witness("mark", 41_000), end=Witness("mark", 38_000), clock="ok", utc_uncertainty_ns=None
        ),
        "traceparent": None,
    }
    data |= changes
    return record(instance, count, RecordType.PREDICTION, data, prediction=data["prediction"], root=data["root"])


def instance_record(instance: str, count: int, **changes: Any) -> UsageRecord:
    """Three seconds of an instance: one of boot, one active, one of teardown."""
    data: dict[str, Any] = {
        "account": "cus_7",
        "model": "acme/sdxl-lora",
        "version": "3f2a",
        "class": "fast_boot",
        "pool": "sdxl",
        "kind": "inference",
        "instance": instance,
        "prediction": None,
        "parent": None,
        "root": None,
        "status": "succeeded",
        "final": True,
        "interval": interval(5 * SECOND_NS, 8 * SECOND_NS),
        "time": InstanceTime(
            wall_ns=3 * SECOND_NS,
            boot_ns=SECOND_NS,
            idle_ns=0,
            active_ns=SECOND_NS,
            teardown_ns=SECOND_NS,
            suspended_ns=0,
            unknown_ns=0,
        ),
        "to_date": {"wall_ns": 3 * SECOND_NS, "boot_ns": SECOND_NS, "active_ns": SECOND_NS},
        "billing": INFORMATIVE,
        "exit": Exit(0, None, None, "exited", None),
    }
    return record(instance, count, RecordType.INSTANCE, data | changes)


def run(number: int) -> tuple[UsageRecord, UsageRecord]:
    """Both records of a one-shot."""
    instance = instance_id(number)
    return prediction_record(instance, 0), instance_record(instance, 1)


def run_batch(*numbers: int) -> Batch:
    """One-shots that ended, as the agent books them."""
    records = tuple(record for number in numbers for record in run(number))
    return Batch(records, tuple(JournalState(instance_id(number), 0, 1_352, None) for number in numbers))


def changed(told: UsageRecord, **changes: Any) -> UsageRecord:
    """A record whose data says something else."""
    return replace(told, data={**told.data, **changes})


def opened(directory: Path) -> Ledger:
    return Ledger.open(directory / "ledger.db", NODE)
