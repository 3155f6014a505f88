"""One prediction of a worker, from its start to its end, told in marks.

Owns what a prediction is called, whose it is and how it ended, and when what is told of it. Refuses to raise into the
code that it measures, and to know how marks leave the process (outlet). A worker pays for this with each prediction,
and most after it was busy with something else, when every line of it has to be fetched from afar: so what is said of
most predictions is made in few steps (`prediction`, `__enter__`, `__exit__`), and what is said of few out of their way.
"""

import os
from os import write
from time import monotonic_ns

from taximeter.client import marks
from taximeter.client.around import AROUND, begin_ids, begin_second, ending
from taximeter.client.counting import ENDED, NEW, UNTOLD, Counted
from taximeter.client.outlet import OUTLET
from taximeter.client.text import quote, word

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from typing import Any, Self, TypeVar, Unpack

    from taximeter.client.around import Outside

    _Function = TypeVar("_Function", bound=Callable[..., Any])

_around, _enter, _leave = AROUND.get, AROUND.set, AROUND.reset
_heads = marks.heads
_GIVEN, _MADE = marks.GIVEN, marks.MADE
#: Of the ids that are made within this second: what they have in common, until when, and their count.
_common, _until_ns, _count = begin_ids()


class Prediction(Counted):
    """A prediction on this worker: `with`, `async with`, a decorator of functions, or `start` and `finish`.

    Nothing here waits or raises, but for `Refused` where that is asked for (`admit`). An exception in a `with` block or
    a decorated function passes through and ends the prediction: an `Exception` as failed; what is none (cancellation,
    Ctrl-C, a generator that nobody reads on) as canceled; SystemExit by its status.
    """

    __slots__ = (
        *("account", "_id", "_name", "_rest", "_end_line", "_kind", "_more"),
        *("_state", "_token", "_active", "_held", "_due_ns", "__weakref__"),
    )

    account: "str | None"  #: who is billed, if that is known here
    _id: "str | None"  #: None: it was made here, and is only in _name
    _name: bytes  #: the id in JSON; of one that was made here without what follows
    _rest: "bytes | int"  #: which is a number
    _end_line: bytes  #: how it will most likely end; both, and the time, are missing
    _kind: "marks.Kind"
    _more: "marks.More | None"  #: what is said of few
    _state: int
    _token: "Token[Prediction | Outside] | None"  #: of a `with` block
    _active: bool
    _held: "marks.Units"
    _due_ns: int  #: when the units that are held are to be told, where there are some

    @property
    def id(self) -> str:
        """What it is called, all over the fleet."""
        return self._quoted()[1:-1].decode() if self._id is None else self._id

    @property
    def parent(self) -> "str | None":
        """The id of the prediction that asked for this one."""
        return self._more.parent if self._more else None

    @property
    def root(self) -> str:
        """The id of the first of that chain; its own, where nobody asked for it."""
        more = self._more
        return (more and (more.root or more.parent)) or self.id

    @property
    def traceparent(self) -> "str | None":
        """W3C's, as it came."""
        return self._more.traceparent if self._more else None

    def start(self) -> "Self":
        """Begin, once; what follows is active, but for class fast_boot, which is in load until `active`.

        Raises Refused, with `admit`, and nothing else.
        """
        if self._state == NEW:
            self._begin()
        return self

    def active(self) -> None:
        """Of class fast_boot: the fine-tune is loaded, processing begins. Of others, which load nothing: nothing."""
        if self._state > 0 and not self._active:
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
            OUTLET.dropped += self._state == NEW and not OUTLET.off
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

    def __enter__(self) -> "Self":
        outlet = OUTLET
        if self._state == NEW and self._more is None and not outlet.waiting and not outlet.off:  # start, in place
            try:
                write(outlet.fd, _heads[self._kind] % (self._name, self._rest, monotonic_ns()))
            except Exception:
                self._begin()
            else:
                self._state = outlet.pid
                self._token = _enter(self)
                return self
        else:
            self.start()
        if self._token is None:
            self._token = _enter(self)
            if self._state > 0:
                self._state = OUTLET.pid  # who enters ends it, whoever started it
        return self

    def __exit__(self, kind: "type[BaseException] | None", error: "BaseException | None", trace: object) -> None:
        at_ns = monotonic_ns()
        outlet, token = OUTLET, self._token
        if token is not None:
            self._token = None
            try:
                _leave(token)
            except ValueError:  # in another context than it was entered in: nothing is to be undone here
                pass
        # A child that was forked in this block leaves it, too: it ends with the process that entered it.
        if self._state != outlet.pid:
            if self._state == UNTOLD:
                self._state = ENDED
        elif kind is None and not self._held and not outlet.waiting:
            self._state = ENDED
            line = self._end_line % (self._name, self._rest, at_ns)
            try:
                write(outlet.fd, line)
            except OSError:
                outlet.tell(line, needed=True)
        else:
            self._end(b"succeeded" if kind is None else ending(kind, error), at_ns)

    async def __aenter__(self) -> "Self":
        return self.__enter__()

    async def __aexit__(self, kind: "type[BaseException] | None", error: "BaseException | None", trace: object) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: "_Function") -> "_Function":
        """Decorate a function: each call is a prediction of its own, with what was said here.

        A generator's lasts while somebody reads it, a coroutine function's until it returns. A function that only
        returns a generator or something to be awaited ends before that begins.
        """
        from taximeter.client.calls import metered

        decorated: _Function = metered(self, function)
        return decorated

    def __getstate__(self) -> "tuple[Any, ...]":  # type: ignore[explicit-override] # 3.12
        """For a process that ends it, or calls others for it: units and the `with` block stay here."""
        return self.account, self._id, self._name, self._rest, self._end_line, self._kind, self._more, self._state

    def __setstate__(self, state: "tuple[Any, ...]") -> None:
        self.account, self._id, self._name, self._rest, self._end_line, self._kind, self._more, self._state = state
        self._token, self._active, self._held = None, False, []

    def _begin(self) -> None:
        """Start what is not like the others, or finds no room."""
        outlet, more = OUTLET, self._more
        self._state = UNTOLD
        if outlet.off:
            return
        if more is not None and more.admit:
            from taximeter.client import admission

            model = self._kind[1]
            refused = admission.refusal(outlet.path, self.account, None if model is None else word(model))
            if refused is not None:
                self._state = NEW
                raise refused
        try:
            head, left_out = marks.head(self._kind, outlet.pid, self._quoted(), more)
            outlet.dropped += left_out
            if outlet.tell(head % (self._name, self._rest, monotonic_ns())):
                self._state = outlet.pid
        except Exception:  # whatever was given here, the model goes on
            outlet.dropped += 1

    def _end(self, how: bytes, at_ns: int) -> None:
        self._state = ENDED
        if self._held:
            self._tell_units(at_ns, how)
        else:
            OUTLET.tell(marks.FINISH % (self._quoted(), how, at_ns), needed=True)


_new = Prediction.__new__


def prediction(
    id: "str | None" = None,  # noqa: A002 -- what everybody calls it
    *,
    model: "str | None" = None,
    version: "str | None" = None,
    account: "str | None" = None,
    service_class: "str | None" = None,
    pool: "str | None" = None,
    **more: "Unpack[marks.Rest]",
) -> Prediction:
    """Name a prediction; it begins with `start`, `with`, or a call of the function that it decorates.

    `id` is unique in your fleet (None: a UUIDv7 is made, whose time is that of the second). `service_class` is public,
    fast_boot or training. What `taximeter run` was told of model, version, account, class and pool cannot be changed
    here. And further, each None or False by default:

    `parent`, `root`: ids; else those of the prediction around this one, else of the environment (together: one that is
    of another tree comes without the other). `account` is of the same, if it is not said. `traceparent` is W3C's.
    `attributes`: flat, a text, number or truth by name, and kept with the record; what is not, or does not fit into one
    mark, is left out and counted (`dropped`).
    `detached`: it does not end with this process.
    `admit`: a start raises Refused where this node refuses the account, or the model to it.

    A name that the agent does not take (empty, more than 256 characters, control characters, no such class) is sent as
    it is: the agent counts it, and bills no such prediction.
    """
    outer = _around()
    self = _new(Prediction)
    self._id = id
    if id is None:
        if monotonic_ns() > _until_ns:
            _begin_second()
        self._name, self._rest, self._end_line = _common, _count(), _MADE
    else:
        if type(id) is not str:
            self._id = id = word(id)  # noqa: A001
        if id.isascii() and id.isprintable() and '"' not in id and "\\" not in id:
            self._name = b'"%b"' % id.encode()
        else:
            self._name = quote(id)
        self._rest, self._end_line = b"", _GIVEN
    if account is None:
        account = outer.account
    elif type(account) is not str:
        account = word(account)
    self.account = account
    self._kind = (self._end_line, model, version, service_class, pool, account)
    self._more = marks.more(outer, more) if more or outer.id is not None else None
    self._state = NEW
    self._token = None
    self._active = False
    self._held = []
    return self


def current() -> "Prediction | None":
    """The prediction whose `with` block or decorated function this is, of this thread or task; None outside of any."""
    around = _around()
    return around if isinstance(around, Prediction) else None


def _begin_second() -> None:
    """Ids of another second."""
    global _common, _until_ns, _count
    _common, _until_ns, _count = begin_second(_common, _count)


def _after_fork() -> None:
    """In the child: marks have another pid, and ids another beginning."""
    global _common, _until_ns, _count
    _heads.clear()
    _common, _until_ns, _count = begin_ids()


os.register_at_fork(after_in_child=_after_fork)
