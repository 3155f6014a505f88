"""A snapshot as Prometheus metrics; the one door to prometheus_client.

Owns names, help texts and the choice between the Prometheus text format and OpenMetrics. Labels are what the
snapshot's counters carry, which the tally bounds; accounts and predictions never are labels. Refuses to
compute: every number is in the snapshot (the process's own are read by the library).
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from taximeter.hardware.inventory import Device
from taximeter.hardware.samples import DeviceSample
from taximeter.ledger.values import POOL_PHASES, PoolTime
from taximeter.observe.snapshot import COMMIT_BUCKETS_S, Commits, DeviceView, SamplingView, Snapshot, WitnessView

PLAIN = CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS = openmetrics.CONTENT_TYPE_LATEST
#: Shown even while nobody is in them, so that a graph does not begin with a gap.
PHASES = ("boot", "idle", "active", "teardown")

#: By one label (a word) or by several (a tuple of words).
_Labelled = Mapping[Any, float]


def render(snapshot: Snapshot, accept: str = "", *, process: bool = False) -> tuple[bytes, str]:
    """Write `snapshot` in the format that the Accept header prefers; return the body and its content type.

    With `process`, also what the library reads of this very process: CPU, memory, descriptors.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Node(snapshot))
    if process:
        ProcessCollector(registry=registry)
    if wants_openmetrics(accept):
        body: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return body, OPENMETRICS
    return generate_latest(registry), PLAIN


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header names OpenMetrics before any plain text."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    if "application/openmetrics-text" not in kinds:
        return False
    return "text/plain" not in kinds or kinds.index("application/openmetrics-text") < kinds.index("text/plain")


class _Node:
    """A collector over one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Give every metric family."""
        yield from _about(self._snapshot)
        yield from _devices(self._snapshot.sampling)
        yield from _work(self._snapshot)
        yield from _money(self._snapshot)
        yield from _pools(self._snapshot.counters.pools)
        yield from _witness(self._snapshot.witness)
        yield from _trouble(self._snapshot)
        yield from _ledger(self._snapshot)
        yield from _shipping(self._snapshot)
        yield from _rates(self._snapshot)


def _about(snapshot: Snapshot) -> Iterator[Metric]:
    yield _info("taximeter_build", "The software that answers.", {"version": snapshot.version})
    node = {"node": snapshot.node, "region": snapshot.region or "", "config": snapshot.config or ""}
    yield _info("taximeter_node", "The node, and the configuration in force.", node | {"tier": snapshot.node_tier})
    yield _gauge("taximeter_start_time_seconds", "When the agent started, since 1970 UTC.", snapshot.started_unix_s)
    yield _gauge("taximeter_ready", "1 once the ledger is open and the journals are caught up with.", snapshot.ready)
    devices: dict[str, float] = {}
    for device in snapshot.hardware.devices if snapshot.hardware else ():
        devices[device.name] = devices.get(device.name, 0) + 1
    yield _gauges("taximeter_devices", "GPUs that are seen, by name.", ("name",), devices)
    problems = len(snapshot.hardware.problems) if snapshot.hardware else 0
    versions = (snapshot.hardware.driver_version, snapshot.hardware.nvml_version) if snapshot.hardware else (None, None)
    driver = dict(zip(("version", "nvml"), (version or "" for version in versions), strict=True))
    yield _info("taximeter_driver", "The GPU driver and its NVML.", driver)
    yield _gauge("taximeter_hardware_problems", "What could not be read of the hardware.", problems)


def _devices(sampling: SamplingView) -> Iterator[Metric]:
    views, names = sampling.devices, ("device",)
    info = InfoMetricFamily("taximeter_device", "A GPU, or a slice of one.", labels=names)
    for view in views:
        info.add_metric((view.device.uuid,), _labels(view.device))
    yield info

    def each(value: Callable[[DeviceView], float | None]) -> dict[str, float]:
        found = {view.device.uuid: value(view) for view in views}
        return {uuid: number for uuid, number in found.items() if number is not None}

    def sampled(value: Callable[[DeviceSample], float | None]) -> dict[str, float]:
        return each(lambda view: None if view.sample is None else value(view.sample))

    used, power = sampled(lambda sample: sample.memory_used_bytes), sampled(lambda sample: sample.power_mw)
    watts = {uuid: milliwatts / 1000 for uuid, milliwatts in power.items()}
    yield _gauges(
        "taximeter_device_memory_bytes", "Memory that it has.", names, each(lambda view: view.device.memory_bytes)
    )
    yield _gauges("taximeter_device_memory_used_bytes", "Memory that is in use.", names, used)
    text = "Part of the last moment in which something ran on it, 0 to 1."
    yield _gauges("taximeter_device_utilisation_ratio", text, names, sampled(lambda sample: sample.utilisation))
    yield _gauges("taximeter_device_power_watts", "Power that it draws.", names, watts)
    text = "Energy by its own counter, since the agent first saw it."
    yield _counters("taximeter_device_energy_joules", text, names, each(lambda view: view.energy_j))
    text = "How old the values of a device are."
    yield _gauges("taximeter_device_sample_age_seconds", text, names, each(lambda view: view.age_s))
    text = "Processes that are on it."
    count = sampled(lambda sample: None if sample.processes is None else len(sample.processes))
    yield _gauges("taximeter_device_processes", text, names, count)
    text = "Wrapped processes that live, by device and tier."
    yield _gauges("taximeter_device_instances", text, ("device", "tier"), sampling.instances)
    text = "Faults that the driver reported, by whose they are: the device's or an application's."
    yield _counters("taximeter_device_xids", text, ("device", "fault_of"), sampling.xids)
    yield _gauge("taximeter_devices_lost", "Devices that were here and do not answer.", sampling.lost)
    yield _counters("taximeter_nvml_errors", "Errors of NVML, by its code.", ("code",), sampling.errors)
    yield _count("taximeter_nvml_late", "Rounds of sampling that were given up.", sampling.late)
    yield _count(
        "taximeter_nvml_respawns", "Times that the process which talks to NVML was replaced.", sampling.respawns
    )
    yield _gauge("taximeter_nvml_hung", "Such processes that hang in the driver, left behind.", sampling.hung)


def _labels(device: Device) -> dict[str, str]:
    return {
        "index": str(device.index),
        "name": device.name,
        "pci": device.pci_bus_id or "",
        "mig_profile": device.mig_profile or "",
        "parent": device.parent_uuid or "",
    }


def _work(snapshot: Snapshot) -> Iterator[Metric]:
    phases: dict[str, float] = dict.fromkeys(PHASES, 0)
    for instance in snapshot.instances:
        phases[instance.phase] = phases.get(instance.phase, 0) + 1
    open_predictions = sum(len(instance.predictions) for instance in snapshot.instances)
    yield _gauges("taximeter_instances", "Wrapped processes that live, by phase.", ("phase",), phases)
    yield _gauge("taximeter_predictions_open", "Predictions that are loading or active.", open_predictions)
    yield _gauge(
        "taximeter_reader_lag_seconds", "How long the oldest unread journal bytes wait.", snapshot.reader_lag_s
    )
    adopted = sum(instance.adopted for instance in snapshot.instances)
    yield _gauge("taximeter_instances_adopted", "Instances whose wrapper is gone, watched by the agent.", adopted)
    records, names = snapshot.counters.records, ("type", "status")
    yield _counters("taximeter_records", "Usage records written to the ledger.", names, records)


def _money(snapshot: Snapshot) -> Iterator[Metric]:
    counters = snapshot.counters
    names = ("tier", "class", "meter")
    yield _counters("taximeter_billed_seconds", "Seconds of hardware that were billed.", names, counters.billed_s)
    billed = {currency: float(amount) for currency, amount in counters.amounts.items()}
    corrected = {currency: float(amount) for currency, amount in counters.corrected.items()}
    yield _counters("taximeter_billed_amount", "Money billed, before corrections.", ("currency",), billed)
    yield _counters("taximeter_corrected_amount", "Money taken back by corrections.", ("currency",), corrected)
    yield _gauge("taximeter_accounts_denied", "Accounts, and models of one, that are refused now.", snapshot.denied)
    yield _counters("taximeter_unrated_records", "Records without a price, by tier.", ("tier",), counters.unrated)
    text = "Instances that used other devices than they declared, by the tier declared."
    yield _counters("taximeter_hardware_mismatches", text, ("tier",), counters.mismatches)
    text = "Predictions of a version that is published as fast-booting, and which ran on a pool as another class."
    yield _counters("taximeter_class_mismatches", text, ("class",), counters.class_mismatches)
    text = "Predictions that ran on another tier than their model is published with, by that one."
    yield _counters("taximeter_published_mismatches", text, ("tier",), counters.published_elsewhere)


def _pools(pools: Mapping[str, PoolTime]) -> Iterator[Metric]:
    phases = {(name, phase): getattr(time, phase) / 1e9 for name, time in pools.items() for phase in POOL_PHASES}
    yield _counters("taximeter_pool_seconds", "Time of a pool's instances, by phase.", ("pool", "phase"), phases)
    text = "Time in which predictions loaded on a pool, added up."
    loads = {name: time.load / 1e9 for name, time in pools.items()}
    yield _counters("taximeter_pool_load_seconds", text, ("pool",), loads)
    text = "Time of a pool that somebody pays for, at the full price, before corrections."
    yield _counters(
        "taximeter_pool_sold_seconds", text, ("pool",), {name: time.sold / 1e9 for name, time in pools.items()}
    )
    text = "Such time that corrections took back."
    returned = {name: time.returned / 1e9 for name, time in pools.items()}
    yield _counters("taximeter_pool_returned_seconds", text, ("pool",), returned)


def _witness(witness: WitnessView) -> Iterator[Metric]:
    yield _gauge("taximeter_kernel_witness", "1 while the kernel's process events come in.", witness.kernel)
    yield _count("taximeter_kernel_events", "Process events of the kernel that were taken in.", witness.events)
    yield _count("taximeter_kernel_overruns", "Times that process events of the kernel were lost.", witness.overruns)


def _trouble(snapshot: Snapshot) -> Iterator[Metric]:
    counters = snapshot.counters
    faults, marks, events = counters.journal_faults, counters.rejected_marks, counters.illegal_events
    yield _counters("taximeter_journal_faults", "Journals or lines that cannot be believed.", ("reason",), faults)
    yield _counters("taximeter_rejected_marks", "Marks that were kept and had no effect.", ("reason",), marks)
    yield _counters("taximeter_illegal_events", "Events that came where none is allowed.", ("kind",), events)
    text = "Processes that ended, or were not found, and left predictions open, by how that is known."
    yield _counters("taximeter_orphaning_processes", text, ("end",), counters.orphaned)
    text = "Predictions whose own word of who called them cannot be so."
    yield _counters("taximeter_call_faults", text, ("reason",), counters.call_faults)
    flags, kinds = counters.clock_flags, counters.clock_faults
    yield _counters("taximeter_clock_flags", "Records marked with a fault of the clocks.", ("flag",), flags)
    yield _counters("taximeter_clock_faults", "Faults of the clocks, as often as instances saw one.", ("kind",), kinds)


def _ledger(snapshot: Snapshot) -> Iterator[Metric]:
    commits = snapshot.counters.commits
    damaged = "Damaged ledgers that lie beside the one in use."
    yield _gauge("taximeter_ledgers_set_aside", damaged, snapshot.set_aside)
    yield _gauge("taximeter_ledger_head", "Number of the newest record.", snapshot.ledger_seq)
    yield _commit_histogram(commits)
    yield _count("taximeter_ledger_commit_failures", "Commits that the disk did not take.", commits.failures)


def _commit_histogram(commits: Commits) -> Metric:
    family = HistogramMetricFamily("taximeter_ledger_commit_seconds", "Duration of a commit of the ledger.")
    bounds = (*(str(bound) for bound in COMMIT_BUCKETS_S), "+Inf")
    family.add_metric((), list(zip(bounds, accumulate(commits.counts), strict=True)), commits.sum_s)
    return family


def _shipping(snapshot: Snapshot) -> Iterator[Metric]:
    sinks, names = snapshot.sinks, ("sink",)
    pending = {sink.name: sink.pending for sink in sinks}
    shipped = {sink.name: sink.shipped for sink in sinks}
    failures = {(sink.name, reason): count for sink in sinks for reason, count in sink.failures.items()}
    failing = {sink.name: sink.last_error is not None for sink in sinks}
    letters = {sink.name: sink.dead_letters for sink in sinks}
    yield _gauges("taximeter_dead_letters", "Records that a sink refuses, though it takes others.", names, letters)
    yield _gauges("taximeter_outbox_pending", "Records that a sink has not taken yet.", names, pending)
    yield _counters("taximeter_shipped_records", "Records that a sink has taken.", names, shipped)
    yield _counters("taximeter_ship_failures", "Batches that a sink did not take.", ("sink", "reason"), failures)
    yield _gauges("taximeter_sink_failing", "1 while a sink's last batch did not pass.", names, failing)


def _rates(snapshot: Snapshot) -> Iterator[Metric]:
    card, listed = snapshot.card, snapshot.price_list
    if card is not None:
        labels = {"version": card.version, "currency": card.currency}
        yield _info("taximeter_rate_card", "The rate card in force.", labels)
    if listed is None:
        return
    text = "When the price list was last known to be the newest, since 1970 UTC; 0: not since the agent's start."
    yield _gauge("taximeter_price_list_checked_seconds", text, listed.checked_unix_s or 0.0)
    text = "Times that the price list could not be had, or not be used."
    yield _counters("taximeter_price_list_failures", text, ("reason",), listed.failures)


def _info(name: str, text: str, labels: dict[str, str]) -> Metric:
    return InfoMetricFamily(name, text, labels)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _count(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)


def _gauges(name: str, text: str, labels: tuple[str, ...], values: _Labelled) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def _counters(name: str, text: str, labels: tuple[str, ...], values: _Labelled) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: _Labelled) -> Metric:
    for key, value in sorted(values.items()):
        family.add_metric((key,) if isinstance(key, str) else key, float(value))
    return family
