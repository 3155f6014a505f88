"""`taximeter run`: from the command line to the command, and from its end to ours.

Owns the order of things: nothing is imported before the command runs that it does not need to run, and whatever happens
to the meter once it runs, the command never notices. Refuses to be slow.
"""

import posix
import time

from taximeter import wire
from taximeter.wrap import argv, command, entry, lines, opening, places
from taximeter.wrap.run import Run
from taximeter.wrap.writer import Writer, make_fifo

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def main(words: list[str], witness: str = "-", load: "Callable[[str], object]" = __import__) -> "NoReturn":
    """Run a command under the meter and end as it does; never returns.

    `witness` is the launcher's copy of itself (see entry); `load` imports a module by name, faster than Python.
    """
    started = entry.read_entry(witness)
    try:
        run = _start(words, started)
    except Exception as error:
        from taximeter.wrap.trouble import give_up

        started.take_witness_away()
        posix._exit(give_up(error))
    _attend(run, started, load)


def _start(words: list[str], started: entry.Entry) -> Run:
    """Start the command; returns once it runs. Raises UsageError, Refused and whatever else goes wrong before."""
    entry.hold_standard_descriptors(started.descriptors)
    options, words = argv.parse(words)
    if options.help:
        raise command.Refused(0, "")  # nothing is wrong, and nothing is to be run
    values = started.values()
    argv.inherit(options, values.get(wire.ENV_PARENT), values.get(wire.ENV_ROOT), values.get(wire.ENV_ACCOUNT))
    state, run_directory = places.directories(values)
    refusal = places.refusal(run_directory, options.account, options.model) or places.no_room(run_directory, state)
    if refusal is not None:
        raise command.Refused(wire.EXIT_REFUSED, f"refused: {refusal}")
    if not options.worker and options.prediction is None:
        options.prediction = places.make_id()
    run = Run(options, words, places.make_id())
    run.ignored, run.run_directory = started.ignored, run_directory
    changes = _prepare(run, state, values)
    try:
        run.pid, run.before_ns, run.spawn_ns = command.spawn(started, words, changes, values.get("PATH"))
    except Exception as error:
        from taximeter.wrap.trouble import note_failure

        note_failure(run, error)
        raise
    return run


def _prepare(run: Run, state: str, values: dict[str, str]) -> dict[str, str | None]:
    """Open the journal and what belongs to it; returns what changes in the command's environment."""
    changes: dict[str, str | None] = {}
    try:
        if run.options.target is not None:
            from taximeter.wrap.readiness import prepare

            run.readiness = prepare(run, run.options.target)
        _open_journal(run, state, values)
        if run.options.ready == "notify":
            changes[wire.ENV_NOTIFY] = _open_notify(run, values)
    except OSError as error:
        from taximeter.wrap.trouble import do_without

        do_without(run, state, error)
    changes[wire.ENV_MARKS] = run.fifo_path  # None takes away that of a run around this one: its marks are not ours
    options = run.options
    if not options.worker:
        changes[wire.ENV_PARENT] = options.prediction
        changes[wire.ENV_ROOT] = options.root or options.parent or options.prediction
    elif options.parent or options.root:
        changes[wire.ENV_PARENT], changes[wire.ENV_ROOT] = options.parent, options.root
    if options.account is not None:
        changes[wire.ENV_ACCOUNT] = options.account
    return changes


def _open_journal(run: Run, state: str, values: dict[str, str]) -> None:
    directory = places.make_journal_directory(state)
    run.boot_id = entry.read_file("/proc/sys/kernel/random/boot_id").decode().strip()
    at_ns = time.monotonic_ns()
    description = opening.describe(run.options, run.command, values, lines.clock(run.boot_id))

    def head(segment: int) -> bytes:
        return opening.open_line(run.instance, segment, description, at_ns)

    path = f"{directory}/{run.instance}{wire.MARKS_SUFFIX}"
    run.fifo = make_fifo(path)
    run.fifo_path = path
    run.writer = Writer(directory, run.instance, head, places.journal_bytes(values))
    if not run.writer.has_begun():
        from taximeter.wrap.trouble import begin_without_room

        begin_without_room(run, state)


def _open_notify(run: Run, values: dict[str, str]) -> str:
    from taximeter.wrap.notify import Notify

    path = (run.fifo_path or "").removesuffix(wire.MARKS_SUFFIX) + wire.NOTIFY_SUFFIX
    run.notify = Notify(path, values.get(wire.ENV_NOTIFY))
    return run.notify.address


def _attend(run: Run, started: entry.Entry, load: "Callable[[str], object]") -> "NoReturn":
    """See the command to its end, whatever becomes of the meter; never returns."""
    try:
        if run.readiness is not None:
            run.readiness.release()
        entry.drop_descriptors(started.descriptors, (2,) if run.options.summary else ())
        for name in ("proc", "facts", "ending"):
            load("taximeter.wrap." + name)
        from taximeter.wrap import ending

        ending.attend(run, started.take_witness_away)
    except BaseException:
        _go_without(run)
    started.take_witness_away()
    _end(run)


def _go_without(run: Run) -> None:
    """The meter broke: what is left to do is to wait, and to end as the command does."""
    try:
        if run.status is None:
            from taximeter.wrap import ending

            ending.wait_plainly(run)
    except BaseException:
        if run.status is None:
            run.status = posix.waitpid(run.pid, 0)[1]


def _end(run: Run) -> "NoReturn":
    status = run.status or 0
    try:
        from taximeter.wrap import ending

        ending.clean_up(run)
        if run.options.summary:
            from taximeter.wrap.trouble import say

            say(run)
        ending.end_alike(status)
    finally:
        posix._exit(128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF)
