"""Many datagrams in one system call (recvmmsg), since each call gives the interpreter to another thread.

With a call a message, a busy event loop would let a reader beside it have one message in five milliseconds.
"""

import ctypes
import errno
import os
import struct

from taximeter.kernel.messages import NAME_BYTES, SLOT_BYTES

_libc = ctypes.CDLL(None, use_errno=True)
_MSG_DONTWAIT = 0x40


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Message(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_len", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vectors_len", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_len", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    _fields_ = (("message", _Message), ("len", ctypes.c_uint32))


#: Of each header only the length that the kernel wrote there.
_LENGTH = struct.Struct(f"={_Header.len.offset}xI{ctypes.sizeof(_Header) - _Header.len.offset - 4}x")


class Slots:
    """Room for `count` messages with their senders; what is longer than a slot is cut."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._room = ctypes.create_string_buffer(count * SLOT_BYTES)
        self._vectors = (_Vector * count)()
        self._headers = (_Header * count)()
        base = ctypes.addressof(self._room)
        for number in range(count):
            at = base + number * SLOT_BYTES
            self._vectors[number] = _Vector(at + NAME_BYTES, SLOT_BYTES - NAME_BYTES)
            vector = ctypes.pointer(self._vectors[number])
            self._headers[number].message = _Message(at, NAME_BYTES, vector, 1, None, 0, 0)
        self._bytes = memoryview(self._room).cast("B")
        self._lengths = memoryview(self._headers).cast("B")

    def receive(self, fd: int) -> int:
        """Take what is there, without waiting: how many messages. Raises BlockingIOError for none, else OSError."""
        count: int = _libc.recvmmsg(fd, self._headers, self._count, _MSG_DONTWAIT, None)
        if count >= 0:
            return count
        code = ctypes.get_errno()
        if code == errno.EINTR:
            return 0
        raise OSError(code, os.strerror(code))

    def slots(self, count: int) -> memoryview:
        """The first `count` slots, until the next call of `receive`."""
        return self._bytes[: count * SLOT_BYTES]

    def lengths(self, count: int) -> list[int]:
        """The bytes that each of the first `count` messages has in its slot."""
        return [length for (length,) in _LENGTH.iter_unpack(self._lengths[: count * _LENGTH.size])]
