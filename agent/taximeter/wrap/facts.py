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


def ended(at_ns: int, now: str, status: int, used: str, known: str) -> bytes:
    """The command ended with this wait status; `now`, `used` and `known` are what those functions returned."""
    number = status & 0x7F
    code = "null" if number else status >> 8 & 0xFF
    return lines.fact(
        wire.FACT_EXIT,
        at_ns,
        f',"code":{code},"signal":{number or "null"},"core":{_bool(bool(status & 0x80))},"clock":{now},'
        f'"usage":{used},"error":null{known}',
    )


def known(dropped: int, oom: str | None, left: int | None) -> str:
    """Further keys of an end: facts that found no room, whose want of memory it was, processes left running."""
    said = f',"dropped":{dropped}' if dropped else ""
    if oom is not None:
        said += f',"oom":"{oom}"'
    return said if left is None else f'{said},"left":{left}'


def _bool(value: bool) -> str:
    return "true" if value else "false"
