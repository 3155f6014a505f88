"""The body of a health check, read just as far as it takes to tell whether it says "not yet".

Owns what Cog answers: a JSON object whose `status` says how it is, with 200 from the first moment on. Any other body
says nothing, and so does not object. Refuses to parse JSON beyond that; bytes come in any pieces.
"""

#: A server that is BUSY works already. Any other word is not one of Cog's.
NOT_READY = (b"UNKNOWN", b"STARTING", b"SETUP_FAILED", b"DEFUNCT", b"UNHEALTHY")
_KEPT_BYTES = 32
_QUOTE, _BACKSLASH, _COLON, _COMMA, _OPEN = b'"\\:,{'
_SPACE, _BEGIN, _END = b" \t\r\n", b"{[", b"}]"


class Health:
    """What a body has said so far; `verdict` is None until that is clear."""

    def __init__(self) -> None:
        self.verdict: bool | None = None
        self._depth = 0
        self._text: bytearray | None = None  # of the string that has begun
        self._escaped = False
        self._key = b""
        self._in_value = False

    def feed(self, data: bytes) -> None:
        """Read on."""
        for byte in data:
            if self.verdict is not None:
                return
            if self._text is not None:
                self._take_text(byte, self._text)
            elif byte not in _SPACE:
                self._take(byte)

    def _take_text(self, byte: int, text: bytearray) -> None:
        if byte == _QUOTE and not self._escaped:
            self._text = None
            self._end_text(bytes(text))
            return
        self._escaped = byte == _BACKSLASH and not self._escaped
        if len(text) < _KEPT_BYTES:
            text.append(byte)

    def _end_text(self, text: bytes) -> None:
        if self._depth != 1:
            return
        if not self._in_value:
            self._key = text
        elif self._key == b"status":
            self.verdict = text not in NOT_READY

    def _take(self, byte: int) -> None:
        if self._depth == 0:
            if byte == _OPEN:
                self._depth = 1
            else:
                self.verdict = True
        elif byte == _QUOTE:
            self._text = bytearray()
        elif byte in _END:
            self._depth -= 1
            if self._depth == 0:
                self.verdict = True
        elif self._depth == 1 and byte in (_COLON, _COMMA):
            self._in_value = byte == _COLON
        elif self._depth == 1 and self._in_value and self._key == b"status":
            self.verdict = True  # no string
        elif byte in _BEGIN:
            self._depth += 1
