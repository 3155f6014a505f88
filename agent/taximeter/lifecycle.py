"""The lifecycle of an instance, as a table: which stage follows which input, and which phase a stage is timed as.

Everything that may move an instance stands here; a pair that is not in the table is illegal and changes nothing.
Refuses to know time, predictions and money.
"""

from collections.abc import Mapping
from enum import StrEnum

from taximeter.errors import TaximeterError


class Stage(StrEnum):
    """Where an instance stands."""

    PENDING = "pending"  # its journal is open, its command not yet started
    BOOT = "boot"
    IDLE = "idle"
    ACTIVE = "active"
    DRAINING = "draining"  # asked to stop, predictions still active
    TEARDOWN = "teardown"
    CLOSED = "closed"


class Input(StrEnum):
    """What can happen to an instance."""

    SPAWNED = "spawned"
    READY = "ready"
    BUSY = "busy"  # its first active prediction began
    FREE = "free"  # its last active prediction ended
    STOPPING = "stopping"
    ENDED = "ended"


class Phase(StrEnum):
    """What a stage's time is counted as."""

    BOOT = "boot"
    IDLE = "idle"
    ACTIVE = "active"
    TEARDOWN = "teardown"


class IllegalInput(TaximeterError):
    """An input that the stage does not take; the instance stays as it was."""

    def __init__(self, stage: Stage, happened: Input) -> None:
        takes = ", ".join(sorted(TABLE[stage])) or "nothing"
        super().__init__(f"cannot take {happened} in stage {stage}: expected {takes}")
        self.reason = f"{happened}_in_{stage}"


TABLE: Mapping[Stage, Mapping[Input, Stage]] = {
    Stage.PENDING: {
        Input.SPAWNED: Stage.BOOT,
        Input.ENDED: Stage.CLOSED,
    },
    Stage.BOOT: {
        Input.READY: Stage.IDLE,
        Input.STOPPING: Stage.TEARDOWN,
        Input.ENDED: Stage.CLOSED,
    },
    Stage.IDLE: {
        Input.READY: Stage.IDLE,
        Input.BUSY: Stage.ACTIVE,
        Input.STOPPING: Stage.TEARDOWN,
        Input.ENDED: Stage.CLOSED,
    },
    Stage.ACTIVE: {
        Input.READY: Stage.ACTIVE,
        Input.FREE: Stage.IDLE,
        Input.STOPPING: Stage.DRAINING,
        Input.ENDED: Stage.CLOSED,
    },
    Stage.DRAINING: {
        Input.READY: Stage.DRAINING,
        Input.FREE: Stage.TEARDOWN,
        Input.STOPPING: Stage.DRAINING,
        Input.ENDED: Stage.CLOSED,
    },
    Stage.TEARDOWN: {
        Input.READY: Stage.TEARDOWN,
        Input.BUSY: Stage.DRAINING,
        Input.STOPPING: Stage.TEARDOWN,
        Input.ENDED: Stage.CLOSED,
    },
    Stage.CLOSED: {},
}

PHASES: Mapping[Stage, Phase] = {
    Stage.BOOT: Phase.BOOT,
    Stage.IDLE: Phase.IDLE,
    Stage.ACTIVE: Phase.ACTIVE,
    Stage.DRAINING: Phase.ACTIVE,
    Stage.TEARDOWN: Phase.TEARDOWN,
}

#: Stages in which the instance can be given work, or could before it was asked to stop.
READIED = frozenset({Stage.IDLE, Stage.ACTIVE, Stage.DRAINING})


def advance(stage: Stage, happened: Input) -> Stage:
    """The stage after `happened`; IllegalInput where the table has no such pair."""
    try:
        return TABLE[stage][happened]
    except KeyError:
        raise IllegalInput(stage, happened) from None
