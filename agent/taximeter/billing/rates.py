"""The rate card: versioned prices of hardware tiers and models, and which card was in force when.

Owns the card's shape and its checks, every fault of a card named at once. Refuses to know where a card came from.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from taximeter.billing.currencies import CURRENCIES
from taximeter.billing.models import ModelPrice
from taximeter.billing.models_file import Document, parse_models
from taximeter.billing.money import decimal_of, plain
from taximeter.digest import digest
from taximeter.errors import ConfigError

_SECOND = 1_000_000_000
#: Finer than microseconds, too, which no datetime keeps.
_PART_OF_A_SECOND = re.compile(r"[.,]\d*[1-9]")
_KEYS = ("version", "effective", "currency", "tiers", "models")


@dataclass(frozen=True, slots=True)
class RateCard:
    """Prices per second of hardware time, in one currency, and models' own prices, from one instant on."""

    version: str
    effective_utc_ns: int
    currency: str
    tiers: Mapping[str, Decimal]  #: tier slug -> price per second of the whole tier, never multiplied by its count
    hash: str  #: "sha256:…" over the canonical content
    models: Mapping[str, ModelPrice] = field(default_factory=dict)  #: by name; see `model`
    known_as: Mapping[str, ModelPrice] = field(default_factory=dict, repr=False)  #: by every name that marks may say

    def model(self, name: str | None) -> ModelPrice | None:
        """The price of the model that marks call so, by its name or its namespace; None: it has none of its own."""
        return None if name is None else self.known_as.get(name)

    def content(self) -> dict[str, object]:
        """The card as plain JSON values, from which `parse_card` makes the same card again."""
        content = _content(self.version, self.effective_utc_ns, self.currency, self.tiers)
        return content | _models_content(self.models)


def parse_card(mapping: Mapping[str, object], source: str, models: Document | None = None) -> RateCard:
    """A rate card from what TOML or JSON said; ConfigError names every fault, each with file and key.

    `models` is a second document, such as the platform's own list, that says models beside those of the card itself.
    """
    faults = [f"{source}: {key}: expected one of {', '.join(_KEYS)}" for key in mapping if key not in _KEYS]
    version = _text(mapping, "version", source, faults)
    currency = _text(mapping, "currency", source, faults)
    if currency and currency not in CURRENCIES:
        faults.append(f"{source}: currency = {currency!r}: expected an ISO 4217 code such as 'USD'")
    effective_utc_ns = _effective(mapping.get("effective"), source, faults)
    tiers = _tiers(mapping.get("tiers"), source, faults)
    own = [Document(mapping["models"], source, "models")] if "models" in mapping else []
    priced = _models(own if models is None else [*own, models], currency, tiers, faults)
    if faults:
        raise ConfigError(tuple(faults))
    content = _content(version, effective_utc_ns, currency, tiers) | _models_content(priced)
    return RateCard(version, effective_utc_ns, currency, tiers, digest(content), priced, _known_as(priced))


def _models(
    documents: Iterable[Document], currency: str, tiers: Mapping[str, Decimal], faults: list[str]
) -> dict[str, ModelPrice]:
    models: dict[str, ModelPrice] = {}
    for document in documents:
        for model in parse_models(document, currency, faults):
            if model.name in models:
                faults.append(f"{document.source}: models: {model.name!r} has two prices: expected one")
            elif model.plus_hardware and model.hardware is not None and model.hardware not in tiers:
                where = f"{document.source}: models: {model.name!r}.hardware = {model.hardware!r}"
                faults.append(f"{where}: expected a tier that the card prices, for plus_hardware")
            models[model.name] = model
    return models


def _known_as(models: Mapping[str, ModelPrice]) -> Mapping[str, ModelPrice]:
    """Models by name, and by namespace where that is the name of no other and of one alone."""
    spaces = Counter(model.namespace for model in models.values())
    alone = {model.namespace: model for model in models.values() if model.namespace and spaces[model.namespace] == 1}
    return alone | dict(models)


def _models_content(models: Mapping[str, ModelPrice]) -> dict[str, object]:
    """Nothing where there are none: a card without models keeps the hash that it had before there were any."""
    return {"models": {name: model.content() for name, model in sorted(models.items())}} if models else {}


def card_in_force(cards: tuple[RateCard, ...], at_utc_ns: int) -> RateCard | None:
    """The card with the latest `effective` that is not after `at_utc_ns`; of equals the later listed."""
    in_force: RateCard | None = None
    for card in cards:
        if card.effective_utc_ns <= at_utc_ns and (
            in_force is None or card.effective_utc_ns >= in_force.effective_utc_ns
        ):
            in_force = card
    return in_force


def _content(version: str, effective_utc_ns: int, currency: str, tiers: Mapping[str, Decimal]) -> dict[str, object]:
    return {
        "version": version,
        "effective": datetime.fromtimestamp(effective_utc_ns // _SECOND, UTC).isoformat(),
        "currency": currency,
        "tiers": {slug: plain(price) for slug, price in sorted(tiers.items())},
    }


def _text(mapping: Mapping[str, object], key: str, source: str, faults: list[str]) -> str:
    value = mapping.get(key)
    if isinstance(value, str) and value:
        return value
    faults.append(f"{source}: {key} = {value!r}: expected a text")
    return ""


def _effective(value: object, source: str, faults: list[str]) -> int:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, datetime) and moment.tzinfo is not None:
            if moment.microsecond or (isinstance(value, str) and _PART_OF_A_SECOND.search(value)):
                faults.append(f"{source}: effective = {_said(value)}: expected a whole second")
            return int(moment.timestamp()) * _SECOND
    except (ValueError, OverflowError):
        pass
    faults.append(
        f"{source}: effective = {_said(value)}: expected an instant with its zone, such as 2026-01-01T00:00:00Z"
    )
    return 0


def _said(value: object) -> str:
    """As the file says it, or nearly so: TOML has instants of its own, which are written without quotes."""
    return value.isoformat() if isinstance(value, datetime) else repr(value)


def _tiers(value: object, source: str, faults: list[str]) -> Mapping[str, Decimal]:
    if not isinstance(value, Mapping) or not value:
        faults.append(f"{source}: tiers: expected a table of tier = 'price per second'")
        return {}
    tiers: dict[str, Decimal] = {}
    for slug, price in value.items():
        try:
            tiers[slug] = decimal_of(price)
        except ValueError:
            expected = "expected a price per second as a string, such as '0.000225'"
            faults.append(f"{source}: tiers.{slug} = {price!r}: {expected}")
    return tiers
