"""`taximeter status`: the node at a glance.

Owns the glance. Says what is wrong in words, and by its exit status to scripts: 0 only while a ready agent answers.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter.cli import text
from taximeter.cli.source import Source

if TYPE_CHECKING:
    from taximeter.cli.sheet import Sheet

Json = Mapping[str, Any]

#: So many pools are shown, those whose instances took most time.
MOST_POOLS = 8
POOL_PHASES = ("boot", "idle", "active", "teardown", "suspended", "unknown")


def status(as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False) -> int:
    """Show the node at a glance.

    Exits 0 while a ready agent answers, else 1.
    """
    source = Source(os.environ)
    answer = source.status()
    source.complain()
    from taximeter.cli.sheet import Sheet, print_json  # noqa: PLC0415 - rich, only where something is shown

    if as_json:
        print_json(answer)
    else:
        sheet = Sheet()
        write(answer, str(source.directories.state), sheet)
        sheet.show()
    return 0 if answer["ready"] else 1


def write(answer: Json, state: str, sheet: "Sheet") -> None:
    """Write the glance on a sheet."""
    agent, node = answer["agent"], answer.get("node") or {}
    state_word, style = (
        ("no answer" if answer.get("silent_pid") else "no agent", "red")
        if not agent
        else ("ready", "green")
        if answer["ready"]
        else ("not ready", "yellow")
    )
    sheet.title(f"TAXIMETER {text.safe(node['id'])}" if node else "TAXIMETER", state_word, style)
    if agent:
        region = f", {text.safe(node['region'])}" if node.get("region") else ""
        sheet.row("node", f"{text.safe(node['id'])}{region}")
        sheet.row("tier", node["tier"], "yellow" if node["tier"] == "unknown" else "")
        sheet.row("agent", f"{text.safe(agent['version'])}, since {text.instant(agent['started_utc'])} UTC")
        sheet.row("config", text.short_hash(agent["config"]))
        _write_rates(answer.get("rates") or {}, sheet)
        sheet.row("witness", _witness(answer.get("witness") or {}))
        sheet.row("instances", _instances(answer["instances"] or {}))
    else:
        silent = answer.get("silent_pid")
        said = "does not run: start one with `taximeter agent`"
        sheet.row(
            "agent", said if silent is None else f"does not answer (pid {silent}): see below", "red" * bool(silent)
        )
    ledger = answer["ledger"]
    head = f", head {text.short_hash(ledger['hash'])}" if ledger["seq"] else ""
    sheet.row("ledger", text.plural(ledger["seq"], "record") + head)
    sheet.row("state", state)
    _write_pools(answer.get("pools") or (), sheet)
    for at, sink in enumerate(answer["sinks"]):
        ails = sink.get("last_error") or sink.get("dead_letters")
        sheet.row("sinks" if at == 0 else "", _sink(sink), "yellow" if ails else "")
    if not answer["sinks"]:
        sheet.row("sinks", "none: records stay in the ledger")
    for at, problem in enumerate(answer["problems"]):
        sheet.row("problems" if at == 0 else "", problem, "red")


def _write_rates(rates: Json, sheet: "Sheet") -> None:
    """Which prices are in force, and whether their list is fresh."""
    if not rates:
        return
    listed = rates.get("list")
    if rates["version"] is None:
        sheet.row("rates", "none in force", "red")
    else:
        models = f", {text.plural(rates['models'], 'model')}" if rates["models"] else ""
        since = f"since {text.instant(rates['effective'])[:16]} UTC"
        sheet.row("rates", f"version {text.safe(rates['version'])} in {text.safe(rates['currency'])}{models}, {since}")
    if listed:
        checked = listed["checked_utc"]
        when = f"seen {text.instant(checked)[:19]} UTC" if checked else "not seen since the agent's start"
        error = f"; {text.safe(listed['last_error'].splitlines()[0])}" if listed["last_error"] else ""
        sheet.row("", f"{text.safe(listed['url'])}: {when}{error}", "yellow" if error else "dim")


def _write_pools(pools: Sequence[Json], sheet: "Sheet") -> None:
    """How much of each pool's time was sold, and what the rest was."""
    for at, pool in enumerate(pools[:MOST_POOLS]):
        sold = f"{text.percent(pool['sold_ns'], pool['wall_ns'])} of {text.duration(pool['wall_ns'])} sold"
        since = f" (since {text.instant(pool['since_utc'])[:16]} UTC)" if at == 0 else ""
        sheet.row("pools" if at == 0 else "", f"{text.safe(pool['pool'])}: {sold}{since}")
        parts = [f"{phase} {text.duration(pool[f'{phase}_ns'])}" for phase in POOL_PHASES if pool[f"{phase}_ns"]]
        loads = f"; loads {text.duration(pool['load_ns'])}" if pool["load_ns"] else ""
        sheet.row("", ", ".join(parts) + loads, "dim")
    if len(pools) > MOST_POOLS:
        sheet.row("", f"and {len(pools) - MOST_POOLS} more: see --json")


def _witness(witness: Json) -> str:
    """Who sees starts and ends, best first."""
    if witness.get("kernel"):
        return "the kernel, and below it wrappers and pidfds"
    trouble = f" (no kernel: {text.safe(witness['trouble'])})" if witness.get("trouble") else ""
    return f"wrappers and pidfds{trouble}"


def _instances(by_phase: Mapping[str, int]) -> str:
    if not by_phase:
        return "none"
    return ", ".join(f"{count:,} {text.safe(phase)}" for phase, count in by_phase.items())


def _sink(sink: Json) -> str:
    kind = f" ({text.safe(sink['kind'])})" if sink.get("kind") else ""
    pending = f"{text.plural(sink['pending'], 'record')} pending" if sink["pending"] else "up to date"
    error = f"; {text.safe(sink['last_error'])}" if sink.get("last_error") else ""
    letters = f"; {text.plural(sink['dead_letters'], 'record')} refused" if sink.get("dead_letters") else ""
    return f"{text.safe(sink['name'])}{kind}: {pending}{letters}{error}"
