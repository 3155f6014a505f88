"""tools/recompute.py: it agrees with the meter on any history, and with nobody who changed a digit."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.billing.rates import parse_card
from taximeter.events import Event, FinishMark, Marked, Oom, Options, ServiceClass, StartMark, Status, UnitsMark
from taximeter.rulebook import Rulebook
from taximeter.values import replace
from tests import recomputing
from tests.cli.node import renamed
from tests.core.draws import MATRICES, UNITS
from tests.core.stories import SECOND, WORKER, book, card, exited, finish, ready, spawned, start, tell
from tests.core.test_evidence import ONE, TWO, seen
from tests.core.test_laws import PRICES, histories


@settings(deadline=None, max_examples=100)
@given(histories(), PRICES, MATRICES, st.integers(SECOND, 100 * SECOND))
def test_whatever_the_meter_bills_the_recomputation_comes_to_the_same(
    history: tuple[Options, list[Event]], price: str, matrix: dict[str, dict[str, str]], interim_ns: int
) -> None:
    agrees(history, book(interim_ns, (card(price),), **matrix))


def agrees(history: tuple[Options, list[Event]], by: Rulebook) -> None:
    told = tell(*history, by, silent=True)
    made = recomputing.tool().recompute(recomputing.sealed([*recomputing.facts(by), *told.records]))
    assert not made.findings
    assert not made.not_checked


#: Models by the names that predictions have in the histories; each history gives them in another order.
MODELS: Sequence[Mapping[str, Any]] = (
    {"prices": [{"amount": "0.03", "unit": "image"}]},
    {"prices": [{"amount": "3.3", "unit": "million_token"}], "on_failure": "units"},
    {"prices": [{"amount": "1.12", "unit": "prediction"}, {"amount": "0.2", "unit": "computing_second", "above": "2"}]},
    {"prices": [{"amount": "0.7", "unit": "computing_second"}]},
    {"prices": [{"amount": "0.0016", "unit": "gpu"}], "plus_hardware": True},
    {"prices": [{"amount": "0.01", "unit": "minute"}], "counted": {"image": "second"}, "online_units": True},
    {"prices": [{"amount": "0.5", "unit": "image", "up_to": "2"}], "on_failure": "none", "currency": "EUR"},
    {"prices": [{"amount": "2", "unit": "image"}], "plus_hardware": True, "on_failure": "units", "online_units": True}
    | {"criterias": [{"field": "size", "operator": ">", "value": "3", "amount": "7", "unit": "token"}]},
    {"prices": [{"amount": "2", "unit": "image"}], "billable": False},
    {"prices": [{"amount": "2", "unit": "image"}], "currency": "EUR"},
)


@settings(deadline=None, max_examples=50)
@given(st.data(), histories(), PRICES, MATRICES, st.integers(SECOND, 20 * SECOND), st.permutations(range(len(MODELS))))
def test_so_it_is_with_models_that_have_prices_of_their_own(
    data: st.DataObject,
    history: tuple[Options, list[Event]],
    price: str,
    matrix: dict[str, dict[str, str]],
    interim_ns: int,
    order: Sequence[int],
) -> None:
    names = dict(zip("abcd", order, strict=False))
    priced = [{"name": name, **MODELS[at]} for name, at in names.items()]
    content = {**card(price).content(), "models": priced}
    options, events = history
    told = [_of_a_model(event, data) for event in events]
    model = None if options.worker else "d"
    by = book(interim_ns, (parse_card(content, "test"),), **matrix)
    agrees((replace(options, model=model, units=data.draw(UNITS) if model else {}), told), by)


def _of_a_model(event: Event, data: st.DataObject) -> Event:
    if not isinstance(event, Marked):
        return event
    if isinstance(event.mark, StartMark):
        size = {"size": data.draw(st.sampled_from(["3", "4.0", "big"]))}
        return replace(event, mark=dataclasses.replace(event.mark, model=event.mark.prediction, attributes=size))
    if isinstance(event.mark, UnitsMark | FinishMark):
        return replace(event, mark=dataclasses.replace(event.mark, units=data.draw(UNITS)))
    return event


# --- A ledger to change digits in ---


def one_of_everything() -> list[bytes]:
    """Interim records, shares, a failure, an abort that is corrected, late evidence, online time, a late finish."""
    by = book(20 * SECOND, (card("0.0123", one="0.7", two="1.1"),))
    runs = [
        (WORKER, [spawned(0), ready(SECOND), *overlapping(), exited(70 * SECOND)]),
        (Options(prediction="p1"), [spawned(0), ready(0), exited(55 * SECOND + 7)]),
        (Options(prediction="p1"), [spawned(0), ready(0), exited(55 * SECOND, 1, oom=Oom.NODE)]),
        (Options(prediction="p1"), [spawned(0), ready(0), seen(ONE, at_s=90), exited(100 * SECOND)]),
        (Options(worker=True, service_class=ServiceClass.PRIVATE), [spawned(0), ready(7), exited(55 * SECOND)]),
        (
            WORKER,
            [spawned(0), ready(0), start(0, "a"), finish(50 * SECOND, "a", said_ns=33 * SECOND), exited(60 * SECOND)],
        ),
    ]
    records = recomputing.facts(by)
    for number, (options, events) in enumerate(runs):
        told = tell(options, events, by, on=TWO)
        records += renamed(told.records, number)
    return recomputing.sealed(records)


def overlapping() -> list[Event]:
    return [
        start(2 * SECOND + 1, "a", account="cus_1"),
        start(5 * SECOND, "b"),
        Marked(9 * SECOND, UnitsMark("b", {"image": "3", "token_output": "17.5"})),
        finish(31 * SECOND, "a"),
        finish(64 * SECOND + 3, "b", Status.FAILED),
    ]


def with_new_chain(records: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """As somebody would who may write everything: each record names the hash of the one before."""
    lines: list[bytes] = []
    previous = recomputing.tool().GENESIS
    for record in records:
        record["data"]["ledger"]["previous"] = previous
        lines.append(json.dumps(record, separators=(",", ":")).encode())
        previous = f"sha256:{hashlib.sha256(lines[-1]).hexdigest()}"
    return lines


def places(record: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a record money, quantities and time stand."""
    for key, value in record.items() if isinstance(record, dict) else enumerate(record):
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))
        elif _decides(path[1:2], key) and value is not None and any(map(str.isdigit, str(value))):
            yield (*path, key)


def _decides(part: tuple[Any, ...], key: object) -> bool:
    if part in {("billing",), ("time",), ("to_date",), ("units",), ("units_to_date",)}:
        return key != "reason"
    return key == "time" or (part == ("interval",) and key != "boot_id")


ALL = one_of_everything()
#: Every place of every usage record and correction.
PLACES = [
    (at, path)
    for at, line in enumerate(ALL)
    if b"ledger.fact" not in line
    for path in places(json.loads(line))
    if path[-1] != "uncertainty_ns"
]


def outcome(lines: Sequence[bytes]) -> list[str]:
    return [found.what for found in recomputing.tool().recompute(lines).findings]


def test_the_ledger_to_change_is_right_and_is_one_of_everything() -> None:
    made = recomputing.tool().recompute(ALL)
    assert not made.findings
    assert not made.not_checked
    reasons = {json.loads(line)["data"].get("reason") for line in ALL}
    assert reasons == {None, "aborted", "evidence", "late_finish"}
    assert not outcome(with_new_chain([json.loads(line) for line in ALL]))


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(PLACES), st.integers(0, 40), st.integers(1, 9))
def test_any_changed_digit_is_found_also_behind_a_chain_that_was_made_anew(
    place: tuple[int, tuple[Any, ...]], which: int, by: int
) -> None:
    at, path = place
    records = [json.loads(line) for line in ALL]
    *parents, last = path
    parent = records[at]
    for key in parents:
        parent = parent[key]
    digits = [i for i, letter in enumerate(str(parent[last])) if letter.isdigit()]
    text, i = str(parent[last]), digits[which % len(digits)]
    changed = text[:i] + str((int(text[i]) + by) % 10) + text[i + 1 :]
    parent[last] = int(changed) if isinstance(parent[last], int) else changed
    assert outcome(with_new_chain(records)), f"{path}: {text} -> {changed}"


@pytest.mark.parametrize("what", ["meter", "unit"])
def test_another_word_on_a_line_is_found(what: str) -> None:
    for at, line in enumerate(ALL):
        records = [json.loads(line) for line in ALL]
        for priced in records[at]["data"].get("billing", {}).get("lines", ()):
            priced[what] = "load" if what == "meter" else "gpu"
            assert outcome(with_new_chain(records)), line


def test_a_correction_that_is_left_out_is_missed() -> None:
    for at, line in enumerate(ALL):
        if b"usage.correction" in line:
            records = [json.loads(line) for line in (*ALL[:at], *ALL[at + 1 :])]
            for number, record in enumerate(records):
                record["data"]["ledger"]["seq"] = number + 1
            assert outcome(with_new_chain(records))


def test_a_changed_byte_breaks_the_chain_whatever_it_says() -> None:
    changed = [*ALL[:3], ALL[3].replace(b'"kind":"inference"', b'"kind":"Inference"'), *ALL[4:]]
    assert any("ledger.previous" in what for what in outcome(changed))


def test_a_record_that_is_sent_twice_counts_once() -> None:
    made = recomputing.tool().recompute([*ALL[:5], *ALL[3:]])
    assert not made.findings
    assert made.types["repeated"] == 2
    assert made.totals == recomputing.tool().recompute(ALL).totals


def test_a_rate_card_in_another_price_is_another_card() -> None:
    at = next(at for at, line in enumerate(ALL) if b'"fact":"rate_card"' in line)
    records = [json.loads(line) for line in ALL]
    records[at]["data"]["content"]["tiers"]["two"] = "1.2"
    assert any("hash" in what for what in outcome(with_new_chain(records)))


def test_without_its_facts_what_cannot_be_told_is_counted_and_what_can_be_told_is_checked() -> None:
    bare = [line for line in ALL if b"ledger.fact" not in line]
    made = recomputing.tool().recompute(bare)
    assert not made.findings
    assert sum(made.not_checked.values()) >= len(bare)
    records = [json.loads(line) for line in bare]
    priced = next(record for record in records if record["data"]["billing"]["lines"])
    priced["data"]["billing"]["lines"][0]["rate"] = "7"
    assert any("amount" in what for what in outcome([json.dumps(record).encode() for record in records]))


# --- As a program ---


def ran(*words: str, said: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """With an interpreter that has nothing but the standard library."""
    return subprocess.run(
        [sys.executable, "-IS", str(recomputing.TOOL), *words], input=said, capture_output=True, timeout=60
    )


def test_it_needs_nothing_but_the_standard_library_and_says_what_it_did() -> None:
    done = ran(said=b"\n".join(ALL))
    assert done.returncode == 0, done.stderr
    assert b"all that was checked is right" in done.stdout


def test_what_is_wrong_is_named_with_what_was_expected(tmp_path: Path) -> None:
    exported = tmp_path / "usage.ndjson"
    records = [json.loads(line) for line in ALL]
    wrong = next(record for record in records if record["data"].get("billing", {}).get("amount") not in {None, "0"})
    right = wrong["data"]["billing"]["amount"]
    wrong["data"]["billing"]["amount"] = right + "1"
    exported.write_bytes(b"\n".join(with_new_chain(records)))
    done = ran(str(exported))
    assert done.returncode == 1
    assert (
        f"{wrong['id']} (record {wrong['data']['ledger']['seq']}): billing.amount is {right}1, expected {right}"
        in done.stdout.decode()
    )


def test_what_cannot_be_read_is_said() -> None:
    assert ran("/nowhere").returncode == 2
    assert ran(said=b"{}\n").returncode == 1
