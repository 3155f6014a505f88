"""How much a worker may say: so much at once, and so much a second from then on, for all of it goes to the disk.

Owns the rate, which is far above that of an honest server, and what a mark counts for. Whoever says more waits in the
FIFO: nothing of it is thrown away here. Refuses to know where it lies, and reads no clock.
"""

#: A mark counts for so much beside its bytes: for the frame of its line in the journal, and for the agent's work.
MARK_BYTES = 256
#: About 65,000 marks of 250 bytes.
BURST_BYTES = 33_554_432
#: About 16,500 such marks a second.
PER_S_BYTES = 8_388_608
#: Who has spent all waits until there is this much again, so as not to wake for each mark: ten milliseconds' worth.
_LEAST_BYTES = 83_886
_NS_PER_S = 1_000_000_000


class Budget:
    """What may still be taken. One bite may overdraw it: then the next ones come the later."""

    def __init__(self, now_ns: int) -> None:
        self._left_bytes = BURST_BYTES
        self._since_ns = now_ns

    def spend(self, now_ns: int, data: bytes) -> int | None:
        """Count what was taken at `now_ns`; returns when there is more, or None: at once."""
        passed_ns, self._since_ns = max(0, now_ns - self._since_ns), max(now_ns, self._since_ns)
        self._left_bytes = min(BURST_BYTES, self._left_bytes + PER_S_BYTES * passed_ns // _NS_PER_S)
        self._left_bytes -= len(data) + MARK_BYTES * max(1, data.count(b"\n"))
        if self._left_bytes > 0:
            return None
        return now_ns + (_LEAST_BYTES - self._left_bytes) * _NS_PER_S // PER_S_BYTES
