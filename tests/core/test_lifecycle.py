"""The whole transition table, legal and illegal pairs alike."""

import pytest

from taximeter.lifecycle import PHASES, READIED, TABLE, IllegalInput, Input, Stage, advance

LEGAL = {
    (Stage.PENDING, Input.SPAWNED): Stage.BOOT,
    (Stage.PENDING, Input.ENDED): Stage.CLOSED,
    (Stage.BOOT, Input.READY): Stage.IDLE,
    (Stage.BOOT, Input.STOPPING): Stage.TEARDOWN,
    (Stage.BOOT, Input.ENDED): Stage.CLOSED,
    (Stage.IDLE, Input.READY): Stage.IDLE,
    (Stage.IDLE, Input.BUSY): Stage.ACTIVE,
    (Stage.IDLE, Input.STOPPING): Stage.TEARDOWN,
    (Stage.IDLE, Input.ENDED): Stage.CLOSED,
    (Stage.ACTIVE, Input.READY): Stage.ACTIVE,
    (Stage.ACTIVE, Input.FREE): Stage.IDLE,
    (Stage.ACTIVE, Input.STOPPING): Stage.DRAINING,
    (Stage.ACTIVE, Input.ENDED): Stage.CLOSED,
    (Stage.DRAINING, Input.READY): Stage.DRAINING,
    (Stage.DRAINING, Input.FREE): Stage.TEARDOWN,
    (Stage.DRAINING, Input.STOPPING): Stage.DRAINING,
    (Stage.DRAINING, Input.ENDED): Stage.CLOSED,
    (Stage.TEARDOWN, Input.READY): Stage.TEARDOWN,
    (Stage.TEARDOWN, Input.BUSY): Stage.DRAINING,
    (Stage.TEARDOWN, Input.STOPPING): Stage.TEARDOWN,
    (Stage.TEARDOWN, Input.ENDED): Stage.CLOSED,
}


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("happened", Input)
def test_every_pair_of_stage_and_input_does_what_the_table_says(stage: Stage, happened: Input) -> None:
    expected = LEGAL.get((stage, happened))
    if expected is None:
        with pytest.raises(IllegalInput, match=f"cannot take {happened} in stage {stage}"):
            advance(stage, happened)
    else:
        assert advance(stage, happened) is expected


def test_the_table_knows_every_stage_and_nothing_else() -> None:
    assert set(TABLE) == set(Stage)
    assert {(stage, happened) for stage, row in TABLE.items() for happened in row} == set(LEGAL)


def test_nothing_leaves_a_closed_instance() -> None:
    assert not TABLE[Stage.CLOSED]


def test_every_stage_between_start_and_end_is_timed_as_a_phase() -> None:
    assert set(PHASES) == set(Stage) - {Stage.PENDING, Stage.CLOSED}


def test_every_stage_can_be_reached() -> None:
    reached = {Stage.PENDING}
    while True:
        further = reached | {after for stage in reached for after in TABLE[stage].values()}
        if further == reached:
            break
        reached = further
    assert reached == set(Stage)


def test_an_illegal_input_names_a_bounded_reason() -> None:
    with pytest.raises(IllegalInput) as caught:
        advance(Stage.IDLE, Input.FREE)
    assert caught.value.reason == "free_in_idle"


def test_an_instance_asked_to_stop_before_it_was_ready_was_never_ready() -> None:
    assert Stage.TEARDOWN not in READIED
