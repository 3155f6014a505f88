"""One prediction of a worker, from its start to its end, told in marks.

Owns what a prediction is called, whose it is and how it ended, and when what is told of it. Refuses to raise into the
code that it measures, and to know how marks leave the process (outlet). A worker pays for this with each prediction,
and most after it was busy with something else, when every line of it has to be fetched from afar: so what is said of
most predictions is made in few steps (`prediction`, `start`, `__exit__`), and what is said of few is out of their way.
"""

import os
from os import write
from time import monotonic_ns, time_ns

from taximeter import wire
from taximeter.client import marks
from taximeter.client.around import AROUND, begin_ids, ending
from taximeter.client.outlet import OUTLET
from taximeter.client.text import is_name, quantity, quote, word

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token
    from typing import Any, Self, TypeVar

    from taximeter.client.around import Outside

    _Function = TypeVar("_Function", bound=Callable[..., Any])

#: Names of the headers by which a call says for which prediction it is made.
HEADER_PARENT = "taximeter-parent"
HEADER_ROOT = "taximeter-root"
HEADER_ACCOUNT = "taximeter-account"
HEADER_TRACEPARENT = "traceparent"

#: Units wait so long, from the first one on, for a mark that they can go with: the end, or later units.
_HOLD_NS = 1_000_000_000
_MOST_HELD = 256
#: How a prediction stands; of one that goes on, this is the pid of the process that started it, or entered its block.
_NEW, _UNTOLD, _ENDED = 0, -1, -2
_SUCCEEDED = marks.FINISH.replace(b'"%b"', b'"succeeded"')

_around, _enter, _leave = AROUND.get, AROUND.set, AROUND.reset
_heads = marks.heads
#: Predictions that hold units which were not told, by identity.
_holders: "dict[int, Prediction]" = {}


class Prediction:
    """A prediction on this worker: `with`, `async with`, a decorator of functions, or `start` and `finish`.

    Nothing here waits or raises, but for `Refused` where that is asked for (`admit`). An exception in a `with` block or
    a decorated function passes through and ends the prediction: an `Exception` as failed; what is none (cancellation,
    Ctrl-C, a generator that nobody reads on) as canceled; SystemExit by its status.
    """

    __slots__ = (
        *("account", "_id", "_name", "_kind", "_more", "_state", "_token", "_active", "_held", "_due_ns"),
        "__weakref__",
    )

    account: "str | None"  #: who is billed, if that is known here
    _id: "str | None"  #: None: it was made here, and is only in _name
    _name: bytes  #: the id in JSON
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
        return self._name[1:-1].decode() if self._id is None else self._id

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
        outlet = OUTLET
        if self._state == _NEW:
            if self._more is None and not outlet.waiting and not outlet.off:
                try:
                    write(outlet.fd, _heads[self._kind] % (self._name, monotonic_ns()))
                except Exception:  # the first of its kind, or no room, or a name that is none
                    self._begin()
                else:
                    self._state = outlet.pid
            else:
                self._begin()
        return self

    def active(self) -> None:
        """Of class fast_boot: the fine-tune is loaded, processing begins. Of others, which load nothing: nothing."""
        if self._state > 0 and not self._active:
            self._active = True
            if self._kind[2] in (None, "fast_boot"):
                OUTLET.tell(marks.ACTIVE % (self._name, monotonic_ns()), needed=True)

    def add(self, units: "Mapping[str, object] | None" = None, /, **more: object) -> None:
        """Count units: `add(token_output=128)`, or a mapping where a name is no Python name. Increments, not totals.

        An amount is an int, a float, a Decimal or a decimal text, and not negative; what is none is left out and
        counted (`dropped`). Units go with the end, and before it with the first `add` a second after they came, so that
        thousands of `add` cost little: a process that is killed loses what it added since.
        """
        if self._state < 0:
            OUTLET.dropped += self._state == _ENDED and not OUTLET.off
            return
        held = self._held
        try:
            now_ns = monotonic_ns()
            if not held:
                self._due_ns = now_ns + _HOLD_NS
            if self._state > 0:
                _holders[id(self)] = self
            for given in (units, more) if units else (more,):
                for name, amount in given.items():
                    exact = quantity(amount)
                    if exact is not None and type(name) is str and is_name(name):
                        held.append((name, exact))
                    else:
                        OUTLET.dropped += 1
            if self._state > 0 and (now_ns >= self._due_ns or len(held) >= _MOST_HELD):
                self._tell_units(now_ns)
        except Exception:  # whatever was given here, the model goes on
            OUTLET.dropped += 1

    def finish(self, status: str = "succeeded") -> None:
        """End it, once: `succeeded`, `failed` or `canceled`. Another word is taken for failed, and counted."""
        at_ns = monotonic_ns()
        how = marks.STATUSES.get(word(status))
        if self._state > 0:
            self._end(how or b"failed", at_ns)
            OUTLET.dropped += how is None
        else:
            OUTLET.dropped += self._state == _NEW and not OUTLET.off
            self._state = _ENDED

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
        said = {
            wire.ENV_PARENT: self.id,
            wire.ENV_ROOT: self.root,
            wire.ENV_ACCOUNT: self.account,
            wire.ENV_TRACEPARENT: self.traceparent,
        }
        return {name: value for name, value in said.items() if value is not None and is_name(value)}

    def headers(self) -> dict[str, str]:
        """Headers for a call to another model: the prediction there has this one as its parent.

        What is not printable ASCII is left out, for HTTP has no room for it.
        """
        said = {
            HEADER_PARENT: self.id,
            HEADER_ROOT: self.root,
            HEADER_ACCOUNT: self.account,
            HEADER_TRACEPARENT: self.traceparent,
        }
        return {name: value for name, value in said.items() if value and value.isascii() and value.isprintable()}

    def __enter__(self) -> "Self":
        outlet = OUTLET
        if self._state == _NEW and self._more is None and not outlet.waiting and not outlet.off:  # start, in place
            try:
                write(outlet.fd, _heads[self._kind] % (self._name, monotonic_ns()))
            except Exception:
                self._begin()
            else:
                self._state = outlet.pid
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
            if self._state == _UNTOLD:
                self._state = _ENDED
        elif kind is None and not self._held and not outlet.waiting:
            self._state = _ENDED
            line = _SUCCEEDED % (self._name, at_ns)
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
        return self.account, self._id, self._name, self._kind, self._more, self._state

    def __setstate__(self, state: "tuple[Any, ...]") -> None:
        self.account, self._id, self._name, self._kind, self._more, self._state = state
        self._token, self._active, self._held = None, False, []

    def _begin(self) -> None:
        """Start what is not like the others, or finds no room."""
        outlet, more = OUTLET, self._more
        self._state = _UNTOLD
        if outlet.off:
            return
        if more is not None and more.admit:
            from taximeter.client import admission

            model = self._kind[0]
            refused = admission.refusal(outlet.path, self.account, None if model is None else word(model))
            if refused is not None:
                self._state = _NEW
                raise refused
        try:
            head, left_out = marks.head(self._kind, outlet.pid, self._name, more)
            outlet.dropped += left_out
            if outlet.tell(head % (self._name, monotonic_ns())):
                self._state = outlet.pid
        except Exception:  # whatever was given here, the model goes on
            outlet.dropped += 1

    def _end(self, how: bytes, at_ns: int) -> None:
        self._state = _ENDED
        if self._held:
            self._tell_units(at_ns, how)
        else:
            OUTLET.tell(marks.FINISH % (self._name, how, at_ns), needed=True)

    def _tell_units(self, at_ns: int, how: "bytes | None" = None) -> None:
        """Tell the units that are held, and the end with the last of them. What finds no room is held on."""
        _holders.pop(id(self), None)
        units, left_out = marks.sums(self._held)
        OUTLET.dropped += left_out
        parts = list(marks.cut(units))
        last = parts.pop()[1] if how and parts else b""
        for part, said in parts:
            if not OUTLET.tell(marks.UNITS % (self._name, at_ns, said), needed=how is not None):
                OUTLET.dropped -= 1  # not yet
                self._held += part
                self._due_ns = at_ns + _HOLD_NS
                _holders[id(self)] = self
        if how:
            OUTLET.tell(marks.FINISH_UNITS % (self._name, how, at_ns, last), needed=True)


_new = Prediction.__new__
_quoted_id, _count = begin_ids()


def prediction(  # noqa: PLR0913 -- all but the first by name, and all may be left out
    id: "str | None" = None,  # noqa: A002 -- what everybody calls it
    *,
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

    `id` is unique in your fleet (None: a UUIDv7 is made). `service_class` is public, fast_boot or training. What
    `taximeter run` was told of model, version, account, class and pool cannot be changed here. `parent` and `root` are
    ids, by default those of the prediction around this one, else of the environment (together: one that is of another
    tree comes without the other); `account` is of the same, if it is not said. `attributes` are
    flat, and kept with the record; what is not, or does not fit into one mark, is left out and counted (`dropped`).
    `traceparent` is W3C's. A `detached` one does not end with this process. With `admit`, a start raises Refused where
    this node refuses the account, or the model to it.

    A name that the agent does not take (empty, more than 256 characters, control characters, no such class) is sent as
    it is: the agent counts it, and bills no such prediction.
    """
    outer = _around()
    self = _new(Prediction)
    if id is None:
        self._id = None
        ms = time_ns() // 1_000_000
        self._name = _quoted_id % (ms >> 16, ms & 0xFFFF, _count())
    else:
        self._id = id = id if type(id) is str else word(id)  # noqa: A001
        if id.isascii() and id.isprintable() and '"' not in id and "\\" not in id:
            self._name = b'"%b"' % id.encode()
        else:
            self._name = quote(id)
    if account is None:
        account = outer.account
    elif type(account) is not str:
        account = word(account)
    self.account = account
    self._kind = (model, version, service_class, pool, account)
    if (
        outer.id is not None
        or parent is not None
        or root is not None
        or traceparent is not None
        or attributes is not None
        or detached
        or admit
    ):
        self._more = marks.More(outer, parent, root, traceparent)
        self._more.attributes, self._more.detached, self._more.admit = attributes, detached, admit
    else:
        self._more = None
    self._state = _NEW
    self._token = None
    self._active = False
    self._held = []
    return self


def current() -> "Prediction | None":
    """The prediction whose `with` block or decorated function this is, of this thread or task; None outside of any."""
    around = _around()
    return around if isinstance(around, Prediction) else None


def _before_fork() -> None:
    """What is held is told before there are two who hold it."""
    for holder in list(_holders.values()):
        if holder._state > 0:
            holder._tell_units(monotonic_ns())


def _after_fork() -> None:
    """In the child: what was not told is the parent's to tell; and marks have another pid, ids another beginning."""
    global _quoted_id, _count
    for holder in _holders.values():
        holder._held.clear()
    _holders.clear()
    _heads.clear()
    _quoted_id, _count = begin_ids()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
