"""Units of a prediction: counted as they come, and told with its end, or now and then.

Owns what is held of them and when it is told, before a fork, too. Refuses to raise into the code that counts.
"""

import os
from time import monotonic_ns

from taximeter.client import marks
from taximeter.client.outlet import OUTLET
from taximeter.client.text import is_name, quantity

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping

#: Units wait so long, from the first one on, for a mark that they can go with: the end, or later units.
_HOLD_NS = 1_000_000_000
_MOST_HELD = 256
#: How a prediction stands; of one that goes on, this is the pid of the process that started it, or entered its block.
NEW, APART, UNTOLD, ENDED = 0, -1, -2, -3  # APART is new, too, and has more to say than most

#: What one holds that has counted nothing so far: most never do. Nobody can put anything into it.
NOTHING: "marks.Units" = ()  # type: ignore[assignment]

#: Predictions that hold units which were not told, by identity.
_holders: "dict[int, Counted]" = {}


class Counted:
    """What counts units: the part of a Prediction that most of them do without."""

    if TYPE_CHECKING:
        _name: bytes
        _rest: bytes | int
        _kind: marks.Kind
        _state: int
        _held: marks.Units
        _due_ns: int
    else:
        __slots__ = ()

    def add(self, units: "Mapping[str, object] | None" = None, /, **more: object) -> None:
        """Count units: `add(token_output=128)`, or a mapping where a name is no Python name. Increments, not totals.

        An amount is an int, a float, a Decimal or a decimal text, and not negative; what is none is left out and
        counted (`dropped`). Units go with the end, and before it with the first `add` a second after they came, so that
        thousands of `add` cost little: a process that is killed loses what it added since.

        An exception from elsewhere (Ctrl-C, a signal handler's) passes through, and then all of them count, or none.
        """
        if self._state <= UNTOLD:
            OUTLET.dropped += self._state == ENDED and not OUTLET.off
            return
        now_ns, number = monotonic_ns(), id(self)
        counted: marks.Units = []
        if units is not None:
            from taximeter.client.units import counted as counted_in

            counted, left_out = counted_in(units)
            OUTLET.dropped += left_out
        for name, amount in more.items():
            exact = quantity(amount)
            if exact is not None and type(name) is str and is_name(name):
                counted.append((name, exact))
            else:
                OUTLET.dropped += 1
        if not counted:
            return
        # No call comes behind any of these, and so neither an exception from elsewhere nor another thread.
        held = self._held
        if held is NOTHING:
            held = self._held = []
        if not held:
            self._due_ns = now_ns + _HOLD_NS
        held += counted
        if self._state > 0:
            _holders[number] = self
            if now_ns >= self._due_ns or len(held) >= _MOST_HELD:
                self._tell_units(now_ns)

    def _quoted(self) -> bytes:
        """The id in JSON."""
        return marks.name_in(self._kind[0]) % (self._name, self._rest)

    def _tell_units(self, at_ns: int, how: "bytes | None" = None) -> None:
        """Tell the units that are held, and the end with the last of them. What finds no room is held on.

        So is what an exception from elsewhere keeps from being told; none of them is told twice.
        """
        number = id(self)
        _holders.pop(number, None)
        untold = self._held[:]
        del self._held[:]  # no call comes in between: each of them is taken, and by one thread
        try:
            from taximeter.client.units import cut, sums

            units, left_out = sums(untold)
            parts, said_last = list(cut(units)), b""
            if how and parts:
                said_last = parts.pop()[1]
            untold = units
            OUTLET.dropped += left_out
            for part, said in parts:
                line = marks.UNITS % (self._quoted(), at_ns, said)
                untold = untold[len(part) :]
                if not OUTLET.tell(line, needed=how is not None):
                    OUTLET.dropped -= 1  # not yet
                    self._held += part
                    self._due_ns = at_ns + _HOLD_NS
                    _holders[number] = self
            if how:
                self._tell_end(marks.FINISH_UNITS % (self._quoted(), how, at_ns, said_last))
        except BaseException:
            if self._state != ENDED:
                self._held += untold
                _holders[number] = self
            raise

    def _tell_end(self, line: bytes) -> None:
        self._state = ENDED
        OUTLET.waiting.append(line)  # right behind it, so that no signal's exception comes in between
        OUTLET.drain()


def _before_fork() -> None:
    """What is held is told before there are two who hold it."""
    for holder in list(_holders.values()):
        if holder._state > 0:
            holder._tell_units(monotonic_ns())


def _after_fork() -> None:
    """In the child: what was not told is the parent's to tell."""
    for holder in _holders.values():
        holder._held.clear()
    _holders.clear()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
