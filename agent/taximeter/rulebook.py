"""What was in force when: the rules (classes, interim length, belief in a worker's clock) and the rate cards.

Both are facts of the ledger, found again by their hash, so that a replay judges by what was in force then.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from taximeter.billing.classes import Classes, parse_classes
from taximeter.billing.rates import RateCard, card_in_force
from taximeter.billing.tariffs import Offer, Sale
from taximeter.digest import digest
from taximeter.errors import ConfigError
from taximeter.events import ServiceClass, Status
from taximeter.hardware.evidence import OnMismatch


@dataclass(frozen=True, slots=True)
class Rules:
    """How facts become records."""

    interim_ns: int  #: interim records are cut at multiples of this since the instance's start
    belief_ns: int  #: how far back a mark's own `at` is believed
    classes: Classes
    hash: str
    on_mismatch: OnMismatch = OnMismatch.CHEAPER  #: which tier bills where declared and observed devices differ

    def content(self) -> dict[str, object]:
        """The rules as plain JSON values, from which `parse_rules` makes the same rules again."""
        return {
            "interim_ns": self.interim_ns,
            "belief_ns": self.belief_ns,
            "classes": self.classes.content(),
            "on_mismatch": self.on_mismatch.value,
        }


def make_rules(
    interim_ns: int, belief_ns: int, classes: Classes, on_mismatch: OnMismatch = OnMismatch.CHEAPER
) -> Rules:
    """Rules under the hash of their content."""
    rules = Rules(interim_ns, belief_ns, classes, "", on_mismatch)
    return replace(rules, hash=digest(rules.content()))


def parse_rules(mapping: Mapping[str, object], source: str) -> Rules:
    """Rules from a ledger's fact; ConfigError where it is not one."""
    interim_ns, belief_ns, classes = mapping.get("interim_ns"), mapping.get("belief_ns"), mapping.get("classes")
    if not isinstance(interim_ns, int) or not isinstance(belief_ns, int) or not isinstance(classes, Mapping):
        raise ConfigError((f"{source}: expected rules with interim_ns, belief_ns and classes",))
    on_mismatch = mapping.get("on_mismatch", OnMismatch.CHEAPER.value)  # older agents did not say
    if on_mismatch not in tuple(OnMismatch):
        raise ConfigError((f"{source}: on_mismatch = {on_mismatch!r}: expected one of {', '.join(OnMismatch)}",))
    return make_rules(interim_ns, belief_ns, parse_classes(classes, source), OnMismatch(str(on_mismatch)))


class Sold(NamedTuple):
    """How something is sold, by the names of what its price depends on, but for its attributes."""

    rules: str
    card: str | None
    model: str | None  #: None: it has no price of its own
    service_class: ServiceClass
    status: Status
    tier: str
    devices: int
    online: bool


#: So many offers are remembered: a card may have thousands of models.
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Rulebook:
    """All rules and cards that any open instance may have begun under, and the rules for new ones."""

    rules: Mapping[str, Rules]
    current: str
    cards: tuple[RateCard, ...] = ()
    source: str = ""  #: the CloudEvents source of this node's records, for corrections to name
    _offers: dict[Sold, Offer] = field(default_factory=dict, init=False, repr=False, compare=False)

    def rules_of(self, known_as: str) -> Rules:
        """The rules that a state names; today's where they were lost."""
        return self.rules.get(known_as) or self.rules[self.current]

    def offer(self, sold: Sold) -> Offer:
        """What is sold so, worked out once."""
        offer = self._offers.get(sold)
        if offer is None:
            if len(self._offers) >= _REMEMBERED:
                self._offers.clear()
            offer = self._offers[sold] = self._offer(sold)
        return offer

    def _offer(self, sold: Sold) -> Offer:
        card = self.card_of(sold.card)
        model = card.model(sold.model) if card else None
        terms = self.rules_of(sold.rules).classes.terms[sold.service_class]
        return Offer(Sale(card, model, terms, sold.status, sold.tier, sold.devices, {}, sold.online))

    def card_at(self, utc_ns: int) -> RateCard | None:
        """The card in force at an instant."""
        return card_in_force(self.cards, utc_ns)

    def card_after(self, known_as: str | None) -> RateCard | None:
        """The first card that takes effect later than the one that a state names; of equals the last listed."""
        current, found = self.card_of(known_as), None
        for card in self.cards:
            later = current is None or card.effective_utc_ns > current.effective_utc_ns
            if later and (found is None or card.effective_utc_ns <= found.effective_utc_ns):
                found = card
        return found

    def card_of(self, known_as: str | None) -> RateCard | None:
        """The card that a state names."""
        for card in self.cards:
            if card.hash == known_as:
                return card
        return None
