"""What was measured of a ride, on a sheet: its time as a bar of phases, its hardware, and the evidence for both.

Owns how these look. Refuses to know prices, and what else is on a receipt.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from taximeter.cli import text
from taximeter.observe.words import WITNESSES, exit_text

if TYPE_CHECKING:
    from taximeter.cli.paper import Paper
    from taximeter.cli.sheet import Sheet

Json = Mapping[str, Any]

#: Phases in the order in which they usually come, each with a glyph that needs no colour, and a colour.
PHASES = {
    "boot": ("▒", "yellow"),
    "load": ("▒", "yellow"),
    "idle": ("·", "dim"),
    "active": ("█", "green"),
    "teardown": ("░", "cyan"),
    "suspended": ("z", "magenta"),
    "unknown": ("?", "red"),
}
EVIDENCE = {
    "declared": "declared; not seen by NVML",
    "observed": "seen by NVML; nothing was declared",
    "both": "declared and seen by NVML",
    "mismatch": "mismatch: what was declared is not what was seen",
}
CLOCKS = {
    "stepped": "the calendar was set",
    "slewed": "ran over 500 ppm fast or slow",
    "suspended": "the machine slept",
    "time_namespace": "in a time namespace",
}
_LISTED = 8


class Part(NamedTuple):
    """A phase in a bar."""

    name: str
    glyph: str
    style: str
    ns: int
    share: str  #: how long it was, and how much of the whole, in words


def ride(found: Json, sheet: "Sheet | Paper") -> None:
    """Write when it ran, for how long, in which phases, how it ended and what it used."""
    sheet.section("Ride")
    sheet.row("from", f"{text.instant(found['started_utc'])} UTC" if found["started_utc"] else None)
    ended = f"{text.instant(found['ended_utc'])} UTC" if found["ended_utc"] else None
    sheet.row("until", f"{ended} (so far)" if ended and found["pending"] else ended or "not known yet")
    time, phases = found["time"], found["phases"]
    if "wall_ns" in time:
        sheet.row("time", text.duration(time["wall_ns"]))
    if found["kind"] == "prediction" and time:
        shared = time["share_ns"] != time["active_ns"]
        sheet.row("active", text.duration(time["active_ns"]) + (_beside(found, time) if shared else ""))
        if time["load_ns"] or not phases:
            _bar("prediction", time, sheet)
    if phases:
        _bar("instance", phases, sheet)
    if found["exit"]:
        sheet.row("exit", exit_text(found["exit"]), "" if found["exit"]["code"] == 0 else "red")
        if found["exit"].get("ready") is False and phases.get("boot_ns"):
            sheet.row("ready", "never: a boot that does not become ready bills nothing", "yellow")
    _resources(found.get("resources") or {}, sheet)


def _beside(found: Json, time: Json) -> str:
    """Say that it shared its time, and with how many: who makes others run beside one shows here."""
    company = found.get("concurrency")
    how_many = f": {company['mean']} at once, at most {company['max']}" if company else ""
    return f"; its share is {text.duration(time['share_ns'])}, for it ran beside others{how_many}"


def _bar(whose: str, time: Json, sheet: "Sheet | Paper") -> None:
    """Draw the phases side by side, each as wide as it was long, and name them."""
    parts = {name: time.get(f"{name}_ns", 0) for name in PHASES}
    whole = sum(parts.values())
    sheet.bar(
        whose,
        [
            Part(name, *PHASES[name], ns, f"{text.duration(ns)} ({text.percent(ns, whole)})")
            for name, ns in parts.items()
            if ns > 0
        ],
    )


def _resources(used: Json, sheet: "Sheet | Paper") -> None:
    shown = []
    if used.get("cpu_ns") is not None:
        shown.append(f"CPU {text.duration(used['cpu_ns'])}")
    if used.get("rss_peak_bytes") is not None:
        shown.append(f"memory {text.size(used['rss_peak_bytes'])} at most")
    if used.get("gpu_memory_peak_bytes") is not None:
        shown.append(f"GPU memory {text.size(used['gpu_memory_peak_bytes'])} at most")
    if used.get("energy_mj") is not None:
        how = " (by its power)" if used.get("energy_source") == "power" else ""
        shown.append(f"energy {used['energy_mj'] / 1000:.1f} J{how}")
    if shown:
        sheet.row("used", ", ".join(shown))


def hardware(used: Json | None, sheet: "Sheet | Paper") -> None:
    """Write what it ran on, and how that is known."""
    sheet.section("Hardware")
    if not used:
        sheet.row("tier", None)
        return
    sheet.row("tier", used["tier"], "bold")
    if used.get("published"):
        sheet.row("published", f"with {text.safe(used['published'])}: its model is offered on another tier", "yellow")
    for device in used.get("devices") or ():
        sheet.row(
            "device", f"{text.safe(device['name'])}, {text.size(device['memory_bytes'])}, {text.safe(device['uuid'])}"
        )
    if used.get("rule"):
        sheet.row("why", used["rule"])
    _known_by(used, sheet)


def _known_by(hardware: Json, sheet: "Sheet | Paper") -> None:
    """Say how it is known which devices it used, where there are any; on a mismatch, both lists."""
    known, declared, observed = (hardware.get(name) or () for name in ("evidence", "declared", "observed"))
    if hardware.get("devices") or declared or observed:
        sheet.row("evidence", EVIDENCE.get(str(known), text.safe(known)), "yellow" if known == "mismatch" else "")
    if known == "mismatch":
        sheet.row("declared", ", ".join(declared) or "no device")
        sheet.row("seen on", ", ".join(observed) or "no device")
    if hardware.get("shared_devices"):
        sheet.row("shared", f"others were on, or given, {', '.join(hardware['shared_devices'])} as well")


def evidence(found: Json, sheet: "Sheet | Paper") -> None:
    """Write who saw it, which records say so, and at whose prices."""
    timing = found["timing"]
    if not (timing or found["records"] or found["node"]):
        return
    sheet.section("Evidence")
    if timing:
        for end in ("start", "end"):
            source, within = timing[end]["source"], timing[end]["uncertainty_ns"]
            bound = f"within {text.duration(within)}" if within is not None else "nothing bounds the error"
            sheet.row(end, f"{WITNESSES.get(source, text.safe(source))}, {bound}")
        sheet.row("clocks", _clocks(timing))
    for record in found["records"][-_LISTED:]:
        _record(record, sheet)
    if found["records_total"] > _LISTED:
        sheet.row("", f"{found['records_total'] - _LISTED} earlier ones: --json lists them")
    for card in found["billing"]["rate_cards"]:
        sheet.row("rate card", sheet.hash(card))
    if found["node"]:
        sheet.row(
            "measured by", f"{text.safe(found['node']['software'])}, config {sheet.hash(found['node']['config'])}"
        )


def _record(record: Json, sheet: "Sheet | Paper") -> None:
    """Write which record it is, and apart from its hash what it comes to."""
    label = f"record {record['seq']}"
    kind = " interim" if record["final"] is False else " correction" if record["final"] is None else ""
    said = f"{sheet.hash(record['hash'])}{kind}"
    if record.get("amount") is None:
        sheet.row(label, said)
    else:
        sheet.leader(label, said, " ".join(map(text.safe, filter(None, (record["amount"], record.get("currency"))))))


def _clocks(timing: Json) -> str:
    """Say what the clocks did, which changes no duration, and how far off the times of day may be."""
    said = "; ".join(CLOCKS.get(word, text.safe(word)) for word in timing["clock"]) or "agreed"
    within_ns = timing.get("utc_uncertainty_ns")
    return said if within_ns is None else f"{said}; UTC within {text.duration(within_ns)}"
