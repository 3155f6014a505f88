"""Reads a request to grant credit, and says what became of it. Pure; refuses to grant.

Owns what such a request may say. Amounts are texts: a JSON number would have been a float somewhere.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from taximeter.billing.credit import Grant
from taximeter.billing.money import decimal_of, plain
from taximeter.errors import TaximeterError
from taximeter.observe.since import instant_ns
from taximeter.records import PLATFORM, UNATTRIBUTED, utc_text

#: A request is at most this long.
REQUEST_MAX_BYTES = 8_192

_KEYS = ("id", "amount", "currency", "expires_utc")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,256}")
_AMOUNT = re.compile(r"(?=.*[1-9])[0-9]{1,18}(\.[0-9]{1,18})?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class GrantError(TaximeterError):
    """A request that grants nothing."""


class ConflictError(TaximeterError):
    """Another grant has that id."""


def read_grant(account: str, body: bytes, now_utc_ns: int) -> Grant:
    """The grant that a request's body asks for. Raises GrantError."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise GrantError(f"cannot grant by this body: expected JSON ({error})") from error
    if not isinstance(said, Mapping):
        raise GrantError(f"cannot grant by this body: expected an object with {', '.join(_KEYS)}")
    for key in said:
        if key not in _KEYS:
            raise GrantError(f"cannot grant with {str(key)[:40]!r}: expected some of {', '.join(_KEYS)}")
    if account in (PLATFORM, UNATTRIBUTED) or not _NAME.fullmatch(account):
        raise GrantError(f"cannot grant to {account[:256]!r}: expected an account, of 1 to 256 characters")
    return Grant(
        _matching("id", said, _NAME, "an id of 1 to 256 characters, which names this grant for ever"),
        account,
        _matching("currency", said, _CURRENCY, "a currency such as 'USD'"),
        decimal_of(_matching("amount", said, _AMOUNT, "an amount above 0 as a text, such as '25.00'")),
        now_utc_ns,
        _expiry(said.get("expires_utc")),
    )


def agree(asked: Grant, kept: Grant) -> None:
    """Raise ConflictError where the grant of that id is another one."""
    if kept._replace(granted_utc_ns=0) != asked._replace(granted_utc_ns=0):
        said = f"{plain(kept.amount)} {kept.currency} to {kept.account[:256]!r}"
        expiry = "" if kept.expires_utc_ns is None else f" until {utc_text(kept.expires_utc_ns)}"
        raise ConflictError(
            f"cannot grant {asked.id[:256]!r}: that id granted {said}{expiry}; expected the same, or another id"
        )


def granted_view(kept: Grant, *, is_new: bool) -> dict[str, Any]:
    """What is answered."""
    return {
        "grant": kept.id,
        "account": kept.account,
        "amount": plain(kept.amount),
        "currency": kept.currency,
        "granted_utc": utc_text(kept.granted_utc_ns),
        "expires_utc": None if kept.expires_utc_ns is None else utc_text(kept.expires_utc_ns),
        "new": is_new,
    }


def _matching(key: str, said: Mapping[str, Any], pattern: re.Pattern[str], expected: str) -> str:
    value = said.get(key)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise GrantError(f"cannot grant with {key} = {str(value)[:40]!r}: expected {expected}")
    return value


def _expiry(value: object) -> int | None:
    if value is None:
        return None
    try:
        return instant_ns(value if isinstance(value, str) else "")
    except (ValueError, OverflowError) as error:
        expected = "expected an instant such as '2027-01-01T00:00:00Z', or null"
        raise GrantError(f"cannot grant with expires_utc = {str(value)[:40]!r}: {expected}") from error
