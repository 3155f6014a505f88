"""What is in force, as facts of the ledger: the ledger's beginning, config, rules, tiers, rate cards.

Owns the ledger's own records. Whatever was ever in force is found again in them, so that a run is judged by what held
when it began, whatever the config says today. Refuses to know what any of it means.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from taximeter.billing.notices import own_id
from taximeter.billing.rates import RateCard, parse_card
from taximeter.billing.spending import Spending
from taximeter.config import Config, fingerprint
from taximeter.digest import digest
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.ledger.sayings import SPENDING
from taximeter.records import RecordType, UsageRecord, fact
from taximeter.rulebook import Rulebook, Rules, make_rules, parse_rules

_BEGUN, _CONFIG, _RULES, _TIERS, _CARD = "ledger_begun", "config", "rules", "tiers", "rate_card"
_NO_SPENDING = Spending()
_MS = 1_000_000
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Known:
    """The facts that a ledger holds."""

    next_own: int  #: the number of the ledger's next own record
    newest: Mapping[str, str]  #: kind -> hash of the latest fact of that kind
    rules: Mapping[str, Rules]
    cards: tuple[RateCard, ...]
    history: tuple[tuple[str, str], ...] = ()  #: since when which rules were in force, as records write a time

    before: Mapping[str, object] | None = None  #: the ledger whose place a new one takes

    def rules_at(self, utc: str) -> Rules | None:
        """The rules that were in force at an instant, as records write it; before there were any, the first."""
        then = [known_as for since, known_as in self.history if since <= utc] or [one for _, one in self.history[:1]]
        return self.rules[then[-1]] if then else None


def read_known(reader: LedgerReader) -> Known:
    """Everything that was ever put in force, read back from the ledger."""
    newest: dict[str, str] = {}
    rules: dict[str, Rules] = {}
    cards: dict[str, RateCard] = {}
    history: list[tuple[str, str]] = []
    for body in reader.records(RecordFilter(type=RecordType.FACT, limit=None)):
        event = orjson.loads(body)
        data = event["data"]
        kind, known_as = data["fact"], data.get("hash", "")
        newest[kind] = known_as
        if kind == _RULES:
            rules[known_as] = parse_rules(data["content"], "ledger")
            history.append((event["time"], known_as))
        elif kind == _CARD:
            cards[known_as] = parse_card(data["content"], "ledger")
    return Known(reader.next_own(), newest, rules, tuple(cards.values()), tuple(history))


def has_begun(known: Known) -> bool:
    """Whether the ledger says already that it began."""
    return _BEGUN in known.newest


def put_in_force(
    config: Config, card: RateCard | None, known: Known, ledger_id: str, source: str, now_utc_ns: int
) -> tuple[Rulebook, tuple[UsageRecord, ...]]:
    """The rulebook of `config` on top of what is known, and the facts that are news to the ledger.

    `card` is the rate card to be in force from now on; None: what is known stays.
    """
    billing, on_mismatch = config.billing, config.hardware.on_mismatch
    rules = make_rules(billing.interim_s * _SECOND, config.marks.belief_ms * _MS, billing.classes, on_mismatch)
    facts: tuple[tuple[str, str, object], ...] = (
        (_BEGUN, digest(ledger_id), _begun(ledger_id, known.before)),
        (_CONFIG, fingerprint(config), config.content),
        (_RULES, rules.hash, rules.content()),
        (_TIERS, digest(config.tiers_content), config.tiers_content),
    )
    if card is not None:
        facts = (*facts, (_CARD, card.hash, card.content()))
    spending = config.spending
    if SPENDING in known.newest or spending != _NO_SPENDING:
        facts = (*facts, (SPENDING, digest(spending.content()), spending.content()))
    news = [fact for fact in facts if known.newest.get(fact[0]) != fact[1]]
    records = tuple(_record(ledger_id, known.next_own + at, now_utc_ns, fact) for at, fact in enumerate(news))
    book = Rulebook({**known.rules, rules.hash: rules}, rules.hash, with_card(known.cards, card), source)
    return book, records


def _begun(ledger_id: str, before: Mapping[str, object] | None) -> Mapping[str, object]:
    return {"ledger": ledger_id} if before is None else {"ledger": ledger_id, "previous": before}


def card_record(card: RateCard, record_id: str, now_utc_ns: int) -> UsageRecord:
    """The fact that a card was put in force."""
    return fact(record_id, now_utc_ns, (_CARD, card.hash, card.content()))


def with_card(cards: Iterable[RateCard], card: RateCard | None) -> tuple[RateCard, ...]:
    """The card last: of cards that begin at the same instant, the one put in force last counts."""
    if card is None:
        return tuple(cards)
    return (*(other for other in cards if other.hash != card.hash), card)


def _record(ledger_id: str, number: int, now_utc_ns: int, said: tuple[str, str, object]) -> UsageRecord:
    return fact(own_id(ledger_id, number), now_utc_ns, said)
