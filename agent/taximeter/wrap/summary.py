"""`--summary`: one line about a run that is over, in the agent's words where one lives and answers within a second.

Owns what is said without an agent. Refuses to compute: what it cost and who saw it is the agent's to say. Nothing here
may raise or last: the command has ended, and whoever waits for it waits for us.
"""

import _signal  # type: ignore[import-not-found]  # the module `signal` costs two milliseconds of enum
import posix
import time

from taximeter.wrap.run import Run

_NS_PER_S = 1_000_000_000
#: The agent has this long in all to book the run and to say so.
_PATIENCE_NS = 1_000_000_000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.1
#: Signals that want nobody to end.
_HARMLESS = (_signal.SIGCHLD, _signal.SIGCONT, _signal.SIGURG, _signal.SIGWINCH)
_OUT_OF_MEMORY = {"limit": ", out of memory: a limit of its own", "node": ", out of memory: the node had none left"}
#: Classes whose instance is billed: its receipt has the price.
_ONLINE = ("private", "deployment")
_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"


def summarise(run: Run) -> str:
    """One line for a person: how long it booted and ran, how it ended; and what it cost, once that is booked."""
    if run.end_ns is None or run.status is None:
        return "not measured to its end"
    if run.fifo_path is None:
        return f"{_measured(run)} · not measured: no record"
    booked = None
    try:
        booked = _ask(run)
    except (ImportError, OSError, ValueError, IndexError):
        pass
    by_instance = run.options.worker or run.options.service_class in _ONLINE
    asked = run.instance if by_instance else run.options.prediction or run.instance
    return f"{booked or _measured(run) + ' · record pending'} · receipt: taximeter receipt {_quoted(asked)}"


def _measured(run: Run) -> str:
    """What we know ourselves."""
    end_ns, status = run.end_ns or 0, run.status or 0
    if not run.pid:
        return f"did not run · exit {status >> 8}"
    whole = f"ran {_seconds(end_ns - run.spawn_ns)}"
    if run.ready_ns is None:
        whole += f" (boot {_seconds(end_ns - run.spawn_ns)})"
    elif run.ready_ns != run.spawn_ns:
        word = "up" if run.options.worker else "active"
        whole += f" (boot {_seconds(run.ready_ns - run.spawn_ns)}, {word} {_seconds(end_ns - run.ready_ns)})"
    number = status & 0x7F
    end = f"killed by signal {number}" if number else f"exit {status >> 8 & 0xFF}"
    end += ", with a core dump" if status & 0x80 else ""
    end += _OUT_OF_MEMORY.get(run.oom or "", "")
    if run.left:
        end += f"; left running: {run.left} process{'es' if run.left > 1 else ''}"
    return f"{whole} · {end}" if run.ready_ns is not None else f"{whole} · {end}, never ready"


def _ask(run: Run) -> str | None:
    """What the agent says, as soon as it has booked the run; None if it does not in time, or there is none."""
    from taximeter.wrap.inquiry import Agent

    deadline_ns = time.monotonic_ns() + _PATIENCE_NS
    journal = (run.fifo_path or "").rpartition("/")[0]
    agent = Agent.of(run.run_directory, {0, posix.getuid(), posix.stat(journal).st_uid})
    fatal = _signal.pthread_sigmask(_signal.SIG_BLOCK, ()).difference(_HARMLESS)
    pause_s = _FIRST_PAUSE_S
    while agent is not None:
        said = agent.line(f"/v1/receipts/{run.instance}", deadline_ns)
        left_s = (deadline_ns - time.monotonic_ns()) / _NS_PER_S
        if said is not None or left_s <= 0 or _signal.sigtimedwait(fatal, min(pause_s, left_s)) is not None:
            return said
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return None


def _quoted(word: str) -> str:
    """A word for a shell."""
    if word and not word.encode("utf-8", "surrogateescape").strip(_PLAIN):
        return word
    return "'" + word.replace("'", "'\"'\"'") + "'"


def _seconds(duration_ns: int) -> str:
    return f"{max(0, duration_ns) / _NS_PER_S:.3f} s"
