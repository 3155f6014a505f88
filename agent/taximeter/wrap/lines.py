"""Journal lines: facts formatted by hand, because importing json would cost more than the rest of the wrapper.

Owns the shape of what is written, version 1. Refuses to know files. Every function returns one line, as bytes, that
ends in a newline and is shorter than wire.LINE_MAX_BYTES.
"""

import time

from taximeter import wire

#: Left to argv in the open line; the other fields have bounds of their own.
_ARGV_MAX_BYTES = 16_384
_ESCAPES = {34: '\\"', 92: "\\\\", **{code: f"\\u{code:04x}" for code in range(32)}}
_HEAD = f'{{"v":{wire.JOURNAL_VERSION},"f":"%s","t":%d'


def text(value: str | None) -> str:
    """A JSON string, or null; what is no Unicode becomes a question mark once it is encoded."""
    return "null" if value is None else f'"{value.translate(_ESCAPES)}"'


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


def clock(boot_id: str, at_ns: int | None = None) -> str:
    """The clocks and the calendar, read together; `at_ns` is CLOCK_MONOTONIC if it was read already."""
    monotonic = time.monotonic_ns() if at_ns is None else at_ns
    boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    raw = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    return (
        f'{{"monotonic":{monotonic},"boottime":{boottime},"raw":{raw},'
        f'"realtime":{time.time_ns()},"boot_id":{text(boot_id)}}}'
    )


def fact(name: str, at_ns: int, rest: str = "") -> bytes:
    """One fact; `rest` is its other keys, each with a comma before it."""
    return line_bytes(_HEAD % (name, at_ns) + rest + "}\n")


def spawn(at_ns: int, before_ns: int, pid: int, start_ticks: int | None) -> bytes:
    """posix_spawn was called at `before_ns` and had returned at `at_ns`."""
    start = "null" if start_ticks is None else start_ticks
    return fact(wire.FACT_SPAWN, at_ns, f',"before":{before_ns},"pid":{pid},"start":{start}')


def ready(at_ns: int, by: str) -> bytes:
    """The instance can take work."""
    return fact(wire.FACT_READY, at_ns, f',"by":"{by}"')


def signal(at_ns: int, number: int, kernel: bool, sender: int, outside: bool) -> bytes:
    """A signal reached the wrapper; `sender` is a pid, 0 where the kernel sent it or the sender is out of sight."""
    return fact(
        wire.FACT_SIGNAL,
        at_ns,
        f',"signal":{number},"kernel":{_bool(kernel)},"outside":{_bool(outside)},"sender":{sender}',
    )


def usage(cpu_ns: int | None, rss_peak_bytes: int | None) -> str:
    """What was used so far; None is unknown, which is never zero."""
    cpu = "null" if cpu_ns is None else cpu_ns
    rss = "null" if rss_peak_bytes is None else rss_peak_bytes
    return f'{{"cpu_ns":{cpu},"rss_peak_bytes":{rss}}}'


def heartbeat(at_ns: int, now: str, used: str) -> bytes:
    """The wrapper lives, and so does its command; `now` and `used` are what clock() and usage() returned."""
    return fact(wire.FACT_HEARTBEAT, at_ns, f',"clock":{now},"usage":{used}')


def failure(at_ns: int, now: str, code: int, error: str) -> bytes:
    """The command never started."""
    return fact(
        wire.FACT_EXIT,
        at_ns,
        f',"code":{code},"signal":null,"core":false,"clock":{now},"usage":null,"error":{text(error)}',
    )


def ended(at_ns: int, now: str, status: int, used: str, dropped: int) -> bytes:
    """The command ended with this wait status; `dropped` lines before this one found no room on the disk."""
    number = status & 0x7F
    code = "null" if number else status >> 8 & 0xFF
    gaps = f',"dropped":{dropped}' if dropped else ""
    return fact(
        wire.FACT_EXIT,
        at_ns,
        f',"code":{code},"signal":{number or "null"},"core":{_bool(bool(status & 0x80))},"clock":{now},'
        f'"usage":{used},"error":null{gaps}',
    )


def _bool(value: bool) -> str:
    return "true" if value else "false"
