"""A journal line whose bytes are not what was written: mended where one bit turned, and only where that is certain.

A CRC-32 differs by a pattern of its own for each single bit of a line of up to 11 KiB, so it says which one turned.
What more of a line is lost stays lost; but one that still says that it is a heartbeat was one, and no mark. Refuses
to know files, and what a fact means.
"""

import binascii
from functools import lru_cache

#: How a line ends: a CRC-32 of all that is before, which lines of older wrappers do not have.
_SEAL = b',"c":"%08x"}'
_SEAL_BYTES = len(_SEAL % 0)
#: In a longer line other faults look like the turn of a single bit.
_MOST_BYTES = 91_607 // 8
_HEARTBEAT = b'{"v":1,"f":"heartbeat",'


def mended(line: bytes) -> bytes | None:
    """The line as it was written, where no more than one bit of it has turned; None where nobody can say."""
    if not _SEAL_BYTES < len(line) <= _MOST_BYTES:
        return None
    body, seal = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
    digest = binascii.crc32(body)
    if _bits_apart(seal, _SEAL % digest) == 1:
        return body + _SEAL % digest
    try:
        written = int(seal[6:14], 16)
    except ValueError:
        return None
    turned = _turned(len(body), digest ^ written) if seal == _SEAL % written else None
    if turned is None:
        return None
    at, bit = turned
    return body[:at] + bytes((body[at] ^ bit,)) + body[at + 1 :] + seal


def is_heartbeat(line: bytes) -> bool:
    """Whether a damaged line was a heartbeat all the same: whatever else is said in it is no loss."""
    return line.startswith(_HEARTBEAT)


def _bits_apart(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def _turned(length: int, difference: int) -> tuple[int, int] | None:
    """Which bit of which byte makes that difference: the CRC's register is run backwards, a byte at a time."""
    table, by_top, one_bit = _tables()
    for at in range(length - 1, -1, -1):
        bit = one_bit.get(difference)
        if bit is not None:
            return at, bit
        index = by_top[difference >> 24]
        difference = (difference ^ table[index]) << 8 | index
    return None


@lru_cache(maxsize=1)
def _tables() -> tuple[list[int], list[int], dict[int, int]]:
    """What each byte does to the register, which of them has that top byte, and what a single bit does."""
    table: list[int] = []
    for byte in range(256):
        register = byte
        for _ in range(8):
            register = register >> 1 ^ (0xEDB88320 if register & 1 else 0)
        table.append(register)
    by_top = [0] * 256
    for index, register in enumerate(table):
        by_top[register >> 24] = index
    return table, by_top, {table[1 << place]: 1 << place for place in range(8)}
