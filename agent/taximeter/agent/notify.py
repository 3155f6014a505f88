"""What systemd is told: ready, stopping, alive. Refuses to know what any of it means for the agent."""

import os
import socket
from collections.abc import Mapping


class Notifier:
    """The service manager's socket, if there is one; telling it something never fails and never waits."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environ)

    def tell(self, *lines: str) -> None:
        """Send `READY=1` and the like."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
            try:
                sender.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return  # the manager is gone or its queue is full: the next word will say the same


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """How long the manager waits for a sign of life; None if it does not, or waits for another process."""
    interval, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not interval.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(interval) / 1_000_000
