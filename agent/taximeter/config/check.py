"""A small validator that names every fault of a document at once, each with file, key, value and expectation.

Owns the wording of faults and the shapes a document is made of: leaves (a function that returns the value
or raises ValueError with what it expected), tables of named keys, and lists. Refuses to know any key.
"""

import math
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from difflib import get_close_matches
from urllib.parse import urlsplit

Leaf = Callable[[object], object]

_SECRET = re.compile(r"token|passw|secret|api_?key|credential|authorization|private_?key", re.IGNORECASE)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxstring, _SHOWN.maxother, _SHOWN.maxdict, _SHOWN.maxlong = 2, 60, 60, 3, 40


@dataclass(frozen=True)
class Table:
    """A table that has these keys and no others."""

    keys: "Mapping[str, Schema]"
    required: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Items:
    """A list whose items all have one shape."""

    schema: "Schema"
    at_least: int = 0


@dataclass(frozen=True)
class Named:
    """A table whose keys are names of somebody's choice, and whose values all have one shape."""

    name: Leaf
    schema: "Schema"


Schema = Leaf | Table | Items | Named


class Hidden(ValueError):
    """A value that is wrong because of the secret in it, so that it must not be shown."""


@dataclass
class Faults:
    """What is wrong with one file."""

    source: str
    found: list[str] = field(default_factory=list)

    def add(self, path: str, value: object, expected: str) -> None:
        """Note that `value` at `path` is not what was expected; a secret is never repeated."""
        self.found.append(f"{self.source}: {path} = {_shown(path, value)}: expected {expected}")

    def hide(self, path: str, expected: str) -> None:
        """Note a wrong value without repeating it."""
        self.found.append(f"{self.source}: {path} = (not shown): expected {expected}")


def check(value: object, schema: Schema, path: str, faults: Faults) -> object:
    """Return `value` as its schema reads it, adding what is wrong to `faults`; what is wrong comes out as None."""
    if isinstance(schema, Table):
        return _table(value, schema, path, faults)
    if isinstance(schema, Items):
        return _items(value, schema, path, faults)
    if isinstance(schema, Named):
        return _named(value, schema, path, faults)
    try:
        return schema(value)
    except Hidden as error:
        faults.hide(path, str(error))
    except ValueError as error:
        faults.add(path, value, str(error))
    return None


def is_secret(key: str) -> bool:
    """Say whether a key looks as if its value had better not be in a file that many read."""
    return bool(_SECRET.search(key)) and not key.endswith("_file")


def join(path: str, key: str) -> str:
    """Return `path.key`, quoting a key that TOML would want quoted."""
    shown = key if _BARE_KEY.fullmatch(key) else _SHOWN.repr(key)
    return f"{path}.{shown}" if path else shown


def _shown(path: str, value: object) -> str:
    if is_secret(path.rpartition(".")[2]):
        return "(not shown)"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, Decimal | datetime | date) else _SHOWN.repr(value)


def _table(value: object, schema: Table, path: str, faults: Faults) -> dict[str, object]:
    if not isinstance(value, Mapping):
        faults.add(path or "(document)", value, "a table")
        return {}
    for key in sorted(schema.required - value.keys()):
        faults.found.append(f"{faults.source}: {join(path, key)}: expected a value, there is none")
    checked: dict[str, object] = {}
    for key, item in value.items():
        at = join(path, key)
        if key in schema.keys:
            checked[key] = check(item, schema.keys[key], at, faults)
        elif is_secret(key):
            remedy = "no secret in this file: put it into a file of its own, mode 0600, and name that with `token_file`"
            faults.add(at, item, remedy)
        else:
            faults.add(at, item, _other_key(key, schema.keys))
    return checked


def _other_key(key: str, known: Mapping[str, object]) -> str:
    close = get_close_matches(key, known, n=1)
    if close:
        return f"a known key; did you mean `{close[0]}`?"
    return f"one of the keys {', '.join(known)}"


def _items(value: object, schema: Items, path: str, faults: Faults) -> tuple[object, ...]:
    if not isinstance(value, list):
        faults.add(path, value, "a list")
        return ()
    if len(value) < schema.at_least:
        faults.add(path, value, f"a list of at least {schema.at_least}")
    return tuple(check(item, schema.schema, f"{path}[{at}]", faults) for at, item in enumerate(value))


def _named(value: object, schema: Named, path: str, faults: Faults) -> dict[str, object]:
    if not isinstance(value, Mapping):
        faults.add(path, value, "a table")
        return {}
    checked: dict[str, object] = {}
    for key, item in value.items():
        at = join(path, key)
        try:
            schema.name(key)
        except ValueError as error:
            faults.add(at, key, str(error))
        checked[key] = check(item, schema.schema, at, faults)
    return checked


def integer(least: int, most: int, unit: str = "") -> Leaf:
    """Make a leaf for a whole number from `least` to `most`."""

    def read(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise ValueError(f"a whole number{unit and ' of ' + unit} from {least} to {most}")

    return read


def number(least: float, most: float, unit: str) -> Leaf:
    """Make a leaf for a finite number from `least` to `most`."""

    def read(value: object) -> float:
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool) and _between(value, least, most):
            return float(value)
        raise ValueError(f"a number of {unit} from {least:g} to {most:g}")

    return read


def _between(value: int | float | Decimal, least: float, most: float) -> bool:
    return not math.isnan(value) and least <= value <= most


def text(pattern: str, expected: str) -> Leaf:
    """Make a leaf for a string that matches all of `pattern`."""
    compiled = re.compile(pattern)

    def read(value: object) -> str:
        if isinstance(value, str) and compiled.fullmatch(value):
            return value
        raise ValueError(expected)

    return read


def one_of(words: Sequence[str]) -> Leaf:
    """Make a leaf for one of a few words."""

    def read(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        close = get_close_matches(value, words, n=1) if isinstance(value, str) else []
        raise ValueError(f"one of {', '.join(words)}" + (f"; did you mean `{close[0]}`?" if close else ""))

    return read


def boolean(value: object) -> bool:
    """Read true or false."""
    if isinstance(value, bool):
        return value
    raise ValueError("true or false")


#: A path or a pattern: anything that can be printed on one line.
line = text(r"[^\x00-\x1f\x7f]{1,4096}", "a text of one line")


def _address(example: str, schemes: tuple[str, ...], *, bare: bool) -> Leaf:
    expected = f"a URL such as {example!r}"

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"[!-~]{1,2048}", value):
            raise ValueError(expected)
        if "@" in value.partition("://")[2].partition("/")[0]:
            raise Hidden("a URL without user and password; a bearer token goes into a file, named with `token_file`")
        try:
            parts = urlsplit(value)
            good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and not parts.fragment
            good = good and not (bare and (parts.path or parts.query))
        except ValueError:  # a port that is no number, a bracket that is not closed
            good = False
        if not good:
            raise ValueError(expected)
        return value

    return read


#: An http or https URL that carries no credentials.
url = _address("https://billing.example/usage", ("http", "https"), bare=False)
#: A NATS server, which needs no path.
nats_url = _address("tls://nats.example:4222", ("nats", "tls"), bare=True)
