"""Reads a request to rerate, and says what became of it. Pure; refuses to rerate.

Owns what such a request may say. Amounts of units are texts: a JSON number would have been a float somewhere.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from taximeter.errors import TaximeterError
from taximeter.observe.since import requested_ns

#: A request is at most this long.
REQUEST_MAX_BYTES = 8_192

_KEYS = ("since_utc", "model", "account", "prediction", "units", "late_cards", "dry_run")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,256}")
_AMOUNT = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?", re.ASCII)
_MOST_UNITS = 64


class RerateError(TaximeterError):
    """A request that nobody can follow."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which predictions without a price are to be rated; None does not ask."""

    since_utc_ns: int | None = None
    model: str | None = None
    account: str | None = None
    prediction: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)  #: more of what that prediction counted, as exact texts
    dry_run: bool = False  #: only say what would be done
    late_cards: bool = False  #: also what has a price, by a card that came late and was in force by then


@dataclass(frozen=True, slots=True)
class Rerated:
    """What became of it."""

    corrected: int  #: predictions
    left: Mapping[str, int]  #: why so many others have no price still; `open`: instances that are not over
    amounts: Mapping[str, str]  #: by currency, exact: what the corrections come to
    dry_run: bool


def read_asked(body: bytes) -> Asked:
    """What a request's body asks for. Raises RerateError."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RerateError(f"cannot rerate by this body: expected JSON ({error})") from error
    if not isinstance(said, Mapping):
        raise RerateError(f"cannot rerate by this body: expected an object with some of {', '.join(_KEYS)}")
    for key in said:
        if key not in _KEYS:
            raise RerateError(f"cannot rerate with {str(key)[:40]!r}: expected some of {', '.join(_KEYS)}")
    units = _units(said.get("units"))
    prediction = _name("prediction", said)
    if units and prediction is None:
        raise RerateError("cannot count units: expected the prediction that they are of")
    return Asked(
        requested_ns(said.get("since_utc"), "rerate", RerateError),
        _name("model", said),
        _name("account", said),
        prediction,
        units,
        _flag("dry_run", said),
        _flag("late_cards", said),
    )


def rerated_view(done: Rerated) -> dict[str, Any]:
    """What is answered."""
    return asdict(done)


def _name(key: str, said: Mapping[str, Any]) -> str | None:
    value = said.get(key)
    if value is None or (isinstance(value, str) and _NAME.fullmatch(value)):
        return value
    raise RerateError(f"cannot rerate with {key} = {str(value)[:40]!r}: expected a name of 1 to 256 characters")


def _flag(key: str, said: Mapping[str, Any]) -> bool:
    value = said.get(key, False)
    if not isinstance(value, bool):
        raise RerateError(f"cannot rerate with {key} = {str(value)[:40]!r}: expected true or false")
    return value


def _units(value: object) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or len(value) > _MOST_UNITS:
        raise RerateError(f"cannot count units by {str(value)[:40]!r}: expected an object of at most {_MOST_UNITS}")
    for name, amount in value.items():
        if not _NAME.fullmatch(name) or not isinstance(amount, str) or not _AMOUNT.fullmatch(amount):
            expected = "expected a name, and an amount as a text, such as '2' or '0.5'"
            raise RerateError(f"cannot count {str(name)[:40]!r} = {str(amount)[:40]!r}: {expected}")
    return value
