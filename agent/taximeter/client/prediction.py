"""One prediction of a worker, from its start to its end, told in marks.

Owns what a prediction is called, whose it is and how it ended, and when what is told of it. Refuses to raise into the
code that it measures, and to know how marks leave the process (outlet).
"""

import os
from time import monotonic_ns

from taximeter import wire
from taximeter.client import marks
from taximeter.client.around import AROUND, Refused, ending, leave, make_id
from taximeter.client.outlet import OUTLET
from taximeter.client.text import is_name, quantity, quote, word

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token
    from typing import Any, Self, TypeVar

    from taximeter.client.around import Outside

    _Function = TypeVar("_Function", bound=Callable[..., Any])

#: Units wait so long for a mark that they can go with: the end, or later units.
_HOLD_NS = 1_000_000_000
_MOST_HELD = 256
_NEW, _TOLD, _UNTOLD, _ENDED = range(4)
_START, _FINISH = marks.START, marks.FINISH

#: Names of the headers by which a call says for which prediction it is made.
HEADER_PARENT = "taximeter-parent"
HEADER_ROOT = "taximeter-root"
HEADER_ACCOUNT = "taximeter-account"
HEADER_TRACEPARENT = "traceparent"

#: Predictions that hold units which were not told, by identity.
_holders: "dict[int, Prediction]" = {}


class Prediction:
    """A prediction on this worker: `with`, `async with`, a decorator of functions, or `start` and `finish`.

    Nothing here waits or raises, but for `Refused` where that is asked for (`admit`). An exception in a `with` block or
    a decorated function passes through and ends the prediction: an `Exception` as failed; what is none (cancellation,
    Ctrl-C, a generator that nobody reads on) as canceled; SystemExit by its status.
    """

    __slots__ = (
        *("id", "parent", "root", "account", "traceparent"),
        *("_name", "_said", "_kind", "_attributes", "_detached", "_admit"),
        *("_state", "_pid", "_token", "_active", "_held", "_due_ns"),
        "__weakref__",
    )

    def __init__(  # noqa: PLR0913 -- all but the first by name, and all may be left out
        self,
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
    ) -> None:
        """Name a prediction; it begins with `start`, `with`, or a call of the decorated function.

        `id` is unique in your fleet (None: a UUIDv7 is made). `service_class` is public, fast_boot or training. What
        `taximeter run` was told of model, version, account, class and pool cannot be changed here. `parent` and `root`
        are ids, by default those of the prediction around this one, else of the environment; so is `account`.
        `attributes` are flat, and kept with the record; what is not, or does not fit into one mark, is left out and
        counted (`dropped`). `traceparent` is W3C's. A `detached` one does not end with this process. With `admit`, a
        start raises Refused where this node refuses the account.

        A name that the agent does not take (empty, more than 256 characters, control characters, no such class) is sent
        as it is: the agent counts it, and bills no such prediction.
        """
        outer = AROUND.get()
        self._said = (id, account, parent, root, traceparent)
        if id is None:
            self.id: str = make_id()
            self._name = b'"%b"' % self.id.encode()
        else:
            self.id = word(id)
            self._name = quote(self.id)
        self.account: str | None = outer.account if account is None else word(account)
        if parent is None:
            self.parent: str | None = outer.id
            self.root: str = (outer.root or self.id) if root is None else word(root)
        else:
            self.parent = word(parent)
            self.root = ((self.parent == outer.id and outer.root) or self.parent) if root is None else word(root)
        self.traceparent: str | None = outer.traceparent if traceparent is None else word(traceparent)
        self._kind: marks.Kind = (model, version, service_class, pool, self.account)
        self._attributes = attributes
        self._detached = detached
        self._admit = admit
        self._state = _NEW
        self._pid = OUTLET.pid
        self._token: Token[Prediction | Outside] | None = None
        self._held: list[tuple[str, int | str]] = []

    def start(self) -> "Self":
        """Begin, once; what follows is active, but for class fast_boot, which is in load until `active`.

        Raises Refused, with `admit`, and nothing else.
        """
        if self._state != _NEW:
            return self
        outlet = OUTLET
        self._pid = pid = outlet.pid
        if outlet.off:
            self._state = _UNTOLD
            return self
        if self._admit:
            self._ask()
        self._active = False
        try:
            tail = marks.kind_tail(self._kind)
            if self._attributes or self._detached or self.traceparent or self.parent or self.root != self.id:
                tail = self._longer(tail)
            at_ns = monotonic_ns()
            self._due_ns = at_ns + _HOLD_NS
            told = outlet.tell(_START % (self._name, pid, at_ns, tail))
            self._state = _TOLD if told else _UNTOLD
        except Exception:  # whatever was given here, the model goes on
            self._state = _UNTOLD
            outlet.dropped += 1
        return self

    def active(self) -> None:
        """Of class fast_boot: the fine-tune is loaded, processing begins. Of others, which load nothing: nothing."""
        if self._state == _TOLD and not self._active:
            self._active = True
            if self._kind[2] in (None, "fast_boot"):
                OUTLET.tell(marks.ACTIVE % (self._name, monotonic_ns()), needed=True)

    def add(self, units: "Mapping[str, object] | None" = None, /, **more: object) -> None:
        """Count units: `add(token_output=128)`, or a mapping where a name is no Python name. Increments, not totals.

        An amount is an int, a float, a Decimal or a decimal text, and not negative; what is none is left out and
        counted (`dropped`). Units go with the end, and before it with each `add` that comes a second after the last
        ones were told, so that thousands of `add` cost little: a process that is killed loses what it added since.
        """
        state = self._state
        if state >= _UNTOLD:
            OUTLET.dropped += state == _ENDED and not OUTLET.off
            return
        held = self._held
        try:
            if not held:
                _holders[id(self)] = self
            for given in (units, more) if units else (more,):
                for name, amount in given.items():
                    exact = quantity(amount)
                    if exact is not None and type(name) is str and is_name(name):
                        held.append((name, exact))
                    else:
                        OUTLET.dropped += 1
            if state == _TOLD and ((now_ns := monotonic_ns()) >= self._due_ns or len(held) >= _MOST_HELD):
                self._tell_units(now_ns)
        except Exception:  # as in start
            OUTLET.dropped += 1

    def finish(self, status: str = "succeeded") -> None:
        """End it, once: `succeeded`, `failed` or `canceled`. Another word is taken for failed, and counted."""
        at_ns = monotonic_ns()
        state, self._state = self._state, _ENDED
        if state != _TOLD:
            OUTLET.dropped += state == _NEW and not OUTLET.off
            return
        how = marks.STATUSES.get(word(status))
        if how is None:
            how = b"failed"
            OUTLET.dropped += 1
        if self._held:
            self._tell_units(at_ns, how)
        else:
            OUTLET.tell(_FINISH % (self._name, how, at_ns), True)

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
        if self._state == _NEW:
            self.start()
        else:
            self._pid = OUTLET.pid
        if self._token is None:
            self._token = AROUND.set(self)
        return self

    def __exit__(self, kind: "type[BaseException] | None", error: "BaseException | None", trace: object) -> None:
        token, self._token = self._token, None
        if token is not None:
            leave(token)
        # A child that was forked in this block leaves it, too: the block is that of the process that entered it.
        if self._state != _ENDED and self._pid == OUTLET.pid:
            self.finish("succeeded" if kind is None else ending(kind, error))

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

        decorated: _Function = metered(self.again, function)
        return decorated

    def again(self) -> "Prediction":
        """A new prediction, of the same words, in the context of this moment."""
        id_, account, parent, root, traceparent = self._said
        model, version, service_class, pool, _ = self._kind
        return Prediction(
            id_,
            model=model,
            version=version,
            account=account,
            service_class=service_class,
            pool=pool,
            parent=parent,
            root=root,
            attributes=self._attributes,
            traceparent=traceparent,
            detached=self._detached,
            admit=self._admit,
        )

    def __getstate__(self) -> "tuple[Any, ...]":  # type: ignore[explicit-override] # 3.12
        """For a process that ends it, or calls others for it: units and the `with` block stay here."""
        return self.id, self.parent, self.root, self.account, self.traceparent, self._name, self._kind, self._state

    def __setstate__(self, state: "tuple[Any, ...]") -> None:
        self.id, self.parent, self.root, self.account, self.traceparent, self._name, self._kind, self._state = state
        self._said = (self.id, self.account, self.parent, self.root, self.traceparent)
        self._attributes, self._token, self._held = None, None, []
        self._detached = self._admit = self._active = False
        self._pid, self._due_ns = OUTLET.pid, monotonic_ns() + _HOLD_NS

    def _ask(self) -> None:
        from taximeter.client import admission

        reason = admission.refusal(OUTLET.path, self.account)
        if reason is not None:
            raise Refused(reason)

    def _longer(self, tail: bytes) -> bytes:
        """The tail of a start that says more than most."""
        more: list[tuple[bytes, str | None]] = [(b"parent", self.parent), (b"traceparent", self.traceparent)]
        if self.root != self.id:
            more.append((b"root", self.root))
        tail, left_out = marks.whole_tail(self._name, tail, more, self._attributes or {}, bool(self._detached))
        OUTLET.dropped += left_out
        return tail

    def _tell_units(self, at_ns: int, how: "bytes | None" = None) -> None:
        """Tell the units that are held, and the end with the last of them. What finds no room is held on."""
        _holders.pop(id(self), None)
        self._due_ns = at_ns + _HOLD_NS
        units, left_out = marks.sums(self._held)
        OUTLET.dropped += left_out
        parts = list(marks.cut(units))
        last = parts.pop()[1] if how and parts else b""
        for part, said in parts:
            if not OUTLET.tell(marks.UNITS % (self._name, at_ns, said), how is not None):
                OUTLET.dropped -= 1  # not yet
                self._held += part
                _holders[id(self)] = self
        if how:
            OUTLET.tell(marks.FINISH_UNITS % (self._name, how, at_ns, last), True)


def current() -> "Prediction | None":
    """The prediction whose `with` block or decorated function this is, of this thread or task; None outside of any."""
    around = AROUND.get()
    return around if isinstance(around, Prediction) else None


def _before_fork() -> None:
    """What is held is told before there are two who hold it."""
    for holder in list(_holders.values()):
        holder._tell_units(monotonic_ns())


def _after_fork() -> None:
    """In the child: what found no room is the parent's to tell."""
    for holder in _holders.values():
        holder._held.clear()
    _holders.clear()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
