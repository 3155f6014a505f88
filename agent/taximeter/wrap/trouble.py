"""When a run does not go as it should: no journal, no command, options that make no sense, a cry for help.

Owns what is said then, and to whom. Imported only then. Refuses to stop a command that runs.
"""

import posix
import time

from taximeter import wire
from taximeter.wrap import argv, command, facts, lines
from taximeter.wrap.ending import clean_up
from taximeter.wrap.helptext import TEXT, guess
from taximeter.wrap.run import Run

_EXIT_USAGE = 2


def do_without(run: Run, state: str, error: OSError) -> None:
    """No journal: run and say so, unless the run must be metered."""
    clean_up(run)
    if run.writer is not None:
        run.writer.remove()
    run.writer, run.fifo_path, run.fifo, run.notify = None, None, -1, None
    why = f"cannot keep a journal in {state}/{wire.JOURNAL_DIR}: {error.strerror or error}"
    if run.options.require_meter:
        raise command.Refused(wire.EXIT_METER, f"{why}: expected a directory to write to, because of --require-meter")
    complain(f"{why}: THIS RUN IS NOT MEASURED; expected a directory to write to (see TAXIMETER_STATE_DIR)")


def begin_without_room(run: Run, state: str) -> None:
    """No room for a journal: it is begun once there is some; run, unless the run must be metered."""
    why = f"cannot write a journal in {state}/{wire.JOURNAL_DIR}: no room"
    if run.options.require_meter:
        clean_up(run)
        if run.writer is not None:
            run.writer.remove()
        raise command.Refused(wire.EXIT_METER, f"{why}: expected some, because of --require-meter")
    complain(f"{why}: THIS RUN IS NOT MEASURED until there is some; expected more room on that disk")


def note_failure(run: Run, error: Exception) -> None:
    """Say in the journal that the command never started."""
    clean_up(run)
    if run.writer is None:
        return
    code, at_ns = wire.EXIT_METER, time.monotonic_ns()
    if isinstance(error, command.Refused):
        code = error.code
        run.spawn_ns = run.end_ns = at_ns
        run.status = code << 8
        error.run = run if run.options.summary else None
    try:
        run.writer.append_last(facts.failure(at_ns, lines.clock(run.boot_id), code, str(error)))
        if run.writer.has_begun():
            run.writer.close()
        else:
            run.writer.remove()  # nothing ran, and there is no room to say so
    except OSError:
        pass


def give_up(error: Exception) -> int:
    """Say why nothing was started; returns the exit status that says it to a shell."""
    if isinstance(error, argv.UsageError):
        near = guess(error.unknown) if error.unknown else None
        meant = f"; did you mean {near}?" if near else ""
        complain(f"{error}{meant} (see `taximeter run --help`)")
        return _EXIT_USAGE
    if not isinstance(error, command.Refused):
        complain(f"cannot start: {type(error).__name__}: {error}")  # our own failure, which is not the command's
        return wire.EXIT_METER
    if error.code == 0:
        posix.write(1, TEXT.encode())
    else:
        complain(str(error))
        if error.run is not None:
            say(error.run)
    return error.code


def say(run: Run) -> None:
    """The one line at the end, whatever that takes and for want of what it may be: the status is more important."""
    try:
        from taximeter.wrap.summary import summarise

        complain(summarise(run))
    except Exception:
        pass


def complain(message: str) -> None:
    """Say something to whoever started us."""
    try:
        posix.write(2, f"taximeter: {message}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass
