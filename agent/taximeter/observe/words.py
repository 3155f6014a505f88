r"""Words that more than one face uses: escaped ids, counts, how a command ended, who saw it. Pure.

Owns that nothing which came from outside reaches a terminal as a command to it: ids, names and argv are data of
strangers. Refuses to print, and to know what is shown beside it.
"""

import signal
from collections.abc import Mapping
from typing import Any

#: What is shown for a value that is not there.
NOTHING = "–"
WITNESSES = {
    "kernel": "seen by the kernel",
    "wrapper": "seen by the wrapper",
    "agent": "seen by the agent",
    "mark": "told by the worker",
    "heartbeat": "the last sign of life",
}
#: What a reason adds to the code or signal that is told already.
_REASONS = {"exited": "", "signaled": "", "oom_limit": ": a limit of its own", "oom_node": ": the node had none left"}


def safe(value: object) -> str:
    r"""Return `value` as one printable line: control, format and lone surrogate characters as `\x1b`, `\u202e`."""
    if value is None or value == "":
        return NOTHING
    text = str(value)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def refused(marks: Mapping[str, int]) -> str:
    """Say how many marks had no effect, of so many by reason."""
    return f"{plural(sum(marks.values()), 'mark')} refused ({', '.join(sorted(marks))})"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """Return `1 record`, `2 records`; `many` where an s does not make the plural."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {many or noun + 's'}"


def exit_text(end: Mapping[str, Any]) -> str:
    """Say how a command ended."""
    if end.get("signal"):
        said = f"killed by {_signal(end['signal'])}"
    elif end.get("code") is not None:
        said = f"status {end['code']}"
    else:
        said = "not seen"
    if end.get("core"):
        said += ", with a core dump"
    if end.get("oom"):
        said += ", out of memory"
    reason = end.get("reason")
    if reason in _REASONS:
        said += _REASONS[reason]
    elif reason:
        said += f" ({safe(reason)})"
    left = end.get("left_running")
    return f"{said}; left running: {plural(left, 'process', 'processes')}" if left else said


def _signal(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({number})"
    except ValueError:
        return f"signal {number}"
