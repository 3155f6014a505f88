"""What has to hold after a soak: the receiver's set is the ledger's, nothing is there twice, and bills are the truth.

Pure: takes what the kernel saw, what the soak did and what the receiver holds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MS = 1_000_000
SECOND = 1_000 * MS
#: P3, at p99: with the kernel as witness, and without.
EXCESS_KERNEL_NS = MS // 10
EXCESS_OTHER_NS = 10 * MS
#: What a single stamp may be late where the soak itself keeps both cores busy: no bill may exceed the truth by more.
EXCESS_MOST_NS = 250 * MS

Json = dict[str, Any]


@dataclass(frozen=True)
class Truth:
    """One run as the kernel saw it, and what was done to it."""

    number: int
    ns: int
    harmed: frozenset[str]
    is_loose: bool
    predictions: Mapping[str, int]  #: of a server: what it noted of each that it finished, in ns


@dataclass
class Verdict:
    """What was found."""

    faults: list[str] = field(default_factory=list)
    excess_ns: dict[str, list[int]] = field(default_factory=lambda: {"kernel": [], "other": []})
    billed_ns: int = 0
    truth_ns: int = 0
    unknown_ns: int = 0
    runs: int = 0
    predictions: int = 0


def judge(truths: Iterable[Truth], held: Iterable[Json]) -> Verdict:
    """Hold the records that a receiver holds against the truth."""
    verdict = Verdict()
    instances: dict[str, int] = {}
    by_run: dict[int, list[Json]] = {}
    whole: dict[int, list[Json]] = {}
    for event in held:
        data = event["data"]
        number = int(data.get("labels", {}).get("nap", -1))
        if event["type"].startswith("taximeter.usage.instance"):
            instances[data["instance"]] = number
            whole.setdefault(number, []).append(data)
        elif event["type"].startswith(("taximeter.usage.prediction", "taximeter.usage.correction")):
            by_run.setdefault(number, []).append(event)
    for truth in truths:
        _judge_run(verdict, truth, by_run.get(truth.number, []), whole.get(truth.number, []))
    for witness, most_ns in (("kernel", EXCESS_KERNEL_NS), ("other", EXCESS_OTHER_NS)):
        at_p99 = percentile(verdict.excess_ns[witness], 0.99)
        if len(verdict.excess_ns[witness]) >= 100 and at_p99 > most_ns:
            verdict.faults.append(f"witness {witness}: {at_p99 / MS:.3f} ms billed beyond the truth at p99")
    return verdict


def percentile(values: Sequence[int], part: float) -> int:
    """The smallest value that `part` of all do not exceed; 0 where there is none."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(len(ordered) * part * 1000) // 1000) - 1)] if ordered else 0


def _judge_run(verdict: Verdict, truth: Truth, events: Sequence[Json], whole: Sequence[Json]) -> None:
    name = f"run {truth.number} ({', '.join(sorted(truth.harmed)) or 'unharmed'})"
    finals = [
        event["data"]["prediction"]
        for event in events
        if event["data"].get("final") and "corrects" not in event["data"]
    ]
    if len(finals) != len(set(finals)):
        verdict.faults.append(f"{name}: a prediction was ended twice")
    if not whole and not truth.is_loose:
        verdict.faults.append(f"{name}: nobody booked it")
    if not whole:
        return
    verdict.runs += 1
    verdict.predictions += len(finals)
    billed_ns = sum(_billed_ns(event) for event in events)
    unknown_ns = sum(data["time"].get("unknown_ns", 0) for data in whole)
    verdict.billed_ns += billed_ns
    verdict.truth_ns += truth.ns
    verdict.unknown_ns += unknown_ns
    ends = {whole[0]["timing"]["start"]["source"], whole[-1]["timing"]["end"]["source"]}
    verdict.excess_ns["kernel" if ends == {"kernel"} else "other"].append(billed_ns - truth.ns)
    if billed_ns - truth.ns > EXCESS_MOST_NS:
        verdict.faults.append(f"{name}: {billed_ns / MS:.3f} ms were billed, and it ran for {truth.ns / MS:.3f} ms")
    if not truth.predictions and truth.ns - billed_ns > unknown_ns + EXCESS_MOST_NS and not truth.is_loose:
        short_ns = truth.ns - billed_ns - unknown_ns
        verdict.faults.append(f"{name}: {short_ns / MS:.3f} ms of {truth.ns / MS:.3f} are in no record")
    missing = truth.predictions.keys() - set(finals)
    if missing and not truth.harmed and not truth.is_loose:
        verdict.faults.append(f"{name}: it finished {sorted(missing)}, and nobody booked them")


def _billed_ns(event: Json) -> int:
    data = event["data"]
    share_ns: int = data["time"].get("share_ns", 0)
    return share_ns
