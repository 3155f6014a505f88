"""`taximeter estimate`: what a run takes and costs, and plain words where that is not known."""

import json
from pathlib import Path

import pytest

from taximeter.events import Exited
from taximeter.records import UsageRecord
from taximeter.values import replace
from tests.cli import agent
from tests.cli.node import taximeter, write
from tests.cli.test_receipt import agrees
from tests.core.stories import MS, Options, exited, ready, spawned, tell
from tests.observe import histories


@pytest.fixture
def experienced(state: Path) -> Path:
    """A ledger with many runs of one model, and a few of another."""
    sdxl = {"prediction": "p1", "model": "acme/sdxl", "version": "3f2a"}
    learnt = []
    for at in range(1, 41):
        learnt += run(exited((100 + 20 * at) * MS, 1 if at % 10 == 0 else 0), **sdxl, units={"image": 1 + at % 3})
    for at in range(41, 44):
        learnt += run(exited(at * MS), prediction="p1", model="acme/llm")
    learnt += run(exited(500 * MS, 1), prediction="p1", model="acme/broken")
    return write(state, learnt=[replace(one, instance=f"i{at}") for at, one in enumerate(learnt)])


def run(end: Exited, **options: object) -> list[UsageRecord]:
    return tell(Options(**options), [spawned(0), ready(0), end]).records  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(("name", "asked"), [("many", "acme/sdxl"), ("few", "acme/llm")])
def test_an_estimate_reads_as_it_was_drawn(experienced: Path, name: str, asked: str, columns: int) -> None:
    answer = taximeter("estimate", asked, columns=columns)
    assert (answer.code, answer.err) == (0, "")
    assert max(len(line) for line in answer.lines) <= columns
    assert agrees(answer.out, f"estimate-{name}-{columns}.txt")


def test_an_estimate_is_also_json(experienced: Path) -> None:
    told = json.loads(taximeter("estimate", "acme/sdxl", "--json").out)
    assert (told["kinds"][0]["succeeded"], told["kinds"][0]["ended"], told["thin"]) == (36, 40, False)


def test_it_can_be_narrowed(experienced: Path) -> None:
    assert taximeter("estimate", "acme/sdxl", "--version", "other").code == 1
    answer = taximeter("estimate", "acme/sdxl", "--version", "3f2a", "--tier", "gpu-h100")
    assert " tier        no run of it on gpu-h100 here: see what if, below" in answer.lines
    assert [line.split()[0] for line in answer.lines if ", USD  " in line and "billed" not in line][1:] == ["gpu-h100,"]


def test_a_tier_that_nothing_is_known_of_is_said_to_be_one(experienced: Path) -> None:
    answer = taximeter("estimate", "acme/sdxl", "--tier", "gpu-odd", columns=100)
    said = "no run of it on gpu-odd here, and nothing says what it would cost there"
    assert f" tier        {said}" in answer.lines


def test_of_a_model_that_never_ran_nothing_is_guessed(experienced: Path) -> None:
    answer = taximeter("estimate", "acme/sdxxl")
    assert (answer.code, answer.out) == (1, "")
    known = "acme/sdxl, acme/llm, acme/broken"
    said = f"cannot estimate acme/sdxxl: expected a run of it on this node, got none (runs are known of {known})"
    assert answer.err == f"taximeter: {said}\n"


def test_of_a_model_that_only_failed_nothing_is_guessed(experienced: Path) -> None:
    answer = taximeter("estimate", "acme/broken")
    said = "cannot estimate acme/broken: expected a run that succeeded, got 1 run that did not"
    assert (answer.code, answer.err) == (1, f"taximeter: {said}\n")


def test_a_ledger_without_runs_says_so(state: Path) -> None:
    write(state)
    assert "got none (none is known of any)" in taximeter("estimate", "x").err


def test_an_empty_name_is_no_model(state: Path) -> None:
    assert taximeter("estimate", "").code == 2


def test_names_that_want_to_own_the_terminal_are_shown_harmlessly(state: Path) -> None:
    hostile = "\x1b[31mred\x1b[0m\n"
    write(state, learnt=histories.one_shot(model=hostile, version=hostile))
    for answer in (taximeter("estimate", hostile), taximeter("estimate", "x")):
        assert all(line.isprintable() for line in (answer.out + answer.err).splitlines())


def test_the_agent_is_asked_where_one_lives(experienced: Path) -> None:
    told = json.loads(taximeter("estimate", "acme/llm", "--json").out)
    told["model"] = "by the agent"
    with agent.living({"/v1/estimates/acme%2Fllm": told}) as living:
        answer = taximeter("estimate", "acme/llm", "--tier", "cpu")
    assert " model       by the agent" in answer.lines
    assert living.asked == ["/v1/estimates/acme%2Fllm?tier=cpu"]
