"""A socket to which the kernel sends its process events, or why there is none.

Owns the asking, and what a refusal means. Refuses to read events.
"""

import errno
import os
import secrets
import select
import socket
import time

from taximeter.errors import TaximeterError
from taximeter.kernel import messages

_NETLINK_CONNECTOR = 11
_SO_RCVBUFFORCE = 33
_ACK_WITHIN_S = 0.25  # it is there as soon as the question was sent


def subscribe(buffer_bytes: int) -> socket.socket:
    """Have the kernel tell of all forks, execs and exits; raises TaximeterError where it refuses, or stays silent."""
    try:
        listening = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NETLINK_CONNECTOR
        )
    except OSError as error:
        raise _refused(error) from error
    try:
        _enlarge(listening, buffer_bytes)
        listening.bind((0, messages.PROC))
        _ask(listening)
    except OSError as error:
        listening.close()
        raise _refused(error) from error
    except TaximeterError:
        listening.close()
        raise
    return listening


def _enlarge(listening: socket.socket, buffer_bytes: int) -> None:
    try:
        listening.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
    except PermissionError:  # without CAP_NET_ADMIN: as much as net.core.rmem_max allows
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)


def _ask(listening: socket.socket) -> None:
    """Subscribe, and make sure of it: in a foreign namespace the kernel ignores the request, though events may come."""
    port = listening.getsockname()[0]
    seq = secrets.randbits(31)
    listening.sendto(messages.listen(port, seq), (0, 0))
    deadline_s = time.monotonic() + _ACK_WITHIN_S
    poll = select.poll()  # select() is for descriptors below 1,024 alone
    poll.register(listening, select.POLLIN)
    while (left_s := deadline_s - time.monotonic()) > 0:
        poll.poll(left_s * 1000)
        error = _read_ack(listening, seq)
        if error:
            raise OSError(error, os.strerror(error))
        if error == 0:
            listening.sendto(messages.listen_to(port, seq, messages.FORK | messages.EXEC | messages.EXIT), (0, 0))
            return
    message = (
        "cannot listen to the kernel's process events: expected it to answer, got nothing; "
        "it answers in the machine's own pid and user namespaces"
    )
    raise TaximeterError(message)


def _read_ack(listening: socket.socket, seq: int) -> int | None:
    try:
        data, (sender, _) = listening.recvfrom(messages.SLOT_BYTES)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.ENOBUFS:  # so many events that the answer may be lost: it is waited for all the same
            return None
        raise
    return messages.parse_ack(data, seq) if sender == 0 else None


def _refused(error: OSError) -> TaximeterError:
    remedy = {
        errno.ECONNREFUSED: "; it listens in the machine's own network namespace (no PrivateNetwork=)",
        errno.EPERM: "; before Linux 6.6 that takes CAP_NET_ADMIN",
        errno.EACCES: "; before Linux 6.6 that takes CAP_NET_ADMIN",
        errno.EAFNOSUPPORT: "; RestrictAddressFamilies= must have AF_NETLINK",
        errno.EPROTONOSUPPORT: "; this kernel was built without CONFIG_CONNECTOR",
    }.get(error.errno or 0, "")
    return TaximeterError(
        f"cannot listen to the kernel's process events: expected its proc connector, got: {error.strerror}{remedy}"
    )
