"""What an HTTP answer says, as far as it is believed: its status, its dates, a word of a stranger.

Pure. Refuses to know who was asked for what.
"""

from email.utils import parsedate_to_datetime

QUOTED_MAX_CHARS = 200


def reason_of(status: int) -> str:
    """Name an HTTP status that is not a yes by a bounded word."""
    if status == 408:
        return "timeout"
    if status == 413:
        return "too_large"
    if status == 429:
        return "throttled"
    if status >= 500:
        return "server_error"
    return "redirect" if 300 <= status < 400 else "refused"


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
