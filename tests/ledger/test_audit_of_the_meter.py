"""The audit and the meter were written apart: whatever the meter writes, the audit finds sound."""

from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.billing.classes import ONLINE
from taximeter.billing.credit import Purse
from taximeter.billing.tab import PurseKey
from taximeter.billing.thresholds import Key, Standing
from taximeter.events import Event, Options, OwnersHeld
from taximeter.ledger import chain
from taximeter.ledger.audit import Report, audit
from taximeter.ledger.base import Base, Elsewhere
from taximeter.ledger.seal import Author, seal
from taximeter.ledger.values import Filed, Row
from taximeter.records import UsageRecord
from taximeter.values import replace
from tests.core.stories import SECOND, book, card, tell
from tests.core.test_laws import PRICES, _ended, _said_in_time, histories
from tests.core.test_models import parsed
from tests.ledger.samples import NODE

MODELS = st.sampled_from(
    [
        {"unit": "image", "amount": "0.03"},
        {"unit": "image", "amount": "0.03", "plus_hardware": True, "on_failure": "units"},
        {"unit": "gpu", "amount": "0.007"},
        {
            "prices": [
                {"unit": "prediction", "amount": "1"},
                {"unit": "computing_second", "amount": "2", "above": "1.5"},
            ]
        },
        {"unit": "image", "amount": "1", "online_units": True, "on_failure": "none"},
    ]
)


class Memory:
    """A ledger that is nowhere written down."""

    ledger_id = "0198c2f4-0000-7000-8000-000000000000"

    def __init__(self, records: Sequence[UsageRecord]) -> None:
        sealed = seal(records, Author.of(self.ledger_id, NODE), 0, chain.GENESIS)
        self.rows = [Row(*row, Filed(*filed[1:])) for row, filed in zip(sealed.rows, sealed.lookups, strict=True)]

    def walk(self, after_seq: int) -> Iterator[Row]:
        return iter(self.rows[after_seq:])

    def sums(self) -> None:
        return None

    def hash_at(self, seq: int) -> bytes | None:
        return self.rows[seq - 1].hash

    base = Base()

    def base_spends(self) -> dict[Key, Standing]:
        return {}

    def base_purses(self) -> dict[PurseKey, Purse]:
        return {}

    def base_digest(self) -> str:
        return ""

    def elsewhere(self) -> dict[str, Elsewhere]:
        return {}

    def strays(self) -> Iterator[tuple[int, str]]:
        return iter(())


@settings(deadline=None)
@given(histories(), PRICES, st.integers(SECOND, 100 * SECOND))
def test_no_history_of_an_instance_leads_to_records_that_the_audit_would_fault(
    history: tuple[Options, list[Event]], price: str, interim_ns: int
) -> None:
    options, events = history
    told = tell(options, events, book(interim_ns, rates=(card(price, cpu=price),)))
    assert audit(Memory(told.records)) == Report(len(told.records), ())


@settings(deadline=None)
@given(histories(), MODELS, st.integers(SECOND, 100 * SECOND))
def test_nor_do_models_with_a_price_of_their_own(
    history: tuple[Options, list[Event]], model: dict[str, object], interim_ns: int
) -> None:
    options, events = history
    told = tell(replace(options, model="m"), events, book(interim_ns, rates=(parsed({"name": "m", **model}),)))
    assert audit(Memory(told.records)) == Report(len(told.records), ())


@settings(deadline=None)
@given(histories(), MODELS, st.integers(SECOND, 30 * SECOND))
def test_no_cut_changes_what_a_model_with_a_price_of_its_own_costs(
    history: tuple[Options, list[Event]], model: dict[str, object], interim_ns: int
) -> None:
    options, by = replace(history[0], model="m"), book(10**18, (parsed({"name": "m", **model}),))
    since_ns = tell(options, history[1], by).instance.start_ns
    events = [_said_in_time(event, since_ns, interim_ns) for event in history[1]]
    if options.service_class not in ONLINE:  # whom nobody held has ended at its last word: late
        events.insert(-1, OwnersHeld(events[-1].at_ns or 0, (12,)))
    whole = tell(options, events, by)
    if _ended(whole):
        assert tell(options, events, book(interim_ns, by.cards)).amount() == whole.amount()
