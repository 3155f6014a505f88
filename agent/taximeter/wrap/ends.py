"""What is to be said of a command's end beside its status: who killed it, and what it left running.

Owns what has to be known beforehand for that, begun once the command is none of the shortest. Refuses to fail: an end
that cannot be explained is told all the same.
"""

import posix

from taximeter.wrap import proc
from taximeter.wrap.children import Children
from taximeter.wrap.run import Run

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from taximeter.wrap.descendants import Strays
    from taximeter.wrap.oom import Oom

_SIGKILL = 9
_UNSEEN = (ImportError, OSError, ValueError, IndexError)


class Ends:
    """What is known towards the end of one command."""

    def __init__(self, run: Run, children: Children) -> None:
        """Made as soon as we are a subreaper: if nobody was begun before that, no orphan got away."""
        self._run = run
        self._children = children
        self._have_all = posix.getpid() == 1 or proc.last_begun() == run.pid
        self._strays: Strays | None = None
        self._oom: Oom | None = None

    def settle(self) -> None:
        """Begin what the shortest commands do without."""
        try:
            if not self._have_all:
                from taximeter.wrap.descendants import Strays

                self._strays = Strays(self._run)
            from taximeter.wrap.oom import Oom

            self._oom = Oom(self._run.pid)
        except _UNSEEN:
            pass

    def look(self, now_ns: int) -> None:
        """Look anew, with each heartbeat."""
        if self._oom is not None:
            self._oom.look(now_ns)

    def ask_who_killed_it(self) -> None:
        """Find out whether the command died for want of memory; done before it is waited for. Raises OSError."""
        info = posix.waitid(posix.P_PID, self._run.pid, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
        if info is not None and info.si_code == posix.CLD_KILLED and info.si_status == _SIGKILL and self._oom:
            self._run.oom = self._oom.whose()

    def count_left(self) -> int | None:
        """How many processes the command left running, once it was waited for; None where nobody can tell."""
        try:
            strays = [] if self._strays is None else self._strays.living()
            if not self._children.reap_the_last() and not strays:
                return 0 if self._have_all or self._strays is not None else None
            from taximeter.wrap.descendants import count

            return count(strays)
        except _UNSEEN:
            return None
