"""`--ready http://…` and `--ready tcp:…`: the command is asked until it says yes.

Owns when it is asked, and what is made of the answers. Refuses to wait for one: signals, the command's end and its
marks go on meanwhile.
"""

import time

from taximeter.wrap import proc
from taximeter.wrap.probe import Probe
from taximeter.wrap.readiness import SOONEST_NS, conclude, pause_ns
from taximeter.wrap.strangers import Strangers

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    import select

    from taximeter.wrap.run import Run
    from taximeter.wrap.targets import Target

#: An attempt is given up after this long.
_DEADLINE_NS = 2_000_000_000


class Asking:
    """Asks a target."""

    def __init__(self, run: "Run", target: "Target") -> None:
        """Look first whether somebody else answers there: the command does not run yet."""
        self._run = run
        self._target = target
        self._strangers = Strangers(target.addresses)
        self._probe: Probe | None = None
        self._epoll: select.epoll  # once it begins
        self._began_ns = 0
        self._no_ns = 0  # the last attempt that came to nothing began then
        self.next_ns: int | None = None
        if self._strangers:
            _complain_of(target)

    def begin(self, epoll: "select.epoll") -> None:
        """Ask from now on."""
        self._epoll = epoll
        self.next_ns = self._no_ns = self._run.before_ns

    def take(self, ready: list[int], now_ns: int) -> int:
        """Go on with the attempt, or make the next one."""
        if self.next_ns is None:
            return now_ns
        if self._run.ready_ns is not None:
            self._stop()
            return now_ns
        probe = self._probe
        if probe is None:
            if now_ns < self.next_ns:
                return now_ns
            probe = self._probe = Probe(self._target, self._strangers, self._epoll)
            self._began_ns = time.monotonic_ns()
            verdict = probe.begin()
        elif probe.fd in ready:
            verdict = probe.go_on()
        else:
            verdict = False if now_ns >= self.next_ns else None
        now_ns = time.monotonic_ns()
        if verdict is None:
            self.next_ns = self._began_ns + _DEADLINE_NS
            return now_ns
        self._stop()
        if not verdict:
            self._no_ns = self._began_ns if probe.is_clear else self._no_ns
            self.next_ns = max(self._began_ns + pause_ns(self._run, now_ns), now_ns + SOONEST_NS)
        elif not proc.has_ended(self._run.pid):  # else it was not the command that answered
            conclude(self._run, self._target.by, now_ns, now_ns - self._no_ns)
        return now_ns

    def release(self) -> None:
        """Nothing was held."""

    def finish(self, _: int) -> None:
        """Ask no more."""
        self._stop()

    def leave(self) -> None:
        """Nothing is left."""

    def abandon(self) -> None:
        """The command notices nothing of it anyway."""

    def _stop(self) -> None:
        self.next_ns = None
        if self._probe is not None:
            self._probe.close()
            self._probe = None


def _complain_of(target: "Target") -> None:
    from taximeter.wrap.trouble import complain

    port = target.addresses[0][1][1]
    complain(
        f"somebody else listens at port {port} before the command runs: that one's answers do not count; expected a"
        " free port (a command that is handed its socket can say itself that it is ready: --ready notify)"
    )
