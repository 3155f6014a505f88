"""An instance's time that was told as active, and was not: its last prediction turned out to have ended before.

Owns how much that is, however often and where it was cut meanwhile, so that no cut changes what an instance costs.
What the prediction itself was told beyond its end is taken back beside it (booking.take_back). Refuses to know why an
end came late.
"""

from taximeter.corrections import freed_correction
from taximeter.instance import Freed, Instance, Piece
from taximeter.lifecycle import PHASES, Phase
from taximeter.turn import Turn
from taximeter.values import replace


def take_active_back(instance: Instance, turn: Turn, *, is_late: bool) -> Instance:
    """The instance after its last active prediction; where the end of that `is_late`, with what follows from it.

    Without the cuts that lie behind that end, its times would be settled there, and it would be idle since, or torn
    down: that is so from now on, also of what was told under an earlier rate card.
    """
    until_ns, began_ns = instance.since_ns, instance.since_ns - instance.lag_ns
    instance = replace(instance, lag_ns=0)
    if not is_late:
        return instance
    pieces: list[Piece] = []
    for piece in (*instance.pieces, instance.told):
        since_ns = pieces[-1].at_ns if pieces else began_ns
        ends = max(began_ns, since_ns), min(until_ns, piece.at_ns)
        if ends[0] < ends[1]:
            instance, piece = _take_back(instance, piece, ends, turn)  # noqa: PLW2901 -- with more of it freed
        pieces.append(piece)
    *over, told = pieces
    return replace(instance, pieces=tuple(over), freed=told.freed)


def _take_back(instance: Instance, piece: Piece, ends: tuple[int, int], turn: Turn) -> tuple[Instance, Piece]:
    idle = PHASES[instance.stage] is Phase.IDLE
    freed_ns = ends[1] - ends[0]
    more = Freed(idle=freed_ns) if idle else Freed(teardown=freed_ns)
    record = freed_correction(instance, piece, more, ends, turn.book)
    if record is not None:
        turn.records.append(record)
        instance = replace(instance, records=instance.records + 1)
    return instance, replace(piece, freed=Freed(piece.freed.idle + more.idle, piece.freed.teardown + more.teardown))
