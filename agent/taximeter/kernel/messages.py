"""The bytes of the kernel's process connector: what is asked of it, and what it says.

Owns the layout of linux/netlink.h, connector.h and cn_proc.h. Refuses to open anything.
"""

import struct
from collections.abc import Iterable, Iterator

FORK = 0x0000_0001
EXEC = 0x0000_0002
EXIT = 0x8000_0000

_LISTEN = 1
_IGNORE = 2

#: CN_IDX_PROC and CN_VAL_PROC, which is also the number of the multicast group.
PROC = 1
_NLMSG_DONE = 3

#: struct nlmsghdr: length, type, flags, sequence, port; struct cn_msg: index, value, sequence, ack, length, flags.
_HEADERS = struct.Struct("=IHHIIIIIIHH")
#: And an answer: struct proc_event with what, CPU, stamp, error.
_ACK = struct.Struct("=IHHIIIIIIHHIIQI")

#: What one event brings, however much room the kernel's union has beyond it.
MESSAGE_BYTES = _HEADERS.size + 40
#: A slot: struct sockaddr_nl and room up to 16 bytes; the message; room.
SLOT_BYTES = 96
NAME_BYTES = 16
#: Of a slot: the sender's port; message length; connector's index and value; what, stamp, and four words of the event.
_SLOT = struct.Struct("=4xI8x I12x II12x I4xQ IIII 8x4x")

#: What happened (FORK, EXEC, EXIT or else), its stamp, and the first words that say to whom.
Event = tuple[int, int, int, int, int, int]


def listen(port: int, seq: int) -> bytes:
    """Ask to hear of everything; the kernel answers it."""
    return _request(port, seq, struct.pack("=I", _LISTEN))


def listen_to(port: int, seq: int, mask: int) -> bytes:
    """Ask to hear only of what is in `mask`; not answered, and not understood before Linux 6.6."""
    return _request(port, seq, struct.pack("=II", _LISTEN, mask))


def ignore(port: int, seq: int) -> bytes:
    """Say that nobody listens any more: the kernel counts listeners, and does not see one die."""
    return _request(port, seq, struct.pack("=I", _IGNORE))


def parse_ack(data: bytes, seq: int) -> int | None:
    """The error number (0: none) in the kernel's answer to request `seq`; None if this is something else."""
    if len(data) < _ACK.size:
        return None
    # Every listener hears every answer, and the kernel keeps of the question only this number.
    _, _, _, _, _, index, value, _, ack, _, _, what, _, _, error = _ACK.unpack_from(data)
    return int(error) if (index, value, ack, what) == (PROC, PROC, seq + 1, 0) else None


def parse_slots(slots: memoryview, lengths: Iterable[int]) -> Iterator[Event]:
    """The events in as many slots as there are `lengths`; what another process sent, and what is none, is left out."""
    for length, slot in zip(lengths, _SLOT.iter_unpack(slots), strict=True):
        sender, said, index, value, what, at_ns, first, second, third, fourth = slot
        if sender == 0 and length >= MESSAGE_BYTES <= said and index == PROC == value:
            yield what, at_ns, first, second, third, fourth


def _request(port: int, seq: int, content: bytes) -> bytes:
    length = _HEADERS.size + len(content)
    return _HEADERS.pack(length, _NLMSG_DONE, 0, seq, port, PROC, PROC, seq, seq, len(content), 0) + content
