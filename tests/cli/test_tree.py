"""A tree of calls on a terminal: drawn at any width, every call on one line, and in words what is owed for it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from taximeter.cli import branches
from taximeter.cli import tree as calls
from taximeter.cli.sheet import Sheet
from taximeter.records import UsageRecord
from tests.cli.node import on_a_terminal, program, taximeter, write
from tests.cli.test_receipt import agrees
from tests.observe import histories
from tests.observe.histories import call

Json = dict[str, Any]
LONG = "0198c2aa-7b11-7cc0-9d4f-2f8a6d1b3c"


@cache
def odd() -> tuple[UsageRecord, ...]:
    """A failed root that somebody elsewhere called; below it a ring, an orphan, and one that knew no other root."""
    return (
        *call("o-root", "o-x", 0, 100, 1, root="o-root"),
        *call("o-a", "o-c", 10, root="o-root"),
        *call("o-b", "o-a", 20, root="o-root"),
        *call("o-c", "o-b", 30, root="o-root"),
        *call("o-d", "o-nobody", 40, root="o-root"),
        *call("o-e", "o-a", 50, root="o-a"),
    )


@cache
def wide() -> tuple[UsageRecord, ...]:
    """A root with fifty calls that have long names, one of which has twelve more."""
    model = "acme/a-model-with-a-name-that-is-long"
    records = call("w-root", None, 0, 3000, account="cus_7", model="acme/map")
    for n in range(50):
        records += call(f"{LONG}{n:02d}", "w-root", 10 * n, 100 + n, n % 7 == 1, root="w-root", model=model)
    for n in range(12):
        records += call(f"w-{n}", f"{LONG}03", 40 + n, 10, root="w-root", account="cus_7")
    return tuple(records)


@cache
def deep() -> tuple[UsageRecord, ...]:
    """Sixty calls, each by the one before."""
    records = call("d-0", None, 0, 3000)
    for n in range(1, 60):
        records += call(f"d-{n}", f"d-{n - 1}", 10 * n, 100 + n, root="d-0", model="acme/m")
    return tuple(records)


@pytest.fixture
def called(state: Path) -> Path:
    return write(state, tuple(histories.calls()), odd(), wide(), deep())


def drawn(tree: Json, width: int = 79, **found: Any) -> list[str]:
    sheet = Sheet(width)
    whole = {"status": "succeeded", "prediction": "p-root", "parent": None, "root": "p-root", "tree": tree} | found
    calls.place(whole, sheet)
    calls.downstream(whole, sheet)
    return [line.plain.rstrip() for line in sheet.lines]


def tree_of(asked: str) -> Json:
    told: Json = json.loads(taximeter("receipt", asked, "--json").out)["tree"]
    return told


@pytest.mark.parametrize("columns", [60, 79, 120])
@pytest.mark.parametrize(
    ("name", "asked"),
    [("failed", "p-root"), ("leaf", "p-search"), ("odd", "o-root"), ("wide", "w-root"), ("deep", "d-0")],
)
def test_a_tree_reads_as_it_was_drawn(called: Path, name: str, asked: str, columns: int) -> None:
    answer = taximeter("receipt", asked, columns=columns)
    assert (answer.code, answer.err) == (0, "")
    assert agrees(answer.out, f"tree-{name}-{columns}.txt")


@pytest.mark.parametrize("columns", [60, 79, 80, 100, 120])
@pytest.mark.parametrize("asked", ["p-root", "o-root", "w-root", "d-0", "d-30", "d-59"])
def test_no_line_of_a_tree_is_wider_than_the_terminal(called: Path, asked: str, columns: int) -> None:
    assert max(len(line) for line in taximeter("receipt", asked, columns=columns).lines) <= columns


def test_without_a_terminal_a_tree_is_not_coloured(called: Path) -> None:
    assert "\x1b" not in program("receipt", "p-root", TERM="xterm-256color").out


def test_on_a_terminal_it_is_coloured_by_how_each_ended(called: Path) -> None:
    printed = on_a_terminal("receipt", "p-root", columns=79)
    assert "\x1b[31mfailed " in printed
    assert "\x1b[32msucceeded" in printed
    assert "\x1b[33mprocessing" in printed


def test_a_failed_root_says_what_is_owed_all_the_same(called: Path) -> None:
    lines = " ".join(" ".join(drawn(tree_of("p-root"), 100, status="failed")).split())
    assert "owed 0.0002 USD for its run, which failed, and 0.00017 USD for 3 downstream runs" in lines
    assert "pending 1 of 3 downstream runs still runs, and accrues" in lines


@pytest.mark.parametrize(
    ("status", "said"),
    [("canceled", "which was canceled"), ("aborted", "which the platform aborted"), ("failed", "which failed")],
)
def test_however_a_root_ended_what_it_led_to_is_owed(called: Path, status: str, said: str) -> None:
    assert any(said in line for line in drawn(tree_of("p-root"), 100, status=status))


@pytest.mark.parametrize("status", ["succeeded", "processing", None])
def test_a_root_that_did_not_fail_says_nothing_of_what_is_owed(called: Path, status: str | None) -> None:
    assert not any(line.startswith(" owed") for line in drawn(tree_of("p-root"), status=status))


def test_a_root_that_its_instance_bills_says_so(called: Path) -> None:
    told = tree_of("p-root")
    told["own"] |= {"informative": 1, "amounts": {}}
    said = " ".join(" ".join(drawn(told, 100, status="failed")).split())
    assert "owed its run, which failed, is billed with its instance, and 0.00017 USD for 3 downstream runs" in said


def test_what_is_in_no_sum_is_said(called: Path) -> None:
    told = tree_of("p-root")
    told["downstream"] |= {"pending": 2, "informative": 2, "unrated": 1}
    lines = drawn(told, 100)
    assert " pending     2 of 3 downstream runs still run, and accrue" in lines
    assert " informative 2 of 3 downstream runs are billed with their instances, and not in these sums" in lines
    assert " unrated     1 of 3 downstream runs has no price, and none is guessed" in lines


def test_several_currencies_have_a_sum_each(called: Path) -> None:
    told = tree_of("p-root")
    for part in ("downstream", "total"):
        told[part]["amounts"]["EUR"] = "7.5"
    lines = drawn(told, 79, status="failed")
    assert [line.split()[-2:] for line in lines if line.startswith(" TOTAL")] == [["0.00037", "USD"], ["7.5", "EUR"]]
    assert "0.00017 USD and 7.5 EUR for 3 downstream runs" in " ".join(" ".join(lines).split())


def test_what_costs_nothing_yet_is_a_dash(called: Path) -> None:
    told = tree_of("p-root")
    told["nodes"][3] |= {"amount": None, "currency": None, "billing": None, "active_ns": 0}
    (line,) = (line for line in drawn(told) if "p-draw" in line)
    assert line.split()[-3:] == ["processing", "–", "–"]


def test_a_tree_without_any_price_is_drawn(called: Path) -> None:
    told = tree_of("p-root")
    for node, billing in zip(told["nodes"], ("unrated", "informative", "free", "rated"), strict=True):
        node |= {"amount": None, "currency": None, "billing": billing}
    for part in ("own", "downstream", "total"):
        told[part]["amounts"] = {}
    lines = drawn(told)
    assert [line.split("  ")[-1].strip() for line in lines[2:6]] == ["no price", "by instance", "free", "–"]
    assert not any(line.startswith(" TOTAL") for line in lines)


def test_a_call_names_where_it_stands(called: Path) -> None:
    assert " path        p-root › p-plan › this one" in taximeter("receipt", "p-search").lines
    assert " path        d-0 › d-1 › … 46 more … › d-48 › d-49 › this one" in taximeter("receipt", "d-50").lines


def test_a_parent_without_a_record_is_said_to_have_none(called: Path) -> None:
    assert " parent      o-x (no record of it here)" in taximeter("receipt", "o-root").lines
    assert " parent      o-nobody (no record of it here)" in taximeter("receipt", "o-d").lines


def test_many_payers_are_cut_and_say_where_the_rest_is(called: Path) -> None:
    told = tree_of("p-root")
    told["payers"] = [told["payers"][0] | {"account": None if not n else f"cus_{n}"} for n in range(12)]
    lines = drawn(told)
    assert any(line.startswith(" charged to  none named  3 runs") for line in lines)
    assert "             and 4 more accounts: --json lists them" in lines


def test_many_findings_are_cut_and_say_where_the_rest_is(called: Path) -> None:
    told = tree_of("o-root")
    told["findings"] = told["findings"] * 3
    told["findings_total"] = {"orphan": 12, "account": 4}
    assert "             and 4 more: --json lists them" in drawn(told)


def test_a_receipt_of_an_agent_that_knows_no_trees_is_drawn_without(called: Path) -> None:
    sheet = Sheet(79)
    calls.downstream({"status": "failed"}, sheet)
    assert sheet.lines == []


@pytest.mark.parametrize("columns", [60, 79, 100])
def test_amounts_of_many_digits_push_the_time_out_and_not_the_ids(called: Path, columns: int) -> None:
    told = tree_of("p-root")
    for node in told["nodes"]:
        node["amount"] = "123456789.000000000000000001"
    lines = drawn(told, columns)
    assert max(map(len, lines)) <= columns
    assert any("p-root" in line and "123456789.000000000000000001 USD" in line for line in lines)


def test_ids_and_models_of_wide_characters_keep_the_columns(called: Path) -> None:
    told = tree_of("p-root")
    for node in told["nodes"][1:]:
        node |= {"prediction": "予測" * 20, "model": "模型" * 20, "under": "p-root", "depth": 1}
    sheet = Sheet(79)
    sheet.tree(*branches.drawn(told))
    assert {cell_len(line.plain) for line in sheet.lines[:4]} == {79}


def test_ids_that_would_command_a_terminal_are_shown(called: Path) -> None:
    told = tree_of("p-root")
    told["nodes"][1] |= {"prediction": "\x1b[31mred\n", "model": "\u202e", "status": "\x07"}
    assert all(line.isprintable() for line in drawn(told))


def test_an_audit_shows_a_few_notes_of_each_kind_and_is_sound(called: Path) -> None:
    write(called, tuple(one for n in range(6) for one in call(f"f-{n}", f"far-{n}", root="far")))
    answer = taximeter("verify", columns=100)
    assert answer.code == 0
    assert any("Who called whom" in line and "notes, no fault" in line for line in answer.lines)
    assert " cycle       o-a names o-c as parent, and is among that one's callers" in answer.lines
    assert "             and 4 more: --json lists them" in answer.lines


def test_one_note_is_one(booked: Path) -> None:
    report = json.loads(taximeter("verify", "--json").out)
    assert report["notes_total"] == {"account": 1}
    assert "Who called whom (1 note, no fault)" in taximeter("verify").out
