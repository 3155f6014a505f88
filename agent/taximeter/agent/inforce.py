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
from taximeter.values import replace

_BEGUN, _CONFIG, _RULES, _TIERS, _CARD = "ledger_begun", "config", "rules", "tiers", "rate_card"
_NO_SPENDING = Spending()
#: That all is corrected which was billed before a card came that was in force by then.
BILLS_CORRECTED = "bills_corrected"
#: Of a card's fact: what was billed since it took effect is to be corrected.
_LATE = "late"
#: A list takes effect when it is seen, and a file as it is written: neither is late by less than this.
_LATE_NS = 1_000_000_000
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
    late: tuple[str, ...] = ()  #: cards that came late, and what was billed meanwhile is not known to be corrected

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
    late: dict[str, None] = {}
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
            if data.get(_LATE):
                late[known_as] = None
        elif kind == BILLS_CORRECTED:
            late.pop(data["content"]["card"], None)
    return Known(reader.next_own(), newest, rules, tuple(cards.values()), tuple(history), late=tuple(late))


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
    records = [_record(ledger_id, known.next_own + at, now_utc_ns, fact) for at, fact in enumerate(news)]
    if card is not None and known.newest and config.billing.corrects_late and is_late(card, now_utc_ns):
        records = [_to_correct(one) if one.data["fact"] == _CARD else one for one in records]
    book = Rulebook({**known.rules, rules.hash: rules}, rules.hash, with_card(known.cards, card), source)
    return book, tuple(records)


def _begun(ledger_id: str, before: Mapping[str, object] | None) -> Mapping[str, object]:
    return {"ledger": ledger_id} if before is None else {"ledger": ledger_id, "previous": before}


def is_news(card: RateCard, known: Known) -> bool:
    """Whether a card is another than was last put in force."""
    return known.newest.get(_CARD) != card.hash


def is_late(card: RateCard, now_utc_ns: int) -> bool:
    """Whether a card that is put in force now was to be in force before."""
    return card.effective_utc_ns < now_utc_ns - _LATE_NS


def card_record(card: RateCard, record_id: str, now_utc_ns: int, *, corrects: bool = False) -> UsageRecord:
    """The fact that a card was put in force; `corrects`: also for what was billed since it took effect."""
    said = fact(record_id, now_utc_ns, (_CARD, card.hash, card.content()))
    return _to_correct(said) if corrects else said


def _to_correct(said: UsageRecord) -> UsageRecord:
    return replace(said, data={**said.data, _LATE: True})


def with_card(cards: Iterable[RateCard], card: RateCard | None) -> tuple[RateCard, ...]:
    """The card last: of cards that begin at the same instant, the one put in force last counts."""
    if card is None:
        return tuple(cards)
    return (*(other for other in cards if other.hash != card.hash), card)


def _record(ledger_id: str, number: int, now_utc_ns: int, said: tuple[str, str, object]) -> UsageRecord:
    return fact(own_id(ledger_id, number), now_utc_ns, said)
