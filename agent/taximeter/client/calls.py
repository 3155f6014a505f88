"""Functions whose calls are predictions: plain ones, coroutines, generators of both kinds.

Owns how long a prediction of each kind lasts: a generator's as long as it is read, and it is the current one only while
the generator runs, not between its values. Loaded by the first decorator: inspect and functools take a while.
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any

from taximeter.client import marks
from taximeter.client.around import AROUND, leave
from taximeter.client.predictions import Prediction, prediction

if TYPE_CHECKING:
    from taximeter.client.around import Outside

_Make = Callable[[], Prediction]


def metered(like: Prediction, function: Any) -> Any:
    """The function, each call of which is a prediction of its own, like that one."""
    make = functools.partial(_again, like, AROUND.get())
    if inspect.isasyncgenfunction(function):
        kind = _async_generator
    elif inspect.isgeneratorfunction(function):
        kind = _generator
    elif inspect.iscoroutinefunction(function):
        kind = _coroutine
    else:
        kind = _plain
    return functools.update_wrapper(kind(make, function), function)


def _again(like: Prediction, outer: "Prediction | Outside") -> Prediction:
    """A new one of the same words; what came from around that one (`outer`) now comes from what is around the call."""
    _, model, version, service_class, pool, _, more = like._kind
    account = like.account
    return prediction(
        None if like._kind[0] is marks.MADE else like.id,
        model=model,
        version=version,
        account=None if account == outer.account else account,
        service_class=service_class,
        pool=pool,
        parent=None if like.parent == outer.id else like.parent,
        root=None if more is None or more.root == outer.root else more.root,
        traceparent=None if like.traceparent == outer.traceparent else like.traceparent,
        attributes=more.attributes if more else None,
        detached=more.detached if more else False,
        admit=more.admit if more else False,
    )


def _plain(make: _Make, function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        made = make()
        try:
            with made:
                return function(*args, **kwargs)
        except BaseException as error:
            made._leave_by(error)  # nothing, unless it came between the two
            raise

    return call


def _coroutine(make: _Make, function: Any) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        made = make()
        try:
            with made:
                return await function(*args, **kwargs)
        except BaseException as error:
            made._leave_by(error)
            raise

    return call


def _generator(make: _Make, function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        made, inner = make(), function(*args, **kwargs)
        step, said = inner.send, None
        made.start()
        try:
            while True:
                (made._token,) = map(AROUND.set, (made,))  # by no call, behind which it would not be known
                try:
                    value = step(said)
                except StopIteration as end:
                    made.finish()
                    return end.value
                finally:
                    leave(made._token)
                step, said = inner.send, None
                try:
                    said = yield value
                except GeneratorExit:
                    _within(made, inner.close)
                    raise
                except BaseException as error:  # thrown in by whoever reads it
                    step, said = inner.throw, error
        except BaseException as error:
            made._leave_by(error)
            raise

    return call


def _async_generator(make: _Make, function: Any) -> Any:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        made, inner = make(), function(*args, **kwargs)
        step, said = inner.asend, None
        made.start()
        try:
            while True:
                (made._token,) = map(AROUND.set, (made,))  # by no call, behind which it would not be known
                try:
                    value = await step(said)
                except StopAsyncIteration:
                    made.finish()
                    return
                finally:
                    leave(made._token)
                step, said = inner.asend, None
                try:
                    said = yield value
                except GeneratorExit:
                    token = AROUND.set(made)
                    try:
                        await inner.aclose()
                    finally:
                        leave(token)
                    raise
                except BaseException as error:  # thrown in by whoever reads it
                    step, said = inner.athrow, error
        except BaseException as error:
            made._leave_by(error)
            raise

    return call


def _within(made: Prediction, call: Callable[[], object]) -> None:
    token = AROUND.set(made)
    try:
        call()
    finally:
        leave(token)
