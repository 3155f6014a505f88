"""What accounts spend: thresholds fire once whatever comes in which order, and credit adds up to the last digit."""

import itertools
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.billing.admission import Credit, Denial, Holdings, denials
from taximeter.billing.credit import Grant, Part, Purse, balance, put_in, take_out
from taximeter.billing.notices import grant_record, own_id, threshold_record
from taximeter.billing.spending import Spending, parse_spending
from taximeter.billing.tab import PurseKey, Tab
from taximeter.billing.thresholds import (
    Due,
    Key,
    Spent,
    Standing,
    Thresholds,
    begin_of,
    period_of,
    spent_by,
)
from taximeter.errors import ConfigError
from taximeter.records import Billing, RecordType, UsageRecord
from taximeter.values import replace

NOVEMBER = 1_795_341_603_123_456_789  # 2026-11-22
DECEMBER = NOVEMBER + 10 * 86_400 * 10**9
DAY = 86_400 * 10**9


def D(text: str) -> Decimal:  # noqa: N802 - short, for sums that a person checks
    return Decimal(text)


# --- What counts ---


def usage(amount: str | None, status: str = "rated", account: str | None = "cus_7", **changes: Any) -> UsageRecord:
    billing = Billing(status, (), amount, "USD" if amount else None, None)
    record = UsageRecord("i-00000000", RecordType.PREDICTION, account or "unattributed", NOVEMBER, {"billing": billing})
    return replace(record, account=account, model="acme/sdxl", **changes)


def test_a_rated_amount_is_spent_by_the_account_that_pays() -> None:
    assert spent_by(usage("0.25")) == Spent("cus_7", "USD", "acme/sdxl", NOVEMBER, D("0.25"))


def test_what_a_correction_takes_back_is_spent_less() -> None:
    assert spent_by(usage("-0.25")) == Spent("cus_7", "USD", "acme/sdxl", NOVEMBER, D("-0.25"))


@pytest.mark.parametrize(
    "record",
    [
        usage("0", "free"),
        usage(None, "informative"),
        usage(None, "unrated"),
        usage("0.25", account=None),
        usage("0.25", subject="platform"),
        usage("0.25", account="platform"),
        usage("0.25", account="unattributed"),
        usage("much"),
        usage("NaN"),
        replace(usage("0.25"), data={"fact": "config"}),
    ],
)
def test_what_no_account_pays_is_spent_by_nobody(record: UsageRecord) -> None:
    assert spent_by(record) is None


# --- Periods ---


def test_usage_belongs_to_the_utc_month_in_which_it_began() -> None:
    begin_ns = begin_of("2026-12")
    assert period_of(begin_ns - 1) == "2026-11"
    assert period_of(begin_ns) == "2026-12"


@given(st.integers(0, 4_102_444_800 * 10**9))
def test_an_instant_lies_in_its_period(utc_ns: int) -> None:
    period = period_of(utc_ns)
    assert begin_of(period) <= utc_ns
    assert period_of(begin_of(period)) == period


# --- Thresholds ---

TEN_FIFTY = (D("10"), D("50"))


def tab_at(spend: str = "0", thresholds: tuple[Decimal, ...] = TEN_FIFTY) -> Tab:
    return Tab(lambda _: Standing(D(spend)), thresholds=Thresholds(thresholds))


def due(tab: Tab, *amounts: str) -> list[tuple[int, str, str]]:
    """What is due by amounts that are spent one after the other."""
    spends = [(at, Spent("cus_7", "USD", "m", NOVEMBER, D(amount))) for at, amount in enumerate(amounts)]
    return [(one.at, str(one.threshold), str(one.spend)) for one in tab.spend(spends)]


def test_a_threshold_is_due_once_as_much_is_spent() -> None:
    assert due(tab_at("9"), "0.25", "0.75", "1") == [(1, "10", "10.00")]


def test_one_amount_may_reach_several() -> None:
    assert due(tab_at(), "60") == [(0, "10", "60"), (0, "50", "60")]


def test_less_reaches_none() -> None:
    assert due(tab_at(), "9.999999999999999999") == []


def test_what_was_taken_back_and_is_spent_again_is_not_due_again() -> None:
    assert due(tab_at(), "11", "-5", "5") == [(0, "10", "11")]


def test_a_threshold_that_is_set_below_what_was_spent_is_due_with_the_next_amount() -> None:
    tab = tab_at("20", ())
    assert due(tab, "1") == []
    tab.judge_by(Thresholds(TEN_FIFTY))
    assert due(tab, "1") == [(0, "10", "22")]


def test_sums_that_changed_are_taken_once_and_go_on() -> None:
    tab = tab_at()
    due(tab, "1")
    assert {key.model: standing.spend for key, standing in tab.take_changed()[0].items()} == {"": 1, "m": 1}
    assert tab.take_changed() == ({}, {})
    due(tab, "2")
    assert {standing.spend for standing in tab.take_changed()[0].values()} == {D("3")}
    assert tab.size == 1


def test_an_account_may_have_thresholds_of_its_own() -> None:
    rules = Thresholds(TEN_FIFTY, {"cus_7": (D("1"),), "cus_8": ()})
    assert (rules.of("cus_7"), rules.of("cus_8"), rules.of("cus_9")) == ((D("1"),), (), TEN_FIFTY)


amounts = st.decimals("-20", "40", places=6)
spends = st.builds(
    Spent,
    st.sampled_from(["a", "b"]),
    st.sampled_from(["USD", "EUR"]),
    st.sampled_from([None, "m", "n"]),
    st.sampled_from([NOVEMBER, DECEMBER]),
    amounts,
)


class Kept:
    """Sums as a ledger keeps them: what a batch touched is there for the next one, or it is not."""

    def __init__(self) -> None:
        self.standings: dict[Key, Standing] = {}

    def tab(self) -> Tab:
        return Tab(lambda key: self.standings.get(key, Standing()), thresholds=Thresholds(TEN_FIFTY))

    def commit(self, tab: Tab) -> None:
        standings, _ = tab.take_changed()
        self.standings |= standings


def charged(
    records: Sequence[Spent], sizes: Sequence[int], crashes: Sequence[bool]
) -> tuple[list[tuple[Key, Decimal]], Kept]:
    """Every threshold that was told, where records are committed in batches, and some of these only at a second try."""
    kept, told, at = Kept(), [], 0
    for size, crash in zip(itertools.cycle(sizes), itertools.cycle(crashes), strict=False):
        if at >= len(records):
            return told, kept
        for is_lost in (True, False)[not crash :]:
            tab = kept.tab()
            reached = tab.spend(enumerate(records[at : at + size]))
            if not is_lost:
                kept.commit(tab)
                told += [(one.key, one.threshold) for one in reached]
        at += size
    raise AssertionError


@given(
    st.lists(spends, max_size=40),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.lists(st.booleans(), min_size=1, max_size=5),
)
def test_each_threshold_fires_once_for_any_batches_and_any_replay(
    records: list[Spent], sizes: list[int], crashes: list[bool]
) -> None:
    told, kept = charged(records, sizes, crashes)
    assert len(told) == len(set(told))
    for key, standing in kept.standings.items():
        if key.model:
            continue
        own = [one.amount for one in records if (one.account, one.currency, period_of(one.time_utc_ns)) == key[:3]]
        most = max(itertools.accumulate(own))
        assert standing.spend == sum(own)
        assert {threshold for of, threshold in told if of == key} == {each for each in TEN_FIFTY if each <= most}


@given(st.lists(spends.filter(lambda one: one.amount >= 0), max_size=12), st.randoms(use_true_random=False))
def test_which_thresholds_fire_does_not_depend_on_the_order_of_usage(records: list[Spent], chance: Any) -> None:
    shuffled = list(records)
    chance.shuffle(shuffled)
    assert set(charged(records, [3], [False])[0]) == set(charged(shuffled, [2], [False])[0])


@given(st.lists(spends, max_size=20))
def test_the_sums_of_models_are_parts_of_the_sum_of_all(records: list[Spent]) -> None:
    _, kept = charged([one._replace(model=one.model or "k") for one in records], [4], [False])
    totals: dict[Key, Decimal] = {}
    for key, standing in kept.standings.items():
        if key.model:
            whole = key._replace(model="")
            totals[whole] = totals.get(whole, D("0")) + standing.spend
    assert totals == {key: standing.spend for key, standing in kept.standings.items() if not key.model}


# --- Credit ---


def granted(name: str, amount: str, expires_utc_ns: int | None = None) -> Grant:
    return Grant(name, "cus_7", "USD", D(amount), NOVEMBER, expires_utc_ns)


def left(purse: Purse) -> dict[str, Decimal]:
    return {part.grant.id: part.left for part in purse.parts}


def of(*grants: Grant) -> Purse:
    purse = Purse()
    for grant in grants:
        purse = put_in(purse, grant)
    return purse


def use(purse: Purse, amount: str, at_ns: int = NOVEMBER, *, prepaid: bool = True) -> Purse:
    return take_out(purse, D(amount), at_ns, prepaid=prepaid)


def test_usage_takes_from_the_grant_that_expires_first() -> None:
    purse = of(
        granted("for_ever", "10"), granted("late", "10", NOVEMBER + 2 * DAY), granted("soon", "10", NOVEMBER + 1)
    )
    assert left(use(purse, "15")) == {"soon": 0, "late": 5, "for_ever": 10}


def test_an_expired_grant_covers_nothing_and_usage_that_began_before_is_covered_however_late_it_comes() -> None:
    purse = of(granted("soon", "10", NOVEMBER + DAY), granted("for_ever", "10"))
    assert left(use(purse, "4", NOVEMBER + DAY)) == {"soon": 10, "for_ever": 6}
    assert left(use(purse, "4", NOVEMBER + DAY - 1)) == {"soon": 6, "for_ever": 10}


def test_what_expires_unused_is_gone() -> None:
    purse = use(of(granted("soon", "10", NOVEMBER + DAY), granted("for_ever", "1")), "4")
    assert balance(purse, NOVEMBER) == 7
    assert balance(purse, NOVEMBER + DAY) == 1


def test_a_prepaid_account_owes_what_no_credit_covers_and_the_next_grant_pays_that_first() -> None:
    purse = use(of(granted("one", "1")), "3")
    assert balance(purse, NOVEMBER) == -2
    assert left(put_in(purse, granted("two", "5"))) == {"one": 0, "two": 3}
    assert balance(put_in(purse, granted("little", "0.5")), NOVEMBER) == D("-1.5")


def test_an_account_that_pays_afterwards_uses_its_credit_and_owes_nothing_here() -> None:
    assert use(of(granted("one", "1")), "3", prepaid=False) == Purse((Part(granted("one", "1"), D("0")),))


def test_what_is_given_back_lowers_what_is_owed_then_fills_the_grant_that_expires_last() -> None:
    purse = use(of(granted("soon", "1", NOVEMBER + DAY), granted("late", "1")), "3")
    assert (left(purse), purse.owed) == ({"soon": 0, "late": 0}, 1)
    purse = use(purse, "-2.5")
    assert (left(purse), purse.owed) == ({"soon": D("0.5"), "late": 1}, 0)


def test_no_grant_is_filled_beyond_what_it_was() -> None:
    assert left(use(of(granted("one", "1")), "-5")) == {"one": 1}


steps = st.lists(
    st.tuples(st.just("grant"), st.decimals("0.01", "50", places=2), st.sampled_from([None, 1, 2, 3]))
    | st.tuples(st.just("use"), st.decimals("0", "30", places=6), st.integers(0, 4))
    | st.tuples(st.just("back"), st.floats(0, 1).map(lambda part: Decimal(round(part * 100)) / 100), st.integers(0, 4)),
    max_size=30,
)


@given(steps)
def test_of_a_prepaid_account_what_is_left_is_grants_less_usage_to_the_last_digit(steps: list[Any]) -> None:
    purse, grants, used, day = Purse(), D("0"), D("0"), 0
    for at, (kind, amount, when) in enumerate(steps):
        if kind == "grant":
            expires = None if when is None else NOVEMBER + when * DAY
            purse = put_in(purse, Grant(str(at), "a", "USD", amount, NOVEMBER, expires))
            grants += amount
            continue
        day, signed = when, amount if kind == "use" else -(amount * used).quantize(D("0.000001"), "ROUND_DOWN")
        purse, used = take_out(purse, signed, NOVEMBER + when * DAY, prepaid=True), used + signed
    assert sum(left(purse).values(), D("0")) - purse.owed == grants - used
    assert all(0 <= part.left <= part.grant.amount for part in purse.parts)
    assert purse.owed >= 0
    now = NOVEMBER + day * DAY
    lapsed = sum((part.left for part in purse.parts if not part.covers(now)), D("0"))
    assert balance(purse, now) == grants - used - lapsed


def test_a_tab_remembers_no_more_than_it_may_and_sums_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taximeter.billing.tab._PLACES_MAX", 3)
    tab, hour_ns = Tab(), 3_600 * 10**9
    tab.spend((0, Spent("cus_7", "USD", None, NOVEMBER + at * hour_ns, D("1"))) for at in range(10))
    assert tab.size <= 3
    assert tab.standing(Key("cus_7", "USD", "2026-11")).spend == 10


def test_a_tab_touches_credit_only_where_there_is_some_or_is_to_be_some() -> None:
    tab = Tab()
    usage_ = Spent("cus_7", "USD", None, NOVEMBER, D("3"))
    tab.use_credit(usage_, prepaid=False)
    assert tab.take_changed() == ({}, {})
    tab.use_credit(usage_, prepaid=True)
    tab.grant(granted("one", "5"))
    tab.use_credit(usage_, prepaid=False)
    _, purses = tab.take_changed()
    assert left(purses[PurseKey("cus_7", "USD")]) == {"one": 0}
    assert tab.standing(Key("cus_7", "USD", "2026-11")) == Standing()


# --- Admission ---


def held(*balances: str, **spends: str) -> Holdings:
    by_currency = {f"C{at}": D(amount) for at, amount in enumerate(balances)}
    return Holdings(by_currency, {("USD", "" if model == "all" else model): D(text) for model, text in spends.items()})


PREPAID = Credit(frozenset({"cus_7"}))


def why(holdings: Holdings, credit: Credit) -> str | None:
    found = denials("cus_7", holdings, credit)
    return found[0].why if found else None


@pytest.mark.parametrize(
    ("balances", "reason"),
    [
        ((), "prepaid, and nothing was granted"),
        (("0",), "prepaid, and the balance is 0 C0: expected more than 0"),
        (("-0.5",), "prepaid, and the balance is -0.5 C0: expected more than 0"),
        (("0.000001",), None),
        (("0", "3"), None),
        (("-1", "3"), "prepaid, and the balance is -1 C0, 3 C1: expected more than 0"),
    ],
)
def test_a_prepaid_account_is_refused_once_nothing_is_left(balances: tuple[str, ...], reason: str | None) -> None:
    assert why(held(*balances), PREPAID) == reason


@pytest.mark.parametrize(("floor", "refused"), [("-5", False), ("-1", True), ("2", True)])
def test_the_floor_says_how_far_down_a_balance_may_go(floor: str, refused: bool) -> None:
    assert bool(why(held("-1"), Credit(None, D(floor)))) == refused


def test_an_account_that_pays_afterwards_is_not_refused() -> None:
    assert why(held("-1"), Credit()) is None


@pytest.mark.parametrize(("spent", "refused"), [("99.99", False), ("100", True), ("101", True)])
def test_a_cap_refuses_once_as_much_is_spent_in_a_month(spent: str, refused: bool) -> None:
    assert bool(why(held(all=spent), Credit(caps={"cus_7": D("100")}))) == refused


def test_a_cap_of_nothing_refuses_at_once() -> None:
    assert why(held(), Credit(caps={"cus_7": D("0")})) == "spent 0 of any currency this month, and its cap is 0"


def test_a_limit_refuses_one_model_and_no_other() -> None:
    credit = Credit(limits={"cus_7": {"sdxl": D("1"), "llama": D("1")}, "cus_8": {"sdxl": D("0")}})
    assert denials("cus_7", held(all="9", sdxl="2", llama="0.5"), credit) == (
        Denial("cus_7", "sdxl", "spent 2 USD on sdxl this month, and the limit is 1"),
    )


def test_whoever_a_rule_names_may_be_refused_before_any_usage() -> None:
    credit = Credit(frozenset({"a"}), D("0"), {"b": D("1")}, {"c": {"m": D("1")}})
    assert credit.named == {"a", "b", "c"}
    assert Credit(None).named == frozenset()


# --- The rules as they are kept ---

FULL = {
    "charges": {"thresholds": ["10", "50.5"], "accounts": {"cus_7": ["1"]}},
    "credit": {"prepaid": ["a", "b"], "floor": "-2.5", "caps": {"a": "100"}, "limits": {"a": {"m": "3"}}},
}


@pytest.mark.parametrize("prepaid", ["none", "all", ["a", "b"]])
def test_rules_are_the_same_after_they_were_kept(prepaid: object) -> None:
    content = {**FULL, "credit": {**FULL["credit"], "prepaid": prepaid}}
    assert parse_spending(content, "ledger").content() == content


def test_thresholds_are_kept_in_order_and_once() -> None:
    rules = parse_spending({**FULL, "charges": {"thresholds": ["50", "10", "50.0"], "accounts": {}}}, "ledger")
    assert rules.thresholds.default == TEN_FIFTY


def test_nothing_is_in_force_where_nothing_was_said() -> None:
    assert parse_spending(Spending().content(), "ledger") == Spending()


@pytest.mark.parametrize(
    "content",
    [
        {},
        {**FULL, "charges": {"thresholds": ["-1"], "accounts": {}}},
        {**FULL, "credit": {**FULL["credit"], "prepaid": "some"}},
        {**FULL, "credit": 3},
    ],
)
def test_what_are_no_rules_is_said(content: Any) -> None:
    with pytest.raises(ConfigError, match="ledger: expected charges and credit"):
        parse_spending(content, "ledger")


# --- The ledger's own records ---


def test_a_threshold_record_says_who_crossed_what_when_and_by_which_record() -> None:
    key = Key("cus_7", "USD", "2026-11")
    record = threshold_record(own_id("L", 7), Due(0, key, D("10.0"), D("10.25")), usage("1"), "/nodes/n1")
    assert (record.id, record.type, record.subject, record.time_utc_ns) == (
        "L-00000007",
        "taximeter.charge.threshold.v1",
        "cus_7",
        NOVEMBER,
    )
    assert record.data == {
        "scope": "node",
        "account": "cus_7",
        "currency": "USD",
        "period": "2026-11",
        "since_utc": "2026-11-01T00:00:00.000000000Z",
        "threshold": "10",
        "spend": "10.25",
        "crossed_by": {"source": "/nodes/n1", "id": "i-00000000"},
    }


@pytest.mark.parametrize(
    ("expires_ns", "text"), [(None, None), (begin_of("2027-01"), "2027-01-01T00:00:00.000000000Z")]
)
def test_a_grant_record_says_what_was_granted(expires_ns: int | None, text: str | None) -> None:
    record = grant_record(own_id("L", 8), granted("g1", "5.50", expires_ns))
    assert (record.type, record.account) == ("taximeter.credit.grant.v1", "cus_7")
    assert record.data == {"account": "cus_7", "grant": "g1", "amount": "5.5", "currency": "USD", "expires_utc": text}
