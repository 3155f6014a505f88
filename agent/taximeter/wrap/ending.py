"""From the start of the command to its end: the first and the last facts, and an end of our own that is the command's.

Owns how the wrapper ends, and the shortcut for a command that is over before watching it would have begun. Refuses to
fail: a meter that cannot write its last line still ends as the command did.
"""

import _signal  # type: ignore[import-not-found]  # the module `signal` costs two milliseconds of enum
import posix
import sys
import time

from taximeter.wrap import facts, proc
from taximeter.wrap.run import Run

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from resource import struct_rusage

    from taximeter.wrap.intake import Intake

_KIB = 1024
_CORE = 0x80
#: For so long we wait for the end alone, before we take hold of everything else: many commands need no more.
_GRACE_NS = 1_000_000
_NS_PER_S = 1_000_000_000
#: What our size may have grown between the fork and the moment that it is read.
_GROWTH_BYTES = 1_048_576
_FIRST_BYTES = 4096
_USAGE_FIELDS = 16
_UNTRIED = (3, 15)


def attend(run: Run, take_witness_away: "Callable[[], None]") -> None:
    """Note the start, see the command to its end, note that. Raises whatever goes wrong; `run.status` may be known.

    The launcher's witness (see entry) is waited for before others are, who would be taken for orphans.
    """
    run.own_bytes = proc.rss_bytes(posix.getpid())
    _note_start(run)
    intake = ends = None
    if _ends_soon(run.pid):
        run.end_ns = time.monotonic_ns()
    else:
        take_witness_away()
        from taximeter.wrap.watch import Watch

        watch = Watch(run)
        intake, ends = watch.intake, watch.ends
        run.end_ns = watch.wait()
    run.status, used = wait(run.pid)
    now = run.clock()
    if ends is not None:
        run.left = ends.count_left()
    elif proc.last_begun() == run.pid:
        run.left = 0  # nobody took orphans in, but nothing at all was begun since
    _take_the_rest(run, run.end_ns, intake)
    if run.readiness is not None:
        run.readiness.finish(run.end_ns)
    note_end(run, now, _usage(run, used))


def wait(pid: int) -> "tuple[int, struct_rusage]":
    """Wait for a command that has ended; what it used is to be read by place: user and system time, peak in KiB.

    wait4 fetches the type of its answer from the module `resource`, a library of its own in most Pythons: to load it
    costs as much as half of our other work once the command runs. Where it is not there, and where tests have seen to
    it that any named tuple with room for the answer will do, it gets another type.
    """
    if "resource" in sys.modules or sys.version_info >= _UNTRIED or posix.stat_result.n_fields < _USAGE_FIELDS:
        return posix.wait4(pid, 0)[1:]
    lent = sys.modules["resource"] = type(sys)("resource")
    lent.struct_rusage = posix.stat_result  # type: ignore[attr-defined]
    try:
        return posix.wait4(pid, 0)[1:]
    finally:
        del sys.modules["resource"]


def note_end(run: Run, now: str, usage: str) -> None:
    """Write the exit fact and give the journal back; `now` and `usage` are JSON. Raises OSError."""
    writer, run.writer = run.writer, None
    if writer is None or run.end_ns is None or run.status is None:
        return
    known = facts.known(run.dropped, run.oom, run.left)
    writer.append_last(run.unsaid + facts.ended(run.end_ns, now, run.status, usage, known))
    writer.close()


def wait_plainly(run: Run) -> None:
    """See the command to its end without any meter, for when that broke; sets `run.status`."""
    if run.readiness is not None:
        run.readiness.abandon()
    run.status = _plain_wait(run.pid)
    run.end_ns = time.monotonic_ns()
    note_end(run, run.clock(), "null")


def clean_up(run: Run) -> None:
    """Take away what only lived as long as the command."""
    try:
        if run.notify is not None:
            run.notify.close()
    except OSError:
        pass
    try:
        if run.fifo_path is not None:
            posix.unlink(run.fifo_path)
    except OSError:
        pass
    readiness, run.readiness = run.readiness, None
    try:
        if readiness is not None:
            readiness.leave()
    except OSError:
        pass


def end_alike(status: int) -> None:
    """End as the command did: of the same signal, without a core of our own, or with the same status."""
    number = status & 0x7F
    if number:
        if status & _CORE:
            _forbid_core()
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except OSError:
            pass  # SIGKILL
        posix.kill(posix.getpid(), number)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (number,))
    posix._exit(128 + number if number else status >> 8 & 0xFF)  # the first process of a container survives itself


def _note_start(run: Run) -> None:
    said = facts.spawn(run.spawn_ns, run.before_ns, run.pid, proc.start_ticks(run.pid))
    if run.options.ready == "exec":
        run.ready_ns = run.spawn_ns
        said += facts.ready(run.spawn_ns, "exec")
    if run.writer is not None and not run.writer.append_last(said):
        run.unsaid = said


def _ends_soon(pid: int) -> bool:
    """Whether the command ends within the grace; other signals wait, and a stop is looked at afterwards."""
    deadline_ns = time.monotonic_ns() + _GRACE_NS
    while not proc.has_ended(pid):
        left_ns = deadline_ns - time.monotonic_ns()
        if left_ns <= 0:
            return False
        _signal.sigtimedwait((_signal.SIGCHLD,), left_ns / _NS_PER_S)
    return True


def _take_the_rest(run: Run, at_ns: int, intake: "Intake | None") -> None:
    """Take what the command said before its end; who has seen nothing of it so far looks whether there is anything."""
    first = b""
    if intake is None:
        try:
            first = posix.read(run.fifo, _FIRST_BYTES) if run.fifo >= 0 else b""
        except BlockingIOError:
            pass
        if not first and run.notify is None:
            return
        from taximeter.wrap.intake import Intake

        intake = Intake(run)
    intake.finish(at_ns, first)


def _usage(run: Run, used: "struct_rusage") -> str:
    """What was used in all. The kernel's peak begins with the size of who forked: up to there it says nothing."""
    peak_bytes: int | None = int(used[2]) * _KIB
    if run.own_bytes is not None and int(used[2]) * _KIB <= run.own_bytes + _GROWTH_BYTES:
        peak_bytes = run.rss_peak_bytes
    return facts.usage(proc.cpu_used_ns(used) + run.orphans_cpu_ns, peak_bytes)


def _plain_wait(pid: int) -> int:
    blocked = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    while True:
        found, status = posix.waitpid(pid, posix.WNOHANG)
        if found:
            return status
        info = _signal.sigtimedwait(blocked, 1)
        if info is not None and info.si_signo != _signal.SIGCHLD and info.si_code <= 0:
            posix.kill(pid, info.si_signo)


def _forbid_core() -> None:
    try:
        from taximeter.wrap import libc

        libc.forbid_core()
    except (ImportError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
