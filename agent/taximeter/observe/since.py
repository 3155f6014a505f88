"""A moment as people say it: 15m ago, a day, or an instant. For the command line and the HTTP API alike. Pure.

Owns the short forms. Refuses to look at a clock: whoever asks says when now is.
"""

import re
from datetime import datetime

from taximeter.errors import TaximeterError

EXPECTED = "90s, 15m, 2h, 7d, 2026-11-22 or 2026-11-22T10:00:00Z"
_SECOND = 1_000_000_000
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?)?", re.ASCII)


def since_ns(said: str, now_ns: int) -> int:
    """Return the UTC nanoseconds that are meant; a time without a zone is UTC. Raises ValueError."""
    ago = _AGO.fullmatch(said)
    moment_ns = now_ns - int(ago[1]) * _UNITS_S[ago[2]] * _SECOND if ago else instant_ns(said)
    if moment_ns < 0:
        raise ValueError(f"expected {EXPECTED}")
    return moment_ns


def instant_ns(said: str) -> int:
    """Return the UTC nanoseconds of a day or an instant; a time without a zone is UTC. Raises ValueError."""
    match = _INSTANT.fullmatch(said)
    day, time, fraction, zone = match.groups() if match else ("", None, None, None)
    try:
        moment = datetime.fromisoformat(f"{day}T{time or '00:00'}{zone or 'Z'}")
    except ValueError as error:
        raise ValueError(f"expected {EXPECTED}") from error
    return int(moment.timestamp()) * _SECOND + int((fraction or "0").ljust(9, "0"))


def requested_ns(value: object, doing: str, error: type[TaximeterError]) -> int | None:
    """What a request's `since_utc` means; None where it says none. Raises `error`, which names what is being done."""
    if value is None:
        return None
    try:
        return instant_ns(value if isinstance(value, str) else "")
    except (ValueError, OverflowError) as cause:
        expected = "expected an instant such as '2026-11-01T00:00:00Z'"
        raise error(f"cannot {doing} since {str(value)[:40]!r}: {expected}") from cause
