"""Signals that reach the wrapper: noted, and given to the command as if we were not there.

Owns the rule of what is forwarded. The kernel gives a terminal's signals to the whole group, and so to the command
itself; everything else was meant for the command and goes to it alone. Refuses to act on a signal in any other way.
"""

import _signal  # type: ignore[import-not-found]  # the module `signal` costs two milliseconds of enum
import posix
import sys

from taximeter.wrap import facts, libc, proc
from taximeter.wrap.children import Children
from taximeter.wrap.command import forwarded_signals
from taximeter.wrap.run import Run

_INFO_BYTES = 128  # struct signalfd_siginfo: signo, errno, code, pid, ...
_AT_ONCE = 32
#: What a terminal's driver sends to all of a group; a kernel's SIGALRM, for one, was for us alone.
_GROUP_SIGNALS = (
    _signal.SIGINT,
    _signal.SIGQUIT,
    _signal.SIGTSTP,
    _signal.SIGTTIN,
    _signal.SIGTTOU,
    _signal.SIGWINCH,
    _signal.SIGHUP,
    _signal.SIGCONT,
)
#: A hang-up reaches the leader of a session alone: with us in its place, the command would never hear of it.
_LEADER_SIGNALS = (_signal.SIGHUP, _signal.SIGCONT)
#: What says something about a run's end, or about a gap in it. The rest (SIGUSR1, ...) is the command's own affair.
_NOTED = (
    _signal.SIGHUP,
    _signal.SIGINT,
    _signal.SIGQUIT,
    _signal.SIGABRT,
    _signal.SIGTERM,
    _signal.SIGTSTP,
    _signal.SIGTTIN,
    _signal.SIGTTOU,
    _signal.SIGCONT,
)


class Signals:
    """The blocked signals, read from a descriptor."""

    def __init__(self, run: Run, children: Children) -> None:
        """Raises OSError."""
        self._run = run
        self._children = children
        self._own_pid = posix.getpid()
        self._leads_session = posix.getsid(0) == self._own_pid
        self.fd = libc.signalfd(forwarded_signals(run.ignored - {_signal.SIGCHLD}))

    def take(self, now_ns: int) -> None:
        """Deal with what has arrived. Raises OSError."""
        try:
            data = posix.read(self.fd, _INFO_BYTES * _AT_ONCE)
        except BlockingIOError:
            return
        for at in range(0, len(data), _INFO_BYTES):
            number = int.from_bytes(data[at : at + 4], sys.byteorder)
            code = int.from_bytes(data[at + 8 : at + 12], sys.byteorder, signed=True)
            sender = int.from_bytes(data[at + 12 : at + 16], sys.byteorder)
            self._take_one(now_ns, number, code > 0, sender)

    def _take_one(self, now_ns: int, number: int, kernel: bool, sender: int) -> None:
        if number == _signal.SIGCHLD:
            self._children.look()
            if kernel:
                return
        if not kernel and sender == self._own_pid:
            return  # SIGPIPE or SIGXFSZ for a write of our own
        noted = number in _NOTED
        # Who it was is looked up first, since senders go; what they sent goes on before it is written down.
        outside = noted and (kernel or sender == 0 or not proc.descends(sender, self._own_pid))
        if is_forwarded(number, kernel, self._leads_session):
            posix.kill(self._run.pid, number)
        if noted:
            self._run.write_important(facts.signal(now_ns, number, kernel, 0 if kernel else sender, outside))


def is_forwarded(number: int, kernel: bool, leads_session: bool) -> bool:
    """Whether the command would miss this signal if we kept it."""
    if not kernel or number not in _GROUP_SIGNALS:
        return True
    return leads_session and number in _LEADER_SIGNALS
