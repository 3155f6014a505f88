"""How values look to people: durations, sizes, instants, the bar of phases; escaped ids as in observe.words. Pure.

Owns display rounding. Refuses to print, and to know what it shows.
"""

from collections.abc import Mapping, Sequence

from taximeter.observe import words

NOTHING, safe, plural = words.NOTHING, words.safe, words.plural

STATUS_STYLES = {
    "succeeded": "green",
    "processing": "yellow",
    "failed": "red",
    "canceled": "yellow",
    "aborted": "magenta",
}

_S = 1_000_000_000
_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def duration(ns: int | None) -> str:
    """Return nanoseconds as people say them: `38 µs`, `412 ms`, `3.123 s`, `12 min 03.1 s`, `3 h 12 min 03 s`."""
    if ns is None:
        return NOTHING
    if ns < 0:
        return "−" + duration(-ns)
    if ns < _S - _S // 2000:
        return _below_a_second(ns)
    if ns < 60 * _S - _S // 2000:
        return f"{_rounded(ns, 1_000_000) / 1000:.3f} s"
    if ns < 3600 * _S - _S // 20:
        minutes, tenths = divmod(_rounded(ns, _S // 10), 600)
        return f"{minutes} min {tenths // 10:02d}.{tenths % 10} s"
    minutes, seconds = divmod(_rounded(ns, _S), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02d} h {minutes:02d} min" if days else f"{hours} h {minutes:02d} min {seconds:02d} s"


def _below_a_second(ns: int) -> str:
    for unit, size in (("ms", 1_000_000), ("µs", 1000)):
        if ns >= size - size // 2000:
            return f"{ns / size:.3g} {unit}"
    return f"{ns} ns"


def _rounded(ns: int, step_ns: int) -> int:
    return (ns + step_ns // 2) // step_ns


def size(count: int | None) -> str:
    """Return bytes as `1.2 GiB`."""
    if count is None:
        return NOTHING
    for unit, factor in _UNITS:
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def instant(utc: object) -> str:
    """Return an RFC 3339 instant as `2026-11-22 10:00:03.123`, to the millisecond, cut and not rounded."""
    text = safe(utc)
    day, t, clock = text.partition("T")
    whole, _, fraction = clock.removesuffix("Z").partition(".")
    return f"{day} {whole}.{fraction[:3].ljust(3, '0')}" if t and clock.endswith("Z") else text


def day_and_clock(utc: object) -> tuple[str, str]:
    """Return the two halves of `instant`."""
    day, _, clock = instant(utc).partition(" ")
    return day, clock


def short_hash(value: object) -> str:
    """Return the first 12 digits of a `sha256:…`, enough to compare by eye."""
    text = safe(value)
    kind, colon, digits = text.partition(":")
    return f"{kind}:{digits[:12]}…" if colon and len(digits) > 12 else text


def shorten(value: object, width: int) -> str:
    """Return `value` safely in at most `width` columns of text, an ellipsis for what is left out of its middle."""
    text = safe(value)
    if len(text) <= width:
        return text
    head = width // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}" if width > 1 else "…"


def portions(parts: Mapping[str, int], width: int) -> dict[str, int]:
    """Divide `width` cells among parts by their size; what is not zero gets at least one."""
    present = {name: value for name, value in parts.items() if value > 0}
    if not present or width < len(present):
        return {}
    total, free = sum(present.values()), width - len(present)
    cells = {name: 1 + value * free // total for name, value in present.items()}
    by_remainder = sorted(present, key=lambda name: present[name] * free % total, reverse=True)
    for name in by_remainder[: width - sum(cells.values())]:
        cells[name] += 1
    return cells


def percent(part: int, whole: int) -> str:
    """Return `93 %`; what is there and yet under one is `<1 %`."""
    if not whole or not part:
        return "0 %"
    share = (part * 100 + whole // 2) // whole
    return "<1 %" if share == 0 else f"{share} %"


def listed(words: Sequence[object]) -> str:
    """Return words with commas, safely; a dash for none."""
    return ", ".join(safe(word) for word in words) or NOTHING


def aligned(amounts: Sequence[str]) -> list[str]:
    """Set amounts so that their points stand below each other."""
    places = max((len(amount.partition(".")[2]) for amount in amounts), default=0)
    return [
        amount + " " * (places + 1 - len(amount.partition(".")[2]) - ("." in amount)) if places else amount
        for amount in amounts
    ]
