"""Children of the wrapper: the command when it is stopped, and the orphans that it leaves behind.

Owns job control (a stopped command stops its wrapper, so that the shell above sees it) and the reaping of orphans.
Refuses to wait for the command's end: whoever needs its status does.
"""

import _signal  # type: ignore[import-not-found]  # the module `signal` costs two milliseconds of enum
import posix
import resource  # noqa: F401 -- wait4 needs it: now, while the command runs, rather than then

from taximeter.wrap import proc
from taximeter.wrap.run import Run

#: Orphans reaped before signals and the command's end get their turn.
_AT_ONCE = 256
#: Rounds of that once the command has ended, which holds up nobody but whoever waits for us.
_LAST_ROUNDS = 64
_JOB_CONTROL = (_signal.SIGSTOP, _signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)


class Children:
    """The children of this process."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pid = run.pid
        self.more = False  #: there may be further orphans to reap

    def look(self) -> None:
        """Find out what has become of the children, after a SIGCHLD."""
        try:
            info = posix.waitid(posix.P_PID, self._pid, posix.WSTOPPED | posix.WCONTINUED | posix.WNOHANG)
        except ChildProcessError:
            info = None
        if info is not None and info.si_code == posix.CLD_STOPPED:
            self._stop_alike(info.si_status)
        self.reap()

    def reap(self) -> None:
        """Wait for orphans that have ended; the command itself is left to whoever needs its status."""
        self.more = False
        for _ in range(_AT_ONCE):
            try:
                info = posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
            except ChildProcessError:
                return
            if info is None or info.si_pid == self._pid:
                return
            used = posix.wait4(info.si_pid, posix.WNOHANG)[2]
            self._run.orphans_cpu_ns += proc.cpu_used_ns(used)
        self.more = True

    def reap_the_last(self) -> bool:
        """Reap whoever has ended, once the command was waited for; whether there are others that live on."""
        for _ in range(_LAST_ROUNDS):
            self.reap()
            if not self.more:
                break
        try:
            posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def _stop_alike(self, number: int) -> None:
        """Stop as the command did, where a shell's job control is there to continue us both."""
        foreground, group = proc.foreground_group(), proc.group(self._pid)
        if foreground is None or number not in _JOB_CONTROL:
            return
        if number == _signal.SIGSTOP and foreground not in (group, posix.getpgrp()):
            return
        if proc.is_stopped(self._pid):  # else it was continued in the meantime
            _stop(_signal.SIGSTOP if number in self._run.ignored else number)
            if foreground == group:
                _pass_terminal_on(group)
        if proc.is_stopped(self._pid):
            posix.kill(self._pid, _signal.SIGCONT)


def _stop(number: int) -> None:
    """Stop ourselves; returns when we are continued, having taken in what continued us: later it might undo a stop.

    Sent while blocked, the signal merges with what the terminal sent us.
    """
    posix.kill(posix.getpid(), number)
    if number != _signal.SIGSTOP:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (number,))
        _signal.pthread_sigmask(_signal.SIG_BLOCK, (number,))
    _signal.sigtimedwait((_signal.SIGCONT,), 0)


def _pass_terminal_on(group: int) -> None:
    """Give the terminal to the group of a command that leads its own, as a shell does, if the shell gave it to us."""
    if group == posix.getpgrp() or proc.foreground_group() != posix.getpgrp():
        return
    try:
        terminal = posix.open("/dev/tty", posix.O_RDWR | posix.O_CLOEXEC)
        posix.tcsetpgrp(terminal, group)
        posix.close(terminal)
    except OSError:
        pass  # the shell within will say so
