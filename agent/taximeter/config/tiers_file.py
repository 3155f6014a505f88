"""tiers.toml: from what TOML says to a catalogue of rules.

Owns the keys of a rule. Refuses to know how rules are matched, and what a tier costs.
"""

from collections.abc import Mapping
from typing import Any, cast

from taximeter.config.check import Faults, Items, Schema, Table, check, integer, line, text
from taximeter.errors import ConfigError
from taximeter.hardware.inventory import UNKNOWN_TIER
from taximeter.hardware.tiers import Catalogue, Range, Tier

_slug = text(r"[a-z0-9][a-z0-9.-]{0,62}", "a slug such as 'gpu-h100' (lower case letters, digits, `-` and `.`)")


def _range(most: int, unit: str) -> Table:
    return Table({"min": integer(0, most, unit), "max": integer(0, most, unit)})


_TIER: Mapping[str, Schema] = {
    "slug": _slug,
    "title": line,
    "count": integer(0, 64, "devices"),
    "names": Items(line, at_least=1),
    "memory_mib": _range(1 << 30, "MiB"),
    "mig": Items(line, at_least=1),
    "mig_slices": integer(1, 8, "slices"),
    "compute": Items(text(r"[0-9]{1,2}\.[0-9]", "a compute capability such as '9.0'"), at_least=1),
    "pci": Items(text(r"[0-9A-Fa-f]{4}", "a PCI device id of four hex digits such as '2330'"), at_least=1),
    "host_cpus": _range(1 << 20, "CPUs"),
    "host_memory_gib": _range(1 << 30, "GiB"),
}
_DOCUMENT = Table(
    {
        "version": line,
        "tier": Items(Table(_TIER, required=frozenset({"slug", "title", "count"})), at_least=1),
    },
    required=frozenset({"version", "tier"}),
)


def parse_catalogue(mapping: Mapping[str, object], source: str) -> Catalogue:
    """Return the rules in their order; ConfigError names every fault of the document."""
    faults = Faults(source)
    checked = cast("dict[str, Any]", check(mapping, _DOCUMENT, "", faults))
    rules: tuple[dict[str, Any], ...] = checked.get("tier") or ()
    for at, rule in enumerate(rules):
        _check_sense(rule, f"tier[{at}]", faults)
    if faults.found:
        raise ConfigError(tuple(faults.found))
    return Catalogue(tuple(_tier(rule) for rule in rules), source)


def _check_sense(rule: Mapping[str, Any], path: str, faults: Faults) -> None:
    """Name what is well-formed and yet can never be meant."""
    if rule.get("slug") == UNKNOWN_TIER:
        faults.add(f"{path}.slug", UNKNOWN_TIER, "another slug: this one is for what no rule fits")
    if rule.get("count") and not rule.get("names") and not rule.get("pci"):
        faults.add(f"{path}.count", rule["count"], "`names` or `pci` beside it, or any device would fit")
    if rule.get("count") == 0:
        for key in ("names", "memory_mib", "mig", "mig_slices", "compute", "pci"):
            if rule.get(key):
                faults.add(f"{path}.{key}", _as_written(rule[key]), "no condition on devices where `count` is 0")
    for key in ("memory_mib", "host_cpus", "host_memory_gib"):
        ends = rule.get(key)
        if ends is not None and (ends.get("min") is None) and (ends.get("max") is None):
            faults.add(f"{path}.{key}", ends, "`min`, `max` or both, e.g. { min = 80000, max = 82000 }")
        elif ends and ends.get("min") is not None and ends.get("max") is not None and ends["min"] > ends["max"]:
            faults.add(f"{path}.{key}", ends, "`min` not above `max`")


def _as_written(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _tier(rule: Mapping[str, Any]) -> Tier:
    def ends(key: str) -> Range | None:
        return Range(rule[key].get("min"), rule[key].get("max")) if key in rule else None

    def words(key: str) -> tuple[str, ...]:
        return tuple(rule.get(key, ()))

    return Tier(
        slug=rule["slug"],
        title=rule["title"],
        count=rule["count"],
        names=words("names"),
        memory_mib=ends("memory_mib"),
        mig=words("mig"),
        mig_slices=rule.get("mig_slices"),
        compute=words("compute"),
        pci=words("pci"),
        host_cpus=ends("host_cpus"),
        host_memory_gib=ends("host_memory_gib"),
    )
