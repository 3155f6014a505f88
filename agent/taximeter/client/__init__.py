"""What a worker says to the meter, from Python: that it is ready, what it predicts for whom, that it stops.

    from taximeter import client

    client.ready()
    with client.prediction(model="acme/sdxl", account="cus_7") as prediction:
        image = draw(...)
        prediction.add(image=1)

Under `taximeter run --worker` each call is a mark in the instance's FIFO; anywhere else it does nothing. Nothing here
waits, and nothing raises into the model's code, but for `Refused` where a prediction asks for it (`admit=True`).
What finds the FIFO full is kept with its time, in order, and sent as soon as there is room: with the next call, by a
thread, or within a tenth of a second at exit. Beyond 1,024 waiting marks those that may be missed are dropped and
counted: the start of a prediction, so that it is not billed, and `ready` and `stopping`. Units wait for the finish, and
the end of what was begun is always kept. Safe in threads, tasks, signal handlers and after a fork. Of a one-shot, whose
command is the one prediction, the agent takes none but that.

Standard library only, and little of that at import: a model's start waits for it.
"""

from time import monotonic_ns as _now_ns

from taximeter.client import marks as _marks
from taximeter.client.around import Refused
from taximeter.client.outlet import OUTLET as _OUTLET
from taximeter.client.predictions import Prediction, current, prediction
from taximeter.client.text import quote as _quote
from taximeter.client.text import word as _word

__all__ = ["Prediction", "Refused", "current", "dropped", "prediction", "ready", "stopping"]


def ready() -> None:
    """Say that this instance can take work: its boot ends. The first word counts, and a start says it as well."""
    if not _OUTLET.off:
        _OUTLET.tell(_marks.READY % _now_ns())


def stopping(reason: str = "drain") -> None:
    """Say that this worker is about to stop: `drain` (it finishes what it has), `canceled`, or `aborted`.

    Another word than these the agent rejects, and counts.
    """
    if not _OUTLET.off:
        said = _quote(_word(reason))
        if len(said) <= _marks.NAME_MAX_BYTES:
            _OUTLET.tell(_marks.STOPPING % (said, _now_ns()))
        else:
            _OUTLET.dropped += 1


def dropped() -> int:
    """How much this process did not tell so far: marks for which there was no room, and what made no sense.

    The latter are amounts that are none, attributes that are not flat or did not fit, a second end, and the like.
    """
    return _OUTLET.dropped
