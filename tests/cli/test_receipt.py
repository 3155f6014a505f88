"""`taximeter receipt`: one run explained, to the last digit and the last column."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from taximeter.cli.receipt import write
from taximeter.cli.sheet import Sheet
from taximeter.observe.words import exit_text
from taximeter.records import UsageRecord
from tests.cli.node import instance, program, renamed, taximeter
from tests.cli.node import write as write_ledger
from tests.observe import histories

GOLDEN = Path(__file__).parent / "golden"


def steady(printed: str) -> str:
    """What was printed, without the digits that a new ledger's id changes."""
    return re.sub(r"sha256:[0-9a-f]{12}…", "sha256:000000000000…", printed)


def agrees(printed: str, name: str) -> bool:
    """Compare with a golden file; GOLDEN=write makes them anew, for the eye of whoever commits them."""
    path = GOLDEN / name
    if os.environ.get("GOLDEN") == "write":
        path.write_text(steady(printed))
    return steady(printed) == path.read_text()


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("one-shot", "p-one"),
        ("of-a-worker", "p1"),
        ("aborted", "p-aborted"),
        ("informative", "p-private"),
        ("unrated", "p-unpriced"),
        ("killed", "p-killed"),
        ("worker", instance(2)),
    ],
)
def test_a_receipt_reads_as_it_was_drawn(booked: Path, name: str, asked: str, columns: int) -> None:
    answer = taximeter("receipt", asked, columns=columns)
    assert (answer.code, answer.err) == (0, "")
    assert agrees(answer.out, f"receipt-{name}-{columns}.txt")


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    ("name", "run"),
    [("seen", histories.seen_run), ("mismatch", histories.mismatched_run), ("elsewhere", histories.elsewhere_run)],
)
def test_a_receipt_tells_how_its_devices_are_known(
    state: Path, name: str, run: Callable[[], list[UsageRecord]], columns: int
) -> None:
    write_ledger(state, renamed(run(), 1, "p-seen"))
    answer = taximeter("receipt", "p-seen", columns=columns)
    assert (answer.code, answer.err) == (0, "")
    assert agrees(answer.out, f"receipt-{name}-{columns}.txt")


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(booked: Path, columns: int) -> None:
    assert max(len(line) for line in taximeter("receipt", "p-one", columns=columns).lines) <= columns


def test_without_a_terminal_nothing_is_coloured(booked: Path) -> None:
    answer = program("receipt", "p-one", TERM="xterm-256color")
    assert answer.code == 0
    assert "\x1b" not in answer.out


def test_a_receipt_is_also_json_with_the_same_total(booked: Path) -> None:
    answer = json.loads(taximeter("receipt", "p-one", "--json").out)
    assert answer["total"] == {"amount": "0.0000412", "currency": "USD", "meters": ["share"]}
    assert answer["kind"] == "prediction"


@pytest.mark.parametrize("asked", ["p1", instance(1)])
def test_a_boot_that_never_became_ready_says_that_it_bills_nothing(state: Path, asked: str) -> None:
    write_ledger(state, renamed(histories.never_ready_run(), 1))
    answer = taximeter("receipt", asked)
    assert " ready       never: a boot that does not become ready bills nothing" in answer.lines


def test_an_instance_is_told_with_its_predictions(booked: Path) -> None:
    answer = json.loads(taximeter("receipt", instance(2), "--json").out)
    assert [run["prediction"] for run in answer["predictions"]] == ["p1", "p2"]


def test_an_id_that_was_used_twice_says_so(state: Path) -> None:
    write_ledger(state, tuple(histories.twice()))
    lines = taximeter("receipt", "p1", columns=100).lines
    assert f" instances   {instance(1)}, {instance(2)}" in lines
    assert " runs        2 runs on 2 instances bear this id; phases and exit are of the last" in lines
    assert " account     cus_a, cus_b" in lines


def test_the_beginning_of_an_id_is_nobodys_and_says_how_many_it_may_mean(booked: Path) -> None:
    answer = taximeter("receipt", instance(1)[:8])
    assert (answer.code, answer.out) == (1, "")
    assert "ambiguous: it begins the ids of at least 6 instances; expected one id in full" in answer.err


def test_what_no_agent_has_booked_may_wait_in_a_journal(booked: Path) -> None:
    (booked / "journal" / f"{instance(9)}.0.ndjson").touch()
    answer = taximeter("receipt", "p-waits")
    assert answer.code == 1
    assert "no agent runs, and it may be waiting in a journal: start one with `taximeter agent`" in answer.err


def test_without_a_journal_nothing_is_said_to_wait(booked: Path) -> None:
    assert "journal" not in taximeter("receipt", "nobody").err


def test_an_empty_word_is_no_id(booked: Path) -> None:
    answer = taximeter("receipt", "")
    assert answer.code == 2
    assert "expected the id of a prediction or an instance, got an empty word" in " ".join(answer.err.split())


def test_an_unknown_run_is_said_to_be_unknown(booked: Path) -> None:
    answer = taximeter("receipt", "nobody")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("taximeter: cannot find 'nobody': expected the id of a prediction or an instance")


def test_a_run_that_nobody_has_booked_yet_is_said_to_be_measured(booked: Path) -> None:
    (booked / "journal" / "0198c2aa-0000-7000-8000-00000000000f.0.ndjson").touch()
    answer = taximeter("receipt", "0198c2aa-0000-7000-8000-00000000000f")
    assert answer.code == 1
    assert "is measured, but nobody has booked it yet: start `taximeter agent`" in answer.err


def test_hostile_ids_are_shown_and_not_obeyed(hostile: Path) -> None:
    prediction = json.loads(taximeter("records", "--json").lines[0])["data"]["prediction"]
    printed = taximeter("receipt", prediction).out
    assert all(line.isprintable() for line in printed.splitlines())
    assert r"\x1b[31mred\x1b[0m\n[bold]x[/bold]\u202e=1+1" in printed.replace("\n             ", "")


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ({"code": 0, "signal": None, "oom": None, "reason": "exited", "left_running": None}, "status 0"),
        (
            {"code": 3, "signal": None, "oom": False, "reason": "exited", "left_running": 1},
            "status 3; left running: 1 process",
        ),
        (
            {"code": None, "signal": 9, "oom": True, "reason": "oom_limit", "left_running": 2},
            "killed by SIGKILL (9), out of memory: a limit of its own; left running: 2 processes",
        ),
        (
            {"code": None, "signal": 9, "oom": True, "reason": "oom_node", "left_running": None},
            "killed by SIGKILL (9), out of memory: the node had none left",
        ),
        (
            {"code": None, "signal": 11, "oom": False, "reason": "signaled", "left_running": None, "core": True},
            "killed by SIGSEGV (11), with a core dump",
        ),
        ({"code": None, "signal": 64, "oom": None, "reason": "signaled", "left_running": 0}, "killed by SIGRTMAX (64)"),
        ({"code": None, "signal": 99, "oom": None, "reason": "signaled", "left_running": 0}, "killed by signal 99"),
        ({"code": None, "signal": None, "oom": None, "reason": "wrapper_lost"}, "not seen (wrapper_lost)"),
    ],
)
def test_an_end_is_said_in_words(end: dict[str, object], said: str) -> None:
    assert exit_text(end) == said


def drawn(receipt: dict[str, object]) -> str:
    sheet = Sheet(80)
    write(receipt, sheet)
    return "\n".join(line.plain.rstrip() for line in sheet.lines)


def test_devices_resources_and_relatives_are_shown_where_there_are_any(booked: Path) -> None:
    device = {"uuid": "GPU-1", "name": "NVIDIA H100 80GB HBM3", "memory_bytes": 85520809984}
    receipt = json.loads(taximeter("receipt", "p-one", "--json").out) | {
        "tree": None,
        "parent": "p0",
        "root": "p00",
        "hardware": {"tier": "gpu-h100", "count": 1, "devices": [device], "evidence": "declared"},
        "resources": {"cpu_ns": None, "rss_peak_bytes": None, "gpu_memory_peak_bytes": 7 << 30, "energy_mj": 812345},
        "units": {"image": "2"},
    }
    lines = drawn(receipt).splitlines()
    assert " parent      p0" in lines
    assert " root        p00" in lines
    assert " device      NVIDIA H100 80GB HBM3, 79.6 GiB, GPU-1" in lines
    assert " used        GPU memory 7.0 GiB at most, energy 812.3 J" in lines
    assert " units       image 2" in lines


MISMATCH = {
    "tier": "gpu-h100",
    "count": 1,
    "devices": [{"uuid": "GPU-1", "name": "NVIDIA H100 80GB HBM3", "memory_bytes": 85520809984}],
    "evidence": "mismatch",
    "rule": "rule 17, gpu-h100",
    "declared": ["GPU-1"],
    "observed": ["GPU-1", "GPU-2"],
    "shared": True,
    "shared_devices": ["GPU-2"],
}


def on(booked: Path, **hardware: object) -> list[str]:
    receipt = json.loads(taximeter("receipt", "p-one", "--json").out)
    return drawn(receipt | {"hardware": MISMATCH | hardware}).splitlines()


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("declared", "declared; not seen by NVML"),
        ("observed", "seen by NVML; nothing was declared"),
        ("both", "declared and seen by NVML"),
        ("mismatch", "mismatch: what was declared is not what was seen"),
        ("smelled", "smelled"),
    ],
)
def test_how_devices_are_known_is_said_in_words(booked: Path, known: str, said: str) -> None:
    assert f" evidence    {said}" in on(booked, evidence=known)


def test_a_mismatch_is_shown_with_both_lists(booked: Path) -> None:
    lines = on(booked)
    assert " declared    GPU-1" in lines
    assert " seen on     GPU-1, GPU-2" in lines
    assert " seen on     no device" in on(booked, observed=[])
    assert not [line for line in on(booked, evidence="both") if line.startswith(" seen on ")]


def test_devices_that_others_were_on_are_shown(booked: Path) -> None:
    assert " shared      others were on, or given, GPU-2 as well" in on(booked)


def test_a_run_without_devices_needs_no_evidence(booked: Path) -> None:
    lines = on(booked, devices=[], declared=[], observed=[], evidence="declared")
    assert not [line for line in lines if line.startswith(" evidence ")]


def test_energy_that_was_integrated_is_said_to_be(booked: Path) -> None:
    receipt = json.loads(taximeter("receipt", "p-one", "--json").out)
    receipt["resources"] |= {"energy_mj": 2000, "energy_source": "power"}
    assert any("energy 2.0 J (by its power)" in line for line in drawn(receipt).splitlines())


def test_a_long_list_is_cut_and_says_where_the_rest_is(booked: Path) -> None:
    receipt = json.loads(taximeter("receipt", instance(2), "--json").out)
    receipt |= {"predictions": receipt["predictions"] * 6, "records": receipt["records"] * 12, "records_total": 12}
    printed = drawn(receipt)
    assert "and 4 more: --json lists them all" in printed
    assert "4 earlier ones: --json lists them" in printed
    assert printed.count(" record 5 ") == 8


def test_a_price_too_long_for_its_line_takes_two(booked: Path) -> None:
    receipt = json.loads(taximeter("receipt", "p-one", "--json").out)
    amount = "0.000000000000000000123456789 USD"
    receipt["billing"]["lines"][0]["text"] = f"0.412345678912345678 s × 0.0001 USD/s × 0.5 = {amount}"
    lines = drawn(receipt).splitlines()
    at = lines.index(" share       0.412345678912345678 s × 0.0001 USD/s × 0.5")
    assert lines[at + 1].endswith(f"· {amount}")
    assert len(lines[at + 1]) == 80


def evidence(booked: Path, **timing: object) -> str:
    receipt = json.loads(taximeter("receipt", "p-one", "--json").out)
    return drawn(receipt | {"timing": receipt["timing"] | timing})


def test_what_the_clocks_did_is_said_in_words(booked: Path) -> None:
    faults = ["stepped", "suspended"]
    assert " clocks      the calendar was set; the machine slept" in evidence(booked, clock=faults).splitlines()


def test_how_far_off_the_calendar_was_is_said_where_it_is_known(booked: Path) -> None:
    assert " clocks      agreed; UTC within 7.5 ms" in evidence(booked, utc_uncertainty_ns=7_500_000).splitlines()


def test_a_word_of_a_younger_agent_is_shown_as_it_is(booked: Path) -> None:
    assert " clocks      wobbled" in evidence(booked, clock=["wobbled"]).splitlines()
