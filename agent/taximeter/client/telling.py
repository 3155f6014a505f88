"""What can be said of a prediction beside its `with` block, and of one that is not like most.

Owns when a start, an end and what is between are told, whatever there is no room for, or is refused. Most predictions
need only the way in and out of their block (predictions).
"""

from time import monotonic_ns

from taximeter.client import marks
from taximeter.client.around import AROUND, OUTSIDE, ending, leave
from taximeter.client.counting import APART, ENDED, NEW, UNTOLD, Counted
from taximeter.client.outlet import OUTLET
from taximeter.client.text import word

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from contextvars import Token
    from typing import Self

    from taximeter.client.around import Outside
    from taximeter.client.predictions import Prediction


class Telling(Counted):
    """The part of a Prediction that is not its `with` block."""

    __slots__ = (
        *("_id", "_name", "_rest", "_kind"),
        *("_state", "_token", "_active", "_held", "_due_ns", "__weakref__"),
    )

    _id: str  #: as it was given; one that was made here is only in _name
    _name: bytes  #: the id in JSON; of one that was made here without what follows
    _rest: "bytes | int"  #: which is a number
    _kind: "marks.Kind"
    _state: int
    _token: "Token[Prediction | Outside]"  #: of a `with` block; missing until that is entered
    _active: bool  #: missing until `active` was said
    _held: "marks.Units"
    _due_ns: int  #: when the units that are held are to be told, where there are some

    @property
    def id(self) -> str:
        """What it is called, all over the fleet."""
        return self._quoted()[1:-1].decode() if self._kind[0] is marks.MADE else self._id

    @property
    def account(self) -> "str | None":
        """Who is billed, if that is known here."""
        account = self._kind[5]
        return None if account is None else word(account)

    @property
    def parent(self) -> "str | None":
        """The id of the prediction that asked for this one."""
        more = self._kind[6]
        return more.parent if more else None

    @property
    def root(self) -> str:
        """The id of the first of that chain; its own, where nobody asked for it."""
        more = self._kind[6]
        return (more and (more.root or more.parent)) or self.id

    @property
    def traceparent(self) -> "str | None":
        """W3C's, as it came."""
        more = self._kind[6]
        return more.traceparent if more else None

    def start(self) -> "Self":
        """Begin, once; what follows is active, but for class fast_boot, which is in load until `active`.

        Raises Refused, with `admit`, and nothing else.
        """
        if self._state in (NEW, APART):
            try:
                self._begin()
            except BaseException as error:
                self._leave_by(error)
                raise
        return self

    def _go_in(self) -> None:
        """Enter the `with` block of one that was begun with more steps than most."""
        if not hasattr(self, "_token"):
            self._token = AROUND.set(self)  # type: ignore[arg-type]  # each of this kind is a Prediction
            if self._state > 0:
                self._state = OUTLET.pid  # who enters ends it, whoever started it

    def active(self) -> None:
        """Of class fast_boot: the fine-tune is loaded, processing begins. Of others, which load nothing: nothing."""
        if self._state > 0 and not hasattr(self, "_active"):
            self._active = True
            if self._kind[3] in (None, "fast_boot"):
                OUTLET.tell(marks.ACTIVE % (self._quoted(), monotonic_ns()), needed=True)

    def finish(self, status: str = "succeeded") -> None:
        """End it, once: `succeeded`, `failed` or `canceled`. Another word is taken for failed, and counted."""
        at_ns = monotonic_ns()
        how = marks.STATUSES.get(word(status))
        if self._state > 0:
            self._end(how or b"failed", at_ns)
            OUTLET.dropped += how is None
        else:
            OUTLET.dropped += self._state in (NEW, APART) and not OUTLET.off
            self._state = ENDED

    def fail(self) -> None:
        """End it as failed, now: what follows in the `with` block is no part of it."""
        self.finish("failed")

    def cancel(self) -> None:
        """End it as canceled, now, as `fail` does."""
        self.finish("canceled")

    def environment(self) -> dict[str, str]:
        """Variables for a process that works for this prediction: a run under the meter there has it as its parent.

        `subprocess.run([...], env=os.environ | prediction.environment())`
        """
        from taximeter.client import downstream

        return downstream.environment(self)

    def headers(self) -> dict[str, str]:
        """Headers for a call to another model: the prediction there has this one as its parent.

        What is not printable ASCII is left out, for HTTP has no room for it.
        """
        from taximeter.client import downstream

        return downstream.headers(self)

    def _begin(self) -> None:
        """Start what is not like the others, or finds no room."""
        outlet, more = OUTLET, self._kind[6]
        self._state = UNTOLD
        if outlet.off:
            return
        if more is not None and more.admit:
            from taximeter.client import admission

            model = self._kind[1]
            refused = admission.refusal(outlet.path, self.account, None if model is None else word(model))
            if refused is not None:
                self._state = APART
                raise refused
        try:
            head, left_out = marks.head(self._kind, outlet.pid, self._quoted())
        except marks.TooLong:
            outlet.dropped += 1
            return
        outlet.dropped += left_out
        line = head % (self._name, self._rest, monotonic_ns())
        self._state = outlet.pid
        if not outlet.tell(line):
            self._state = UNTOLD

    def _go_out(self, how: bytes, at_ns: int) -> None:
        """Leave the `with` block of one that did not just do what most do."""
        if self._state == OUTLET.pid:
            self._end(how, at_ns)
        elif self._state == UNTOLD:
            self._state = ENDED

    def _end(self, how: bytes, at_ns: int) -> None:
        if self._held:
            self._tell_units(at_ns, how)
        else:
            self._tell_end(marks.FINISH % (self._quoted(), how, at_ns))

    def _leave_by(self, error: BaseException) -> None:
        """End it by an exception from elsewhere, which came in the midst of its start, or of its end.

        A signal handler's is raised behind whatever call the signal finds, or as one begins.
        """
        if self._state == OUTLET.pid:
            self._end(ending(type(error), error), monotonic_ns())
        if hasattr(self, "_token"):
            leave(self._token)
        elif AROUND.get() is self:  # what was around it is not known any more: nobody pays for what follows by mistake
            AROUND.set(OUTSIDE)
        if OUTLET.waiting:
            OUTLET.drain()
