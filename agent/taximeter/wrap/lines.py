"""JSON by hand: texts, the clocks and the frame of a fact; importing json would cost more than the wrapper does.

Owns the escaping and the frame of a journal line, version 1, which ends with a CRC-32 of what is before that: a bit
that turns on the disk is no other fact. Refuses to know files and what a fact says (see opening for the first of a
journal, facts for the others).
"""

import binascii
import time

from taximeter import wire

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable

#: Left to argv in the open line; the other fields have bounds of their own.
_ARGV_MAX_BYTES = 16_384
#: The clocks are read again, but not for ever, if that took longer than this: something came in between.
_QUICK_NS = 20_000
_TRIES = 4
_HEAD = f'{{"v":{wire.JOURNAL_VERSION},"f":"%s","t":%d'
_TAIL = b',"c":"%08x"}\n'


def text(value: str | None) -> str:
    """A JSON string, or null; what is no Unicode becomes a question mark once it is encoded."""
    if value is None:
        return "null"
    if not value.isprintable() or '"' in value or "\\" in value:
        value = value.translate({34: '\\"', 92: "\\\\", **{code: f"\\u{code:04x}" for code in range(32)}})
    return f'"{value}"'


def strings(values: dict[str, str]) -> str:
    """A JSON object of strings."""
    return "{" + ",".join([f"{text(key)}:{text(value)}" for key, value in values.items()]) + "}"


def argv(command: list[str]) -> str:
    """A JSON array of the command's words, cut with an ellipsis where it would make the line too long."""
    words, left = [], _ARGV_MAX_BYTES
    for word in command:
        kept = cut(word, left)
        words.append(text(kept if kept == word else kept + "…"))
        left -= len(line_bytes(words[-1])) + 1
        if kept != word or left <= 0:
            break
    return "[" + ",".join(words) + "]"


def cut(value: str, limit_bytes: int) -> str:
    """As much of the beginning as fits the limit once it is a JSON string, or less."""
    kept = value[:limit_bytes]
    while kept and len(line_bytes(text(kept))) > limit_bytes:
        kept = kept[: len(kept) // 2]
    return kept


def line_bytes(line: str) -> bytes:
    """The bytes of a formatted text."""
    return line.encode("utf-8", "replace")


def clock(boot_id: str, utc_error: "Callable[[], int | None] | None" = None) -> str:
    """The clocks and the calendar, read one after the other, and how long that took.

    `utc_error` asks how far off the calendar may be; that nobody knows is said, that nobody was asked is not.
    """
    monotonic, tries = time.monotonic_ns(), 1
    while True:
        boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        raw = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        realtime = time.time_ns()
        after = time.monotonic_ns()
        if after - monotonic <= _QUICK_NS or tries == _TRIES:
            break
        monotonic, tries = after, tries + 1
    known = "" if utc_error is None else f',"utc_error":{_number(utc_error())}'
    return (
        f'{{"monotonic":{monotonic},"boottime":{boottime},"raw":{raw},"realtime":{realtime},'
        f'"took":{after - monotonic}{known},"boot_id":{text(boot_id)}}}'
    )


def _number(value: int | None) -> str:
    return "null" if value is None else str(value)


def fact(name: str, at_ns: int, rest: str = "") -> bytes:
    """One fact; `rest` is its other keys, each with a comma before it."""
    return sealed(line_bytes(_HEAD % (name, at_ns) + rest))


def sealed(line: bytes) -> bytes:
    """A line whose object is not closed yet, with its checksum."""
    return line + _TAIL % binascii.crc32(line)
