"""Nodes to look at: a real ledger filled by the real meter, and snapshots as an agent draws them."""

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from taximeter.hardware.inventory import Device, Host, Inventory
from taximeter.hardware.samples import DeviceSample, ProcessKind, ProcessUse
from taximeter.hardware.tiers import Catalogue, Tier
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch, Ledger
from taximeter.ledger.values import PoolTime
from taximeter.observe.snapshot import (
    Commits,
    Counters,
    DeviceView,
    InstanceView,
    PredictionView,
    PriceListView,
    SamplingView,
    SinkView,
    Snapshot,
    WitnessView,
)
from taximeter.records import UsageRecord
from tests.core.stories import SECOND
from tests.observe.histories import NODE

TOKEN = "let-me-in"

IDLE = Snapshot(
    node="n1",
    started_utc="2026-11-22T10:00:00.000000000Z",
    started_unix_s=1795341600.25,
    taken_unix_s=1795341700.0,
    version="0.1.0",
    ready=True,
)

GPU = Device("GPU-1", "NVIDIA H100 80GB HBM3", 85520809984, pci_bus_id="00000000:18:00.0")

RUNNING = InstanceView(
    instance="0198c2aa-0000-7000-8000-00000000000a",
    phase="active",
    started_utc="2026-11-22T10:00:00.000000000Z",
    since_utc="2026-11-22T10:00:01.000000000Z",
    tier="gpu-h100",
    account="cus_7",
    model="acme/sdxl",
    devices=("GPU-1",),
    rule="the first rule that fits",
    predictions=(PredictionView("p-open", "active", "2026-11-22T10:00:01.000000000Z", "cus_7", "acme/sdxl"),),
)

BUSY = replace(
    IDLE,
    price_list=PriceListView("https://platform.example/v1/models", "ab12", 1_790_000_000.0, {"timeout": 2}),
    region="eu-west",
    config=f"sha256:{'a' * 64}",
    instances=(RUNNING, replace(RUNNING, instance="b", phase="idle", adopted=True, predictions=())),
    witness=WitnessView(kernel=True, events=12_345, overruns=2),
    counters=Counters(
        records={("taximeter.usage.prediction.v1", "succeeded"): 12, ("taximeter.usage.instance.v1", "failed"): 3},
        billed_s={("gpu-h100", "public", "share"): 41.5, ("cpu", "private", "idle"): 0.25},
        amounts={"USD": Decimal("0.0632875")},
        corrected={"USD": Decimal("0.002")},
        unrated={"unknown": 2},
        mismatches={"gpu-h100": 1},
        published_elsewhere={"gpu-t4": 3},
        clock_flags={"slewed": 1},
        clock_faults={"slewed": 1},
        journal_faults={"torn": 1, "not_json": 4},
        rejected_marks={"no_such_prediction": 5},
        illegal_events={"after_the_end": 1},
        call_faults={"own_parent": 2},
        orphaned={"seen": 3, "unseen": 1},
        pools={
            "sdxl": PoolTime(
                3 * SECOND, 10 * SECOND, 6 * SECOND, SECOND, 0, 2 * SECOND, 5 * SECOND, 4_500_000_000, SECOND
            ),
            "other": PoolTime(idle=SECOND // 4),
        },
        commits=Commits((3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1), 7.125, 1),
    ),
    ledger_id="L1",
    ledger_seq=20,
    sinks=(
        SinkView("usage", "file", 0, 20),
        SinkView("billing", "http", 7, 13, {"timeout": 2, "server_error": 1}, "it is ill"),
    ),
    hardware=Inventory(
        Host(64, 1 << 38, "x86_64"),
        (
            Device("GPU-1", "NVIDIA H100 80GB HBM3", 85520809984),
            Device("GPU-2", "NVIDIA H100 80GB HBM3", 85520809984, 1),
        ),
        ("one device did not answer",),
        "595.45.04",
        "13.595.45.04",
    ),
    catalogue=Catalogue((Tier("cpu", "CPU", 0), Tier("two", "two of them", 2, ("NVIDIA H100 80GB HBM3",)))),
    sampling=SamplingView(
        devices=(
            DeviceView(
                GPU,
                DeviceSample(
                    "GPU-1",
                    0,
                    utilisation=0.37,
                    memory_used_bytes=1 << 30,
                    power_mw=321_500,
                    processes=(ProcessUse(42, "GPU-1", 1 << 30, ProcessKind.COMPUTE),),
                ),
                2.5,
                4_321.125,
            ),
            DeviceView(Device("GPU-2", "NVIDIA H100 80GB HBM3", 85520809984, 1, lost=True), None, None, None),
            DeviceView(
                Device("MIG-1", "NVIDIA A100-SXM4-80GB", None, 2, mig_profile="3g.40gb", parent_uuid="GPU-3"),
                DeviceSample("MIG-1", 0),
                0.5,
            ),
        ),
        lost=1,
        respawns=2,
        hung=1,
        late=2,
        errors={"gpu_is_lost": 3, "not_supported": 5},
        xids={("GPU-2", "device"): 1},
        instances={("GPU-1", "gpu-h100"): 2},
    ),
    node_tier="gpu-h100-2x",
    node_tier_rule="two of them",
    reader_lag_s=0.5,
)


def ledger_of(directory: Path, records: Iterable[UsageRecord], *sinks: str) -> LedgerReader:
    """A reader of a new ledger that holds `records`."""
    ledger = Ledger.open(directory / "ledger.db", NODE)
    for sink in sinks:
        ledger.register_sink(sink)
    ledger.commit(Batch(tuple(records), ()))
    ledger.close()
    return LedgerReader(directory / "ledger.db")
