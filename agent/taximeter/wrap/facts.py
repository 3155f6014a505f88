"""Facts about a command that was started, or could not be: one line of a journal each.

Owns what each fact says, version 1. Refuses to know files. Every function returns one line, as bytes, that ends in a
newline and is far shorter than wire.LINE_MAX_BYTES; what is JSON already comes from lines.
"""

from taximeter import wire
from taximeter.wrap import lines


def spawn(at_ns: int, before_ns: int, pid: int, start_ticks: int | None) -> bytes:
    """posix_spawn was called at `before_ns` and had returned at `at_ns`."""
    start = "null" if start_ticks is None else start_ticks
    return lines.fact(wire.FACT_SPAWN, at_ns, f',"before":{before_ns},"pid":{pid},"start":{start}')


def ready(at_ns: int, by: str, within_ns: int | None = None) -> bytes:
    """The instance can take work, and may have been able to for `within_ns`, where it was looked at."""
    within = "" if within_ns is None else f',"within":{within_ns}'
    return lines.fact(wire.FACT_READY, at_ns, f',"by":"{by}"{within}')


def signal(at_ns: int, number: int, kernel: bool, sender: int, outside: bool) -> bytes:
    """A signal reached the wrapper; `sender` is a pid, 0 where the kernel sent it or the sender is out of sight."""
    return lines.fact(
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
    return lines.fact(wire.FACT_HEARTBEAT, at_ns, f',"clock":{now},"usage":{used}')


def failure(at_ns: int, now: str, code: int, error: str) -> bytes:
    """The command never started."""
    return lines.fact(
        wire.FACT_EXIT,
        at_ns,
        f',"code":{code},"signal":null,"core":false,"clock":{now},"usage":null,"error":{lines.text(error)}',
    )


def ended(at_ns: int, now: str, status: int, used: str, dropped: int) -> bytes:
    """The command ended with this wait status; `dropped` lines before this one found no room on the disk."""
    number = status & 0x7F
    code = "null" if number else status >> 8 & 0xFF
    gaps = f',"dropped":{dropped}' if dropped else ""
    return lines.fact(
        wire.FACT_EXIT,
        at_ns,
        f',"code":{code},"signal":{number or "null"},"core":{_bool(bool(status & 0x80))},"clock":{now},'
        f'"usage":{used},"error":null{gaps}',
    )


def _bool(value: bool) -> str:
    return "true" if value else "false"
