"""The relays at the command's end: what it wrote goes out before we end, what its descendants write goes out after us.

Owns the process that goes on relaying where somebody still writes, so that neither they nor their readers notice that
we are gone. Refuses to know what passes.
"""

import _signal  # type: ignore[import-not-found]  # the module `signal` costs two milliseconds of enum
import posix
import select

from taximeter.wrap.relay import Relay

_LOOK_MS = 100
#: All of ours are lower, where nobody can tell which they are: what was inherited has been closed.
_FEW = 1024
#: Signals that want nobody to end; SIGPIPE comes of what we write ourselves.
_HARMLESS = (_signal.SIGCHLD, _signal.SIGCONT, _signal.SIGPIPE, _signal.SIGURG, _signal.SIGWINCH)


def see_out(relays: list[Relay]) -> None:
    """Bring out what was written, however slow the reader is, unless a signal says to end. Raises OSError."""
    watched = [relay for relay in relays if relay.pending]
    fatal = _signal.pthread_sigmask(_signal.SIG_BLOCK, ()).difference(_HARMLESS)
    poll = select.poll()  # no epoll: there may be no descriptor left for one
    for relay in watched:
        relay.watch(poll)
    waiting = [relay for relay in watched if relay.pending]
    while waiting and _signal.sigtimedwait(fatal, 0) is None:
        ready = [fd for fd, _ in poll.poll(_LOOK_MS)]
        for relay in watched:
            relay.move(ready, False)
        waiting = [relay for relay in waiting if relay.pending]


def hand_over(relays: list[Relay]) -> None:
    """Leave what is open to a process of its own. Raises OSError."""
    if not relays:
        return
    try:
        if posix.fork() == 0:
            try:
                _go_on(relays)
            finally:
                posix._exit(0)
    finally:
        for relay in relays:
            relay.close()


def _go_on(relays: list[Relay]) -> None:
    """Relay until nobody writes or reads any more; signals, which are blocked, are for those who do."""
    kept = {fd for relay in relays for fd in relay.descriptors()}
    try:
        descriptors = [int(name) for name in posix.listdir("/proc/self/fd")]
    except OSError:
        descriptors = list(range(_FEW))
    for fd in set(descriptors) - kept:
        try:
            posix.close(fd)
        except OSError:
            pass  # the one of the listing
    poll = select.poll()
    for relay in relays:
        relay.watch(poll)
    while any(relay.is_open for relay in relays):
        ready = [fd for fd, _ in poll.poll()]
        for relay in relays:
            relay.move(ready, False)
