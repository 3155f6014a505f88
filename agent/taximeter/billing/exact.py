"""JSON that holds money: its numbers as they are written, never through a binary fraction.

Owns how such a text is read and written. A number is an int or a Decimal; what is none of JSON's (NaN), out of all
proportion (1E999999), or said twice in one object is a fault that names its key. Refuses to know what a key means.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation

from taximeter.billing.money import plain
from taximeter.errors import ConfigError

#: A number has at most so many digits, before and after its point together, written without exponent.
_MOST_DIGITS = 60
_DEEPEST = 32
_HALVES = re.compile("[\ud800-\udfff]")


class _Odd:
    """A number that is none, or none that anybody means; it stands where it was written until its key is known."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Twice(dict[str, object]):
    """An object that says a key more than once."""

    said_twice: tuple[str, ...] = ()


def loads(text: str, source: str) -> object:
    """The value that a JSON text says; ConfigError names every fault with `source` and key."""
    try:
        value: object = json.loads(
            text,
            parse_float=_number,
            parse_int=_number,
            parse_constant=_Odd,
            object_pairs_hook=_object,
        )
    except RecursionError as error:
        raise ConfigError((f"{source}: nested too deeply: expected JSON of few levels",)) from error
    except ValueError as error:
        raise ConfigError((f"{source}: {error}: expected JSON",)) from error
    faults = tuple(f"{source}: {fault}" for fault in _faults(value, "", 0))
    if faults:
        raise ConfigError(faults)
    return value


def dumps(value: object) -> str:
    """JSON of plain values and Decimals: the numbers as they were read."""
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(str(key))}:{dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(dumps(item) for item in value) + "]"
    return json.dumps(value)


def _number(text: str) -> object:
    if len(text) > _MOST_DIGITS:
        return _Odd(text[:_MOST_DIGITS] + "…")
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent of twenty digits
        return _Odd(text)
    if abs(number.adjusted()) > _MOST_DIGITS:
        return _Odd(text)
    return int(text) if text.lstrip("-").isdigit() else number


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    counts = Counter(key for key, _ in pairs)
    twice = _Twice(made)
    twice.said_twice = tuple(key for key, count in counts.items() if count > 1)
    return twice


def _faults(value: object, path: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        yield f"{path}: expected at most {_DEEPEST} levels"
        return
    if isinstance(value, _Odd):
        yield f"{path or '(document)'} = {value.text}: expected a plain number"
    elif isinstance(value, dict):
        if isinstance(value, _Twice):
            yield from (f"{join(path, _shown(key))}: said more than once: expected it once" for key in value.said_twice)
        for key, item in value.items():
            if not _is_whole(key):
                yield f"{join(path, ascii(key))}: expected whole characters"
            yield from _faults(item, join(path, _shown(key)), depth + 1)
    elif isinstance(value, str) and not _is_whole(value):
        yield f"{path or '(document)'} = {ascii(value)[:60]}: expected whole characters"
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _faults(item, f"{path}[{at}]", depth + 1)


def _is_whole(text: str) -> bool:
    """Whether it has no half of a character, which JSON can escape and nobody can write down."""
    return text.isascii() or not _HALVES.search(text)


def _shown(key: str) -> str:
    return key if _is_whole(key) else ascii(key)


def join(path: str, key: str) -> str:
    """`path.key`."""
    return f"{path}.{key}" if path else key
