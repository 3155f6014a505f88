"""`taximeter run`: from the command line to the command, and from its end to ours.

Owns the order of things: nothing is imported before the command runs that it does not need to run, and whatever happens
to the meter once it runs, the command never notices. Refuses to be slow.
"""

import _signal  # type: ignore[import-not-found]  # the module `signal` costs two milliseconds of enum
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

_EXIT_USAGE = 2


class Refused(Exception):
    """The command is not started; `code` is the exit status that says why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def main(words: list[str], witness: int = 0, load: "Callable[[str], object]" = __import__) -> "NoReturn":
    """Run a command under the meter and end as it does; never returns.

    `witness` is the launcher's stopped copy of itself (see entry); `load` imports a module by name, faster than Python.
    """
    started = entry.read_entry(witness)
    if _signal.SIGINT not in started.ignored:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # Python's own would end in a traceback
    try:
        run, spawned = _start(words, started)
    except argv.UsageError as error:
        code, message = _EXIT_USAGE, f"{error}{_advice(error)}"
    except (Refused, command.NotStarted) as error:
        code, message = error.code, str(error)
    except Exception as error:  # the meter's own failure, which a shell must be able to tell from the command's
        code, message = wire.EXIT_METER, f"cannot start: {type(error).__name__}: {error}"
    else:
        _attend(run, spawned, started, load)
    entry.reap(witness)
    _complain(message)
    posix._exit(code)


def _start(words: list[str], started: entry.Entry) -> tuple[Run, command.Spawned]:
    entry.hold_standard_descriptors(started.descriptors)
    options, words = argv.parse(words)
    if options.help:
        _help(started)
    values = started.values()
    argv.inherit(options, values.get(wire.ENV_PARENT), values.get(wire.ENV_ROOT), values.get(wire.ENV_ACCOUNT))
    state, run_directory = places.directories(values)
    refusal = places.refusal(run_directory, options.account)
    if refusal is not None:
        raise Refused(wire.EXIT_REFUSED, f"refused: {refusal}")
    if not options.worker and options.prediction is None:
        options.prediction = places.make_id()
    run = Run(options, words, places.make_id())
    run.ignored = started.ignored
    changes = _prepare(run, state, values)
    try:
        return run, command.spawn(started, words, changes, values.get("PATH"))
    except Exception as error:
        _note_failure(run, error)
        raise


def _prepare(run: Run, state: str, values: dict[str, str]) -> dict[str, str | None]:
    """Open the journal and what belongs to it; returns what changes in the command's environment."""
    changes: dict[str, str | None] = {}
    try:
        _open_journal(run, state, values)
        if run.options.ready == "notify":
            changes[wire.ENV_NOTIFY] = _open_notify(run, values)
    except OSError as error:
        _do_without(run, state, error)
    changes[wire.ENV_MARKS] = run.fifo_path  # None takes away that of a run around this one: its marks are not ours
    if not run.options.worker:
        changes[wire.ENV_PARENT] = run.options.prediction
        changes[wire.ENV_ROOT] = run.options.root or run.options.prediction
        if run.options.account is not None:
            changes[wire.ENV_ACCOUNT] = run.options.account
    return changes


def _open_journal(run: Run, state: str, values: dict[str, str]) -> None:
    directory = places.make_journal_directory(state)
    run.boot_id = entry.read_file("/proc/sys/kernel/random/boot_id").decode().strip()
    at_ns = time.monotonic_ns()
    environment, clock = opening.format_environment(values), lines.clock(run.boot_id, at_ns)
    options = opening.format_options(run.options)

    def head(segment: int) -> bytes:
        said = opening.Opening(run.instance, segment, options, environment, clock)
        return opening.open_line(said, run.command, at_ns)

    path = f"{directory}/{run.instance}{wire.MARKS_SUFFIX}"
    run.fifo = make_fifo(path)
    run.fifo_path = path
    run.writer = Writer(directory, run.instance, head)


def _open_notify(run: Run, values: dict[str, str]) -> str:
    from taximeter.wrap.notify import Notify

    path = (run.fifo_path or "").removesuffix(wire.MARKS_SUFFIX) + wire.NOTIFY_SUFFIX
    run.notify = Notify(path, values.get(wire.ENV_NOTIFY))
    return run.notify.address


def _do_without(run: Run, state: str, error: OSError) -> None:
    """No journal: run and say so, unless the run must be metered."""
    from taximeter.wrap.ending import clean_up

    clean_up(run)
    if run.writer is not None:
        run.writer.remove()
    run.writer, run.fifo_path, run.fifo, run.notify = None, None, -1, None
    why = f"cannot keep a journal in {state}/{wire.JOURNAL_DIR}: {error.strerror or error}"
    if run.options.require_meter:
        raise Refused(wire.EXIT_METER, f"{why}: expected a directory to write to, because of --require-meter")
    _complain(f"{why}: THIS RUN IS NOT MEASURED; expected a directory to write to (see TAXIMETER_STATE_DIR)")


def _note_failure(run: Run, error: Exception) -> None:
    """Say in the journal that the command never started."""
    from taximeter.wrap.ending import clean_up

    clean_up(run)
    if run.writer is None:
        return
    code = error.code if isinstance(error, command.NotStarted) else wire.EXIT_METER
    at_ns = time.monotonic_ns()
    try:
        run.writer.append_last(lines.failure(at_ns, lines.clock(run.boot_id, at_ns), code, str(error)))
        run.writer.close()
    except OSError:
        pass


def _attend(run: Run, spawned: command.Spawned, started: entry.Entry, load: "Callable[[str], object]") -> "NoReturn":
    """See the command to its end, whatever becomes of the meter; never returns."""
    run.pid, run.before_ns, run.spawn_ns = spawned.pid, spawned.before_ns, spawned.at_ns
    try:
        entry.drop_descriptors(started.descriptors, (2,) if run.options.summary else ())
        entry.reap(started.witness)
        load("taximeter.wrap.proc")
        load("taximeter.wrap.ending")
        from taximeter.wrap import ending

        ending.attend(run)
    except BaseException:
        _go_without(run)
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
            _complain(ending.summarise(run))
        ending.end_alike(status)
    finally:
        posix._exit(128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF)


def _help(started: entry.Entry) -> "NoReturn":
    from taximeter.wrap.helptext import TEXT

    entry.reap(started.witness)
    posix.write(1, TEXT.encode())
    posix._exit(0)


def _advice(error: argv.UsageError) -> str:
    from taximeter.wrap.helptext import guess

    near = guess(error.word) if isinstance(error, argv.UnknownOption) else None
    meant = f"; did you mean {near}?" if near else ""
    return f"{meant} (see `taximeter run --help`)"


def _complain(message: str) -> None:
    try:
        posix.write(2, f"taximeter: {message}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass
