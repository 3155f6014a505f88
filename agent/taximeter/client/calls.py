"""Functions whose calls are predictions: plain ones, coroutines, generators of both kinds.

Owns how long a prediction of each kind lasts: a generator's as long as it is read, and it is the current one only while
the generator runs, not between its values. Loaded by the first decorator: inspect and functools take a while.
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from taximeter.client.around import AROUND, ending, leave
from taximeter.client.prediction import Prediction

_Make = Callable[[], Prediction]


def metered(make: _Make, function: Any) -> Any:
    """The function, each call of which is a prediction of its own."""
    if inspect.isasyncgenfunction(function):
        kind = _async_generator
    elif inspect.isgeneratorfunction(function):
        kind = _generator
    elif inspect.iscoroutinefunction(function):
        kind = _coroutine
    else:
        kind = _plain
    return functools.update_wrapper(kind(make, function), function)


def _plain(make: _Make, function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        with make():
            return function(*args, **kwargs)

    return call


def _coroutine(make: _Make, function: Any) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with make():
            return await function(*args, **kwargs)

    return call


def _generator(make: _Make, function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        prediction = make().start()
        inner = function(*args, **kwargs)
        step, said = inner.send, None
        try:
            while True:
                token = AROUND.set(prediction)
                try:
                    value = step(said)
                finally:
                    leave(token)
                step, said = inner.send, None
                try:
                    said = yield value
                except GeneratorExit:
                    _within(prediction, inner.close)
                    raise
                except BaseException as error:  # thrown in by whoever reads it
                    step, said = inner.throw, error
        except StopIteration as end:
            prediction.finish()
            return end.value
        except BaseException as error:
            prediction.finish(ending(type(error), error))
            raise

    return call


def _async_generator(make: _Make, function: Any) -> Any:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        prediction = make().start()
        inner = function(*args, **kwargs)
        step, said = inner.asend, None
        try:
            while True:
                token = AROUND.set(prediction)
                try:
                    value = await step(said)
                finally:
                    leave(token)
                step, said = inner.asend, None
                try:
                    said = yield value
                except GeneratorExit:
                    token = AROUND.set(prediction)
                    try:
                        await inner.aclose()
                    finally:
                        leave(token)
                    raise
                except BaseException as error:  # thrown in by whoever reads it
                    step, said = inner.athrow, error
        except StopAsyncIteration:
            prediction.finish()
        except BaseException as error:
            prediction.finish(ending(type(error), error))
            raise

    return call


def _within(prediction: Prediction, call: Callable[[], object]) -> None:
    token = AROUND.set(prediction)
    try:
        call()
    finally:
        leave(token)
