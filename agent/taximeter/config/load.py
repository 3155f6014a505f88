"""From files and environment to a checked Config, or to every fault at once.

Owns the order: the shipped agent.toml, the node's own laid over it, then the tiers and rates that it names.
Refuses to know how anything is matched, priced or used.
"""

import os
import pwd
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from taximeter.billing.classes import Classes, parse_classes
from taximeter.billing.invoice import parse_invoice
from taximeter.billing.models_file import Document
from taximeter.billing.rates import RateCard, parse_card
from taximeter.billing.spending import parse_spending
from taximeter.config import files, model
from taximeter.config.agent_file import check_agent
from taximeter.config.check import Faults
from taximeter.config.tiers_file import parse_catalogue
from taximeter.digest import digest
from taximeter.errors import ConfigError
from taximeter.hardware.evidence import OnMismatch
from taximeter.hardware.tiers import Catalogue

SHIPPED = "agent.toml"
#: What the agent keeps in its state directory, and no sink may write to.
_OWN_FILES = frozenset({"agent.lock", "agent.toml", "token", "journal", "price_list.json", "checkpoint", "seal.key"})
_LEDGER = "ledger.db"  # and what SQLite puts beside it

_T = TypeVar("_T")


def load(path: Path | None, environ: Mapping[str, str]) -> model.Config:
    """Return the config in force: `path`, else what the environment or this machine names, else the shipped one.

    ConfigError names every fault of agent.toml, tiers.toml and rates.toml, as `FILE: KEY = VALUE: expected WHAT`.
    """
    found = files.find(path, environ)
    faults = Faults(str(found) if found else f"{SHIPPED} (shipped)")
    own = files.read(found) if found else {}
    merged = _merge(files.read_shipped(SHIPPED), own)
    checked = check_agent(merged, faults)
    base = found.parent if found else Path()
    tiers = _document("tiers", own, base, faults)
    rates = _document("rates", own, base, faults)
    models = _models(own, base, faults)
    parts = {
        "owner_uids": _owner_uids(checked.get("journal", {}).get("owners"), faults),
        "sinks": tuple(_sinks(checked["sinks"], base, files.directories(environ).state, faults)),
        "price_list": _price_list(checked.get("price_list") or {}, base, faults),
        "invoice": _caught(lambda: parse_invoice(checked.get("invoice") or {}, f"{faults.source}: invoice"), faults),
        "classes": _caught(lambda: _classes(merged, faults), faults),
        "catalogue": tiers and _caught(lambda: parse_catalogue(*tiers), faults),
        "rate_card": rates and _caught(lambda: parse_card(*rates, models), faults),
    }
    if faults.found:
        raise ConfigError(tuple(dict.fromkeys(faults.found)))
    content = {key: value for key, value in merged.items() if key not in ("tiers", "rates", "models")}
    return _config(faults.source, checked, parts, _plain(content), _plain(tiers and tiers[0]))


def fingerprint(config: model.Config) -> str:
    """Return `sha256:…` over all settings, the tiers and the rate card, whatever files they came from."""
    return digest({"agent": config.content, "tiers": config.tiers_content, "rates": config.rate_card.content()})


def _config(
    source: str,
    checked: Mapping[str, Any],
    parts: Mapping[str, Any],
    content: Mapping[str, object],
    tiers_content: Mapping[str, object],
) -> model.Config:
    node, journal, billing = checked["node"], checked["journal"], checked["billing"]
    return model.Config(
        source=source,
        node=model.Node(node.get("id"), node.get("region")),
        listen=replace(checked["listen"]["address"], unix=checked["listen"].get("unix")),
        journal=model.JournalSettings(
            journal["owners"],
            parts["owner_uids"],
            journal["poll_s"],
            journal["open_per_owner"],
            journal["when_full"],
        ),
        marks=model.MarkSettings(**checked["marks"]),
        billing=model.BillingSettings(billing["interim_s"], parts["classes"], billing["late_cards"] == "correct"),
        ledger=model.LedgerSettings(**checked["ledger"]),
        hardware=_hardware(**checked["hardware"]),
        witness=model.WitnessSettings(**checked["witness"]),
        sinks=parts["sinks"],
        catalogue=parts["catalogue"],
        rate_card=parts["rate_card"],
        spending=parse_spending(checked, source),
        refuse_without_agent=checked["credit"]["without_agent"] == "refuse",
        content=content,
        tiers_content=tiers_content,
        price_list=parts["price_list"],
        invoice=parts["invoice"],
        notes=tuple(_notes(parts["catalogue"], parts["rate_card"])),
    )


def _merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Lay one document over another: tables key by key, all else whole."""
    merged = dict(base)
    for key, value in over.items():
        below = base.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _document(
    name: str, own: Mapping[str, object], base: Path, faults: Faults
) -> tuple[Mapping[str, object], str] | None:
    """Read tiers or rates: the file that agent.toml names, relative to it, else the shipped one."""
    if name not in own:
        return files.read_shipped(f"{name}.toml"), f"{name}.toml (shipped)"
    said = own[name]
    if not isinstance(said, str) or "\0" in said:
        return None  # its own fault is noted already
    path = base / said
    read = _caught(lambda: files.read(path), faults)
    return None if read is None else (read, str(path))


def _models(own: Mapping[str, object], base: Path, faults: Faults) -> Document | None:
    """Read the second document of the rate card, where agent.toml names one."""
    said = own.get("models")
    if not isinstance(said, str) or "\0" in said:
        return None  # there is none, or its fault is noted already
    path = base / said
    read = _caught(lambda: files.read_any(path), faults)
    if isinstance(read, dict) and list(read) == ["models"]:  # as TOML has it: [[models]]
        return Document(read["models"], str(path), "models")
    return None if read is None else Document(read, str(path))


def _caught(make: Callable[[], _T], faults: Faults) -> _T | None:
    try:
        return make()
    except ConfigError as error:
        faults.found.extend(error.faults)
        return None


def _classes(merged: Mapping[str, Any], faults: Faults) -> Classes | None:
    if any(": billing" in fault for fault in faults.found):
        return None  # already named, by key
    where = f"{faults.source}: billing.classes"
    try:
        return parse_classes(merged["billing"]["classes"], where)
    except ConfigError as error:
        raise ConfigError(tuple(fault.replace(f"{where}: ", f"{where}.", 1) for fault in error.faults)) from error


def _owner_uids(owners: Iterable[object] | None, faults: Faults) -> frozenset[int] | None:
    """Return the uids behind names; None where anybody's journals are booked."""
    uids: set[int] = set()
    for at, owner in enumerate(owners or ()):
        if owner == "any":
            return None
        if owner == "self":
            uids.add(os.geteuid())
        elif isinstance(owner, str) and owner.isdigit():
            uids.add(int(owner))
        elif isinstance(owner, str):
            try:
                uids.add(pwd.getpwnam(owner).pw_uid)
            except KeyError:
                faults.add(f"journal.owners[{at}]", owner, "a user of this machine, a uid, 'self' or 'any'")
    return frozenset(uids)


def _sinks(checked: list[dict[str, Any]], base: Path, state: Path, faults: Faults) -> Iterator[model.SinkConfig]:
    """Settle paths: records lie in the state directory, what the operator wrote lies beside the config."""
    taken: set[str] = set()
    for at, sink in enumerate(checked):
        settled = dict(sink)
        if isinstance(sink.get("path"), str):
            settled["path"] = state / sink["path"]
            _check_path(settled["path"], state, taken, f"sinks[{at}].path", faults)
        for key in ("token_file", "creds_file"):
            if isinstance(sink.get(key), str):
                settled[key] = base / sink[key]
                _check_token_file(settled[key], f"sinks[{at}].{key}", faults)
        if not faults.found:
            yield model.SinkConfig(**settled)


def _price_list(said: Mapping[str, Any], base: Path, faults: Faults) -> model.PriceListSettings | None:
    """Settle the list's key, which lies beside the config; None where no list is asked for."""
    if not isinstance(said.get("url"), str):
        return None
    key_file = base / said["key_file"] if isinstance(said.get("key_file"), str) else None
    if key_file is not None:
        _check_token_file(key_file, "price_list.key_file", faults)
    return model.PriceListSettings(said["url"], key_file, said.get("poll_s", 0), said.get("timeout_s", 0))


def _check_path(path: Path, state: Path, taken: set[str], key: str, faults: Faults) -> None:
    """A sink cuts its file to whole lines and appends: to the agent's own files that would be the end of them."""
    real = os.path.realpath(path)
    within = os.path.relpath(real, os.path.realpath(state))
    if within.split("/")[0] in _OWN_FILES or within.startswith(_LEDGER):
        faults.add(key, str(path), "a file that is not the agent's own")
    elif real in taken:
        faults.add(key, str(path), "a file that no other sink writes to")
    elif any(_is_numbered(real, other) or _is_numbered(other, real) for other in taken):
        faults.add(key, str(path), "a name that no other sink gives to a file that is full")
    taken.add(real)


def _is_numbered(path: str, other: str) -> bool:
    return path.startswith(f"{other}.") and path[len(other) + 1 :].isdigit()


def _check_token_file(path: Path, key: str, faults: Faults) -> None:
    try:
        status = path.stat()
    except OSError as error:
        faults.add(key, str(path), f"a file that holds the token ({error.strerror})")
        return
    if not stat.S_ISREG(status.st_mode):
        faults.add(key, str(path), "a regular file that holds the token")
    elif status.st_mode & 0o007:
        faults.add(key, str(path), f"a file that others cannot read; its mode is {status.st_mode & 0o7777:04o}")


def _hardware(*, on_mismatch: str, **others: Any) -> model.HardwareSettings:
    return model.HardwareSettings(**others, on_mismatch=OnMismatch(on_mismatch))


def _notes(catalogue: Catalogue, card: RateCard) -> Iterator[str]:
    """Say where tiers and prices do not meet: legal, since no price is ever invented, but rarely meant."""
    slugs = [tier.slug for tier in catalogue.tiers]
    if unpriced := [slug for slug in dict.fromkeys(slugs) if slug not in card.tiers]:
        yield f"without a price, so that their use is recorded as unrated: {', '.join(unpriced)}"
    if unmatched := [slug for slug in card.tiers if slug not in slugs]:
        yield f"priced, but no rule leads there: {', '.join(unmatched)}"


def _plain(value: Any) -> Any:
    """Return `value` as JSON has it."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
