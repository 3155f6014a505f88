"""An answer to an HTTP request, as far as it takes to tell whether it says that a server is ready.

Owns the bounds on what is read of it: whatever comes, in whatever pieces, ends in a verdict. Refuses to know sockets
and clocks; what the body of a health check says is in health.
"""

from taximeter.wrap.health import Health

#: What is read of an answer; longer ones have said nothing against it so far, or have not even begun.
_MAX_BYTES = 65_536
_LINE_MAX_BYTES = 1024
_BEGIN = b"HTTP/1."
_HEX = b"0123456789abcdefABCDEF"


class Answer:
    """What has come so far; `verdict` is None until that is clear: 200, and a body that does not object."""

    def __init__(self) -> None:
        self.verdict: bool | None = None
        self._head = b""
        self._body: Health | None = None
        self._seen_bytes = 0
        self._left: int | None = None  # bytes of the body, or of its chunk; None: until the end
        self._chunked = False
        self._line = b""  # the size of the next chunk, as far as it came

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self._seen_bytes += len(data)
        while data and self.verdict is None:
            if self._body is None:
                data = self._take_head(data)
            elif self._chunked and self._left == 0:
                data = self._take_size(data)
            else:
                data = self._take_body(data, self._body)
        if self.verdict is None and self._seen_bytes >= _MAX_BYTES:
            self.verdict = self._body is not None

    def end(self) -> bool:
        """Nothing more will come; returns the verdict, which an answer that was cut off has lost."""
        if self.verdict is None:
            self.verdict = self._body is not None and self._left is None
        return self.verdict

    def _take_head(self, data: bytes) -> bytes:
        """Read the head, when it is whole; returns what comes after it."""
        self._head += data
        if not self._head.startswith(_BEGIN[: len(self._head)]):
            self.verdict = False
            return b""
        ends = [(at, len(end)) for end in (b"\r\n\r\n", b"\n\n", b"\n\r\n") if (at := self._head.find(end)) >= 0]
        if not ends:
            return b""
        at, size = min(ends)
        head, rest = self._head[:at], self._head[at + size :]
        self._head = b""
        self._read_head(head)
        return rest

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\n")
        words = first.split(None, 2)
        code = words[1] if len(words) > 1 else b""
        if len(code) == 3 and code.isdigit() and code.startswith(b"1"):
            return  # on the way; the answer itself is still to come
        if code != b"200":
            self.verdict = False
            return
        self._body = Health()
        for line in lines:
            name, _, value = line.partition(b":")
            self._read_field(name.strip().lower(), value.strip().lower())
        if self._left == 0 and not self._chunked:
            self.verdict = True

    def _read_field(self, name: bytes, value: bytes) -> None:
        if name == b"transfer-encoding" and value.endswith(b"chunked"):
            self._chunked, self._left = True, 0
        elif name == b"content-length" and not self._chunked:
            if value.isdigit() and len(value) < 20:
                self._left = int(value)
            else:
                self.verdict = False

    def _take_size(self, data: bytes) -> bytes:
        """Read the line before a chunk, which may be the end of the one before; returns what comes after it."""
        line, newline, rest = data.partition(b"\n")
        self._line += line
        if len(self._line) > _LINE_MAX_BYTES:
            self.verdict = False
        elif newline:
            size = self._line.partition(b";")[0].strip()
            self._line = b""
            if size:
                self._begin_chunk(size)
        return rest

    def _begin_chunk(self, size: bytes) -> None:
        if len(size) > 16 or size.strip(_HEX):
            self.verdict = False
            return
        self._left = int(size, 16)
        if self._left == 0:
            self.verdict = True  # a body that ends without an objection

    def _take_body(self, data: bytes, body: Health) -> bytes:
        taken = data if self._left is None else data[: self._left]
        body.feed(taken)
        if self._left is not None:
            self._left -= len(taken)
        self.verdict = body.verdict
        if self.verdict is None and self._left == 0 and not self._chunked:
            self.verdict = True
        return data[len(taken) :]
