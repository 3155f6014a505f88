"""One prediction of a worker, from its start to its end, told in marks.

Owns what it is called, whose it is, and the way in and out of its block; what else is said of it is a base of it
(telling, counting). Refuses to raise into the code that it measures, and to know how marks leave the process (outlet).
A worker pays for this with each prediction, and most after it was busy with something else, when every line of it has
to be fetched from afar: so what is said of most predictions is made in few steps (`prediction`, `__enter__`,
`__exit__`), and what is said of few out of their way.
"""

import os
from os import write
from time import monotonic_ns

from taximeter.client import marks
from taximeter.client.around import (
    AROUND,
    OUTSIDE,
    begin_ids,
    begin_second,
    ending,
    from_its_first_instruction,
    is_foreign,
)
from taximeter.client.counting import APART, ENDED, NEW, NOTHING
from taximeter.client.outlet import OUTLET
from taximeter.client.telling import Telling
from taximeter.client.text import quote, word

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping
    from typing import Any, Self, TypeVar

    _Function = TypeVar("_Function", bound=Callable[..., Any])

_around, _enter, _leave = AROUND.get, AROUND.set, AROUND.reset
_heads = marks.heads
_GIVEN, _MADE = marks.GIVEN, marks.MADE
#: What comes of telling a start: the first of its kind, words that are none, whatever the FIFO has against it.
_OWN = (KeyError, TypeError, OSError)
_LEFT = (AttributeError, RuntimeError, ValueError)
#: Around whom there is none.
_nowhere = OUTSIDE if OUTSIDE.id is None and OUTSIDE.root is None else None
#: Of the ids that are made within this second: what they have in common, until when, and their count.
_common, _until_ns, _count = begin_ids()


class _Left:
    """What there is to be awaited as a block is left."""

    __slots__ = ()

    def __await__(self) -> "Generator[None, None, None]":
        return iter(())  # type: ignore[return-value]  # which is as much of one as is needed


_IS_LEFT = _Left()


class Prediction(Telling):
    """A prediction on this worker: `with`, `async with`, a decorator of functions, or `start` and `finish`.

    Nothing here waits or raises, but for `Refused` where that is asked for (`admit`). An exception in a `with` block or
    a decorated function passes through and ends the prediction: an `Exception` as failed; what is none (cancellation,
    Ctrl-C, a generator that nobody reads on) as canceled; SystemExit by its status.
    """

    __slots__ = ()

    def __enter__(self) -> "Self":
        outlet = OUTLET
        if not (self._state or outlet.waiting or outlet.off):  # NEW: start, in place, if it is like others before
            try:
                at_ns = monotonic_ns()
                self._state = outlet.pid  # no call comes behind it, and so no signal, before it is true
                write(outlet.fd, _heads[self._kind] % (self._name, self._rest, at_ns))
                self._token = _enter(self)
            except BaseException as error:
                # A TypeError may be that of a word's own hash: what is given is not raised over.
                if not isinstance(error, _OWN) or (is_foreign(error) and not isinstance(error, TypeError)):
                    self._leave_by(error)
                    raise
                self._state = NEW
            else:
                return self
        try:
            self.start()
            self._go_in()
        except BaseException as error:
            self._leave_by(error)
            raise
        return self

    @from_its_first_instruction
    def __exit__(self, kind: "type[BaseException] | None", error: "BaseException | None", trace: object) -> None:
        try:
            at_ns = monotonic_ns()
            outlet = OUTLET
            try:
                _leave(self._token)
            except _LEFT as why:  # not entered, or left again, or in another context: nothing is to be undone here
                if is_foreign(why):
                    raise
            # A child that was forked in this block leaves it, too: it ends with the process that entered it.
            if self._state == outlet.pid and kind is None and not self._held and not outlet.waiting:
                line = self._kind[0] % (self._name, self._rest, at_ns)
                self._state = ENDED  # as above
                try:
                    write(outlet.fd, line)
                except OSError as full:
                    if is_foreign(full):
                        raise
                    outlet.tell(line, needed=True)
            else:
                self._go_out(b"succeeded" if kind is None else ending(kind, error), at_ns)
        except BaseException as interrupting:
            self._leave_by(interrupting)
            raise

    async def __aenter__(self) -> "Self":
        return self.__enter__()

    @from_its_first_instruction
    def __aexit__(  # at once: a coroutine might be made, and never run, because a signal's exception comes in between
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: object
    ) -> "Awaitable[None]":
        try:
            self.__exit__(kind, error, trace)
        except BaseException as interrupting:
            self._leave_by(interrupting)
            raise
        return _IS_LEFT

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
        return self.id, self._name, self._rest, self._kind, self._state

    def __setstate__(self, state: "tuple[Any, ...]") -> None:
        self._id, self._name, self._rest, kind, self._state = state
        self._kind = (_MADE if kind[0] == _MADE else _GIVEN, *kind[1:])
        self._held = NOTHING


# A star before the words that are to be given by name, and two before those of few, would cost a worker more than all
# that is made of them: who gives them otherwise is told so by `by_name`.
def prediction(  # noqa: PLR0913, PLR0917 -- by name
    id: "str | None" = None,  # noqa: A002 -- what everybody calls it
    by_name: None = None,
    model: "str | None" = None,
    version: "str | None" = None,
    account: "str | None" = None,
    service_class: "str | None" = None,
    pool: "str | None" = None,
    parent: "str | None" = None,
    root: "str | None" = None,
    attributes: "Mapping[str, str | int | float] | None" = None,
    traceparent: "str | None" = None,
    detached: bool = False,
    admit: bool = False,
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
    if by_name is not None:
        raise TypeError(f"cannot name a prediction by {by_name!a} as well: expected all but the id by name (model=...)")
    outer = _around()
    self = Prediction()
    if id is None:
        if monotonic_ns() > _until_ns:
            _begin_second()
        self._name, end = _common, _MADE
        for self._rest in _count:  # less than a call of next, after a pause
            break
    else:
        if type(id) is not str:
            id = word(id)  # noqa: A001
        self._id = id
        if id.isascii() and id.isprintable() and '"' not in id and "\\" not in id:
            self._name = b'"%b"' % id.encode()
        else:
            self._name = quote(id)
        self._rest, end = b"", _GIVEN
    if account is None:
        account = outer.account
    self._state, few = NEW, None
    if (
        outer is not _nowhere
        or parent is not None
        or root is not None
        or attributes is not None
        or traceparent is not None
        or detached
        or admit
    ):
        few = marks.more(outer, (parent, root, attributes, traceparent, detached, admit))
        self._state = APART
    self._kind = (end, model, version, service_class, pool, account, few)
    self._held = NOTHING
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
