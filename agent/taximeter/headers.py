"""What an HTTP answer says, as far as it is believed: its status, its dates, a word of a stranger.

Pure. Refuses to know who was asked for what.
"""

from email.utils import parsedate_to_datetime

QUOTED_MAX_CHARS = 200

#: These are no record's fault: who asks, where, or how has to be mended.
_UNWELCOME = frozenset({401, 402, 403, 404, 405, 406, 407, 410, 415, 421, 426, 431, 451})
_KNOWN = {408: "timeout", 409: "duplicate", 413: "too_large", 425: "throttled", 429: "throttled"}


def reason_of(status: int) -> str:
    """Name an HTTP status that is not a yes by a bounded word.

    "rejected", "too_large" and "duplicate" may be said of a single record of a batch; nothing else is.
    """
    if status in _KNOWN:
        return _KNOWN[status]
    if status >= 500:
        return "server_error"
    if 300 <= status < 400:
        return "redirect"
    return "rejected" if status >= 400 and status not in _UNWELCOME else "refused"


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """Read a Retry-After header: seconds from `now_s` (UTC), or None if it asks for nothing readable."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) <= 15:
        return float(value)
    instant_s = instant_of(value)
    return None if instant_s is None else max(0.0, instant_s - now_s)


def instant_of(value: str | None) -> float | None:
    """Read a header that is a date, in seconds since 1970; None if it is none."""
    try:
        return None if value is None else parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


def printable(text: str) -> str:
    """Put what a stranger said into a short, one-line, harmless form."""
    return "".join(c if c.isprintable() else "?" for c in text[:QUOTED_MAX_CHARS])
