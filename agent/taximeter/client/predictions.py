"""One prediction of a worker, from its start to its end, told in marks.

Owns what it is called, whose it is, and the way in and out of its block; what else is said of it is a base of it
(telling, counting). Refuses to raise into the code that it measures, and to know how marks leave the process (outlet).
A worker pays for this with each prediction,
and most after it was busy with something else, when every line of it has to be fetched from afar: so what is said of
most predictions is made in few steps (`prediction`, `__enter__`, `__exit__`), and what is said of few out of their way.
"""

import os
from os import write
from time import monotonic_ns

from taximeter.client import marks
from taximeter.client.around import AROUND, begin_ids, begin_second, ending
from taximeter.client.counting import ENDED, NEW, UNTOLD
from taximeter.client.outlet import OUTLET
from taximeter.client.telling import Telling
from taximeter.client.text import quote, word

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, TypeVar, Unpack

    _Function = TypeVar("_Function", bound=Callable[..., Any])

_around, _enter, _leave = AROUND.get, AROUND.set, AROUND.reset
_heads = marks.heads
_GIVEN, _MADE = marks.GIVEN, marks.MADE
#: Of the ids that are made within this second: what they have in common, until when, and their count.
_common, _until_ns, _count = begin_ids()


class Prediction(Telling):
    """A prediction on this worker: `with`, `async with`, a decorator of functions, or `start` and `finish`.

    Nothing here waits or raises, but for `Refused` where that is asked for (`admit`). An exception in a `with` block or
    a decorated function passes through and ends the prediction: an `Exception` as failed; what is none (cancellation,
    Ctrl-C, a generator that nobody reads on) as canceled; SystemExit by its status.
    """

    __slots__ = ()

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
