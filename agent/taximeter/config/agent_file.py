"""agent.toml: its keys, and what of it is well-formed.

Owns the table of settings with their bounds. Refuses to know defaults (the shipped agent.toml has them) and
to look at anything outside the document.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

from taximeter.config.check import (
    Faults,
    Items,
    Leaf,
    Named,
    Schema,
    Table,
    boolean,
    check,
    integer,
    line,
    nats_url,
    number,
    one_of,
    text,
    url,
)
from taximeter.config.model import Listen
from taximeter.events import ServiceClass
from taximeter.hardware.evidence import OnMismatch

SINK_TYPES = ("file", "http", "nats")

_id = text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "a name of letters, digits, `.`, `_` and `-`, such as 'gpu-node-7'")
_sink_name = text(r"[a-z][a-z0-9_-]{0,31}", "a short name such as 'billing' (lower case letters, digits, `_`, `-`)")
_subject = text(
    r"(?=.{1,256}$)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(\.\{id\})?",
    "a subject such as 'taximeter.usage' or 'taximeter.usage.{id}' (letters, digits, `-`, `_`; no wildcards)",
)
#: As much as the kernel takes for a socket's name.
_socket_path = text(r"/[ -~]{1,106}", "an absolute path of at most 107 characters, such as '/run/taximeter/http.sock'")
_user = text(r"[!-~]{1,256}", "a user's name")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")


def listen(value: object) -> Listen:
    """Read `host:port`, an IPv6 host in brackets."""
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[2]) > 65_535:
        raise ValueError("host:port such as '127.0.0.1:9847' or '[::1]:9847'")
    return Listen(match[1].strip("[]"), int(match[2]))


def tables(value: object) -> Mapping[str, object]:
    """Read a table of tables, whose keys are looked at elsewhere."""
    if isinstance(value, Mapping):
        return value
    raise ValueError("tables such as [invoice.USD]")


def _owner(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32:
        return str(value)
    raise ValueError("a user name, a uid, 'self' or 'any'")


def _multiplier(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,12})?", value):
        return value
    raise ValueError("a multiplier as a string, such as '1' or '0.5'")


_PHASES = ("boot", "load", "idle", "active", "teardown", "failed", "canceled", "aborted")
_CLASS = Table({**dict.fromkeys(_PHASES, cast("Leaf", _multiplier)), "quantity": one_of(("share", "active"))})

_name = text(r"[^\x00-\x1f\x7f]{1,256}", "a name of 1 to 256 characters")


def _amount(pattern: str, expected: str) -> Leaf:
    return text(pattern, f"{expected} as a string, such as '10' or '99.50'")


_most = _amount(r"[0-9]{1,18}(\.[0-9]{1,18})?", "an amount")
_threshold = _amount(r"(?=.*[1-9])[0-9]{1,18}(\.[0-9]{1,18})?", "an amount above 0")
_floor = _amount(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", "an amount, which may be negative,")


def _prepaid(value: object) -> object:
    if value in ("none", "all"):
        return value
    if isinstance(value, list):
        return [_name(item) for item in value]
    raise ValueError("'none', 'all', or a list of accounts")


_on_mismatch = one_of(tuple(choice.value for choice in OnMismatch))

AGENT = Table(
    {
        "tiers": line,
        "rates": line,
        "models": line,
        "node": Table({"id": _id, "region": _id}),
        "listen": Table({"address": listen, "unix": _socket_path}),
        "journal": Table(
            {
                "owners": Items(_owner, at_least=1),
                "poll_s": number(0.01, 3600, "seconds"),
                "open_per_owner": integer(1, 1_000_000, "instances"),
                "when_full": one_of(("unknown", "refuse")),
            }
        ),
        "marks": Table({"belief_ms": integer(0, 60_000, "milliseconds")}),
        "billing": Table(
            {
                "interim_s": integer(1, 604_800, "seconds"),
                "late_cards": one_of(("correct", "warn")),
                "classes": Table({name.value: _CLASS for name in ServiceClass}),
            }
        ),
        "ledger": Table(
            {
                "commit_delay_ms": integer(0, 1000, "milliseconds"),
                "batch": integer(1, 100_000, "records"),
                "checkpoint_records": integer(1, 1_000_000_000, "records"),
                "checkpoint_s": number(1, 31_536_000, "seconds"),
                "keep_days": number(0, 36_500, "days"),
            }
        ),
        "hardware": Table(
            {
                "nvml": boolean,
                "deadline_s": number(0.1, 300, "seconds"),
                "sample_s": number(0.01, 60, "seconds"),
                "on_mismatch": _on_mismatch,
            }
        ),
        "witness": Table({"kernel": boolean}),
        "price_list": Table(
            {
                "url": url,
                "key_file": line,
                "poll_s": number(1, 604_800, "seconds"),
                "timeout_s": number(0.1, 600, "seconds"),
            }
        ),
        "invoice": tables,  # by currency: see billing.invoice
        "charges": Table({"thresholds": Items(_threshold), "accounts": Named(_name, Items(_threshold))}),
        "credit": Table(
            {
                "prepaid": _prepaid,
                "floor": _floor,
                "without_agent": one_of(("admit", "refuse")),
                "caps": Named(_name, _most),
                "limits": Named(_name, Named(_name, _most)),
            }
        ),
        # A sink's keys depend on its type: see below.
        "sinks": lambda value: value,
    }
)

_SINK: Mapping[str, Schema] = {"name": _sink_name, "type": one_of(SINK_TYPES)}
_SINKS = {
    "file": Table(
        {
            **_SINK,
            "path": line,
            "rotate_bytes": integer(1 << 20, 1 << 50, "bytes"),
            "keep": integer(1, 1_000_000, "files"),
        },
        frozenset({"name", "type", "path"}),
    ),
    "http": Table(
        {
            **_SINK,
            "url": url,
            "read_url": url,
            "token_file": line,
            "timeout_s": number(0.1, 600, "seconds"),
            "gzip": boolean,
        },
        frozenset({"name", "type", "url"}),
    ),
    "nats": Table(
        {
            **_SINK,
            "url": nats_url,
            "subject": _subject,
            "token_file": line,
            "user": _user,
            "creds_file": line,
            "timeout_s": number(0.1, 600, "seconds"),
        },
        frozenset({"name", "type", "url", "subject"}),
    ),
}
_ANY_SINK = Table(
    {key: schema for table in _SINKS.values() for key, schema in table.keys.items()} | {"url": line},
    frozenset({"name", "type"}),
)


def check_agent(merged: Mapping[str, object], faults: Faults) -> dict[str, Any]:
    """Return the settings as their leaves read them; what is wrong is in `faults`."""
    checked = cast("dict[str, Any]", check(merged, AGENT, "", faults))
    checked["sinks"] = _check_sinks(merged.get("sinks"), faults)
    return checked


def _check_sinks(value: object, faults: Faults) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        faults.add("sinks", value, "tables that begin with [[sinks]], or [] for none")
        return []
    sinks: list[dict[str, Any]] = []
    for at, item in enumerate(value):
        kind = item.get("type") if isinstance(item, Mapping) else None
        schema = _SINKS.get(kind, _ANY_SINK) if isinstance(kind, str) else _ANY_SINK
        sinks.append(cast("dict[str, Any]", check(item, schema, f"sinks[{at}]", faults)))
    seen: set[str] = set()
    for at, sink in enumerate(sinks):
        name = sink.get("name")
        if name in seen:
            faults.add(f"sinks[{at}].name", name, "a name that no other sink has: what was shipped is kept by it")
        if name is not None:
            seen.add(name)
        if "keep" in sink and "rotate_bytes" not in sink:
            faults.add(f"sinks[{at}].keep", sink["keep"], "`rotate_bytes` beside it, without which there is one file")
        if "creds_file" in sink and ("user" in sink or "token_file" in sink):
            faults.add(f"sinks[{at}].creds_file", sink["creds_file"], "no `token_file` and no `user` beside it")
        elif "user" in sink and "token_file" not in sink:
            faults.add(f"sinks[{at}].user", sink["user"], "a `token_file` beside it, which holds the password")
    return sinks
