"""`taximeter receipt`: one run explained, as a passenger would have it explained.

Owns the receipt's look: the ride as a bar of phases, hardware and why, each price with its arithmetic, the total,
and who saw it. Computes no amount: all of them are the ledger's, to the last digit.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter.cli import text
from taximeter.cli.source import Source
from taximeter.observe.words import WITNESSES, exit_text

if TYPE_CHECKING:
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
STATUS_STYLES = {
    "succeeded": "green",
    "processing": "yellow",
    "failed": "red",
    "canceled": "yellow",
    "aborted": "magenta",
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


def receipt(
    asked: Annotated[str, typer.Argument(metavar="PREDICTION|INSTANCE", help="Whose ride: an id from the records.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> int:
    """Explain one run: timeline, hardware, prices, witness."""
    if not asked:
        raise typer.BadParameter("expected the id of a prediction or an instance, got an empty word")
    source = Source(os.environ)
    found = source.receipt(asked)
    source.complain()
    if found is None:
        print(f"taximeter: {_unknown(asked, source)}", file=sys.stderr)
        return 1
    from taximeter.cli.sheet import Sheet, print_json  # noqa: PLC0415 - rich, only where something is shown

    if as_json:
        print_json(found)
        return 0
    sheet = Sheet()
    write(found, sheet)
    sheet.show()
    return 0


def write(found: Json, sheet: "Sheet") -> None:
    """Write a receipt on a sheet."""
    status = "pending" if found["status"] is None else found["status"]
    sheet.title("TAXIMETER RECEIPT", text.safe(status), STATUS_STYLES.get(status, "yellow"))
    if found["pending"]:
        sheet.row("pending", found["pending_why"], "yellow")
    _who(found, sheet)
    _ride(found, sheet)
    _hardware(found.get("hardware"), sheet)
    _price(found, sheet)
    _others("Predictions", found["predictions"], sheet)
    _others("Downstream", found["downstream"], sheet)
    _evidence(found, sheet)


def _who(found: Json, sheet: "Sheet") -> None:
    if found["prediction"]:
        sheet.row("prediction", found["prediction"])
    accounts, instances, runs = found.get("accounts") or (), found.get("instances") or (), found.get("runs") or 1
    sheet.row("instance" if len(instances) < 2 else "instances", _listed(instances) or found["instance"])
    if runs > 1:
        on = text.plural(len(instances), "instance")
        last = "; phases and exit are of the last" if len(instances) > 1 else ""
        sheet.row("runs", f"{runs:,} runs on {on} bear this id{last}", "yellow")
    for name in ("parent", "root"):
        if found[name] and found[name] != found["prediction"]:
            sheet.row(name, found[name])
    sheet.row("account", _listed(accounts) or found["account"] or "none named")
    if found["model"] or found["version"]:
        version = f", version {text.safe(found['version'])}" if found["version"] else ""
        sheet.row("model", text.safe(found["model"]) + version)
    pool = f", pool {text.safe(found['pool'])}" if found["pool"] else ""
    sheet.row("class", text.safe(found["class"]) + pool)
    node = found["node"]
    if node:
        region = f", {text.safe(node['region'])}" if node.get("region") else ""
        sheet.row("node", text.safe(node["id"]) + region)
    for name in ("labels", "attributes", "units"):
        if found[name]:
            sheet.row(name, ", ".join(f"{text.safe(key)} {text.safe(value)}" for key, value in found[name].items()))


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _LISTED} more: --json lists them" if len(names) > _LISTED else ""
    return ", ".join(map(text.safe, names[:_LISTED])) + more


def _ride(found: Json, sheet: "Sheet") -> None:
    sheet.section("Ride")
    sheet.row("from", f"{text.instant(found['started_utc'])} UTC" if found["started_utc"] else None)
    ended = f"{text.instant(found['ended_utc'])} UTC" if found["ended_utc"] else None
    sheet.row("until", f"{ended} (so far)" if ended and found["pending"] else ended or "not known yet")
    time, phases = found["time"], found["phases"]
    if "wall_ns" in time:
        sheet.row("time", text.duration(time["wall_ns"]))
    if found["kind"] == "prediction" and time:
        shared = time["share_ns"] != time["active_ns"]
        note = f"; its share is {text.duration(time['share_ns'])}, for it ran beside others" if shared else ""
        sheet.row("active", text.duration(time["active_ns"]) + note)
        if time["load_ns"] or not phases:
            _bar("prediction", time, sheet)
    if phases:
        _bar("instance", phases, sheet)
    if found["exit"]:
        sheet.row("exit", exit_text(found["exit"]), "" if found["exit"]["code"] == 0 else "red")
        if found["exit"].get("ready") is False and phases.get("boot_ns"):
            sheet.row("ready", "never: a boot that does not become ready bills nothing", "yellow")
    _resources(found.get("resources") or {}, sheet)


def _bar(whose: str, time: Json, sheet: "Sheet") -> None:
    """Draw the phases side by side, each as wide as it was long, and name them below."""
    from rich.text import Text  # noqa: PLC0415

    parts = {name: time.get(f"{name}_ns", 0) for name in PHASES}
    cells = text.portions(parts, sheet.width - 13)
    if not cells:
        return
    bar, legend = Text(), []
    whole = sum(parts.values())
    for name, width in cells.items():
        glyph, style = PHASES[name]
        bar.append(glyph * width, style=style)
        share = f"{text.duration(parts[name])} ({text.percent(parts[name], whole)})"
        legend.append(Text.assemble((glyph, style), f" {name} {share}"))
    sheet.row(whose, bar)
    sheet.flow("", legend)


def _resources(used: Json, sheet: "Sheet") -> None:
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


def _hardware(hardware: Json | None, sheet: "Sheet") -> None:
    sheet.section("Hardware")
    if not hardware:
        sheet.row("tier", None)
        return
    sheet.row("tier", hardware["tier"], "bold")
    for device in hardware.get("devices") or ():
        sheet.row(
            "device", f"{text.safe(device['name'])}, {text.size(device['memory_bytes'])}, {text.safe(device['uuid'])}"
        )
    if hardware.get("rule"):
        sheet.row("why", hardware["rule"])
    _known_by(hardware, sheet)


def _known_by(hardware: Json, sheet: "Sheet") -> None:
    """Say how it is known which devices it used, where there are any; on a mismatch, both lists."""
    known, declared, observed = (hardware.get(name) or () for name in ("evidence", "declared", "observed"))
    if hardware.get("devices") or declared or observed:
        sheet.row("evidence", EVIDENCE.get(str(known), text.safe(known)), "yellow" if known == "mismatch" else "")
    if known == "mismatch":
        sheet.row("declared", ", ".join(declared) or "no device")
        sheet.row("seen on", ", ".join(observed) or "no device")
    if hardware.get("shared_devices"):
        sheet.row("shared", f"others were on, or given, {', '.join(hardware['shared_devices'])} as well")


def _price(found: Json, sheet: "Sheet") -> None:
    billing = found["billing"]
    sheet.section("Price")
    if billing["status"] in ("unrated", "free", "informative", None):
        meaning = {
            "unrated": "unrated: no price was found, and none is guessed",
            "free": "free: the terms of its class bill none of this time",
            "informative": "billed with its " + ("instance" if found["kind"] == "prediction" else "predictions"),
            None: "not known yet",
        }[billing["status"]]
        sheet.row("status", meaning + (f" ({text.safe(billing['reason'])})" if billing.get("reason") else ""))
    for line in billing["lines"]:
        left, _, right = line["text"].rpartition(" = ")
        sheet.leader(text.safe(line["meter"]), text.safe(left), text.safe(right))
    for correction in billing["corrections"]:
        amount = f"{text.safe(correction['amount'])} {text.safe(correction['currency'])}"
        sheet.leader("correction", text.safe(correction["reason"]), amount, "magenta")
    total = found["total"]
    if total["amount"] is not None:
        sheet.total("TOTAL", f"{text.safe(total['amount'])} {text.safe(total['currency'])}")


def _others(name: str, runs: Iterable[Json], sheet: "Sheet") -> None:
    runs = list(runs)
    if not runs:
        return
    sheet.section(f"{name} ({len(runs)})")
    for run in runs[:_LISTED]:
        amount = "–" if run["amount"] is None else f"{text.safe(run['amount'])} {text.safe(run['currency'])}"
        left = f"{text.safe(run['prediction'])}  {text.duration(run['active_ns'])}"
        sheet.leader(text.safe(run["status"]), left, amount)
    if len(runs) > _LISTED:
        sheet.row("", f"and {len(runs) - _LISTED} more: --json lists them all")


def _evidence(found: Json, sheet: "Sheet") -> None:
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
        amount = f"  {record['amount']}" if record.get("amount") is not None else ""
        final = "" if record["final"] is None or record["final"] else " interim"
        sheet.row(
            f"record {record['seq']}", f"{text.short_hash(record['hash'])}{final}{text.safe(amount) if amount else ''}"
        )
    if found["records_total"] > _LISTED:
        sheet.row("", f"{found['records_total'] - _LISTED} earlier ones: --json lists them")
    for card in found["billing"]["rate_cards"]:
        sheet.row("rate card", text.short_hash(card))
    if found["node"]:
        sheet.row(
            "measured by", f"{text.safe(found['node']['software'])}, config {text.short_hash(found['node']['config'])}"
        )


def _clocks(timing: Json) -> str:
    """Say what the clocks did, which changes no duration, and how far off the times of day may be."""
    said = "; ".join(CLOCKS.get(word, text.safe(word)) for word in timing["clock"]) or "agreed"
    within_ns = timing.get("utc_uncertainty_ns")
    return said if within_ns is None else f"{said}; UTC within {text.duration(within_ns)}"


def _unknown(asked: str, source: Source) -> str:
    """Say why there is no receipt; what no agent has booked may still wait in a journal."""
    journal, silent = source.directories.journal, source.agent is not None and source.complaint is not None
    if "/" not in asked and (journal / f"{asked[:200]}.0.ndjson").exists():
        remedy = "the agent does not answer" if silent else "start `taximeter agent`"
        return f"{text.safe(asked)} is measured, but nobody has booked it yet: {remedy}"
    said = text.safe(source.unknown)
    if not said.startswith("cannot "):
        said = f"cannot find {text.safe(asked)!r}: {said}"  # an agent of another version says it in other words
    if (source.agent is not None and not silent) or not _waits(journal):
        return said
    who = "the agent does not answer" if silent else "no agent runs"
    remedy = "`taximeter status` says more" if silent else "start one with `taximeter agent`"
    return f"{said}; {who}, and it may be waiting in a journal: {remedy}"


def _waits(journal: Path) -> bool:
    """Tell whether any journal is there to be booked; a user who may not list them is told nothing of others' runs."""
    try:
        return any(name.endswith(".ndjson") for name in os.listdir(journal))
    except OSError:
        return False
