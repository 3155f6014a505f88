"""Bodies that stream by: where in them a `usage` or an `error` stands.

Owns the reading of JSON, lines of JSON and server-sent events that come in pieces, cut anywhere. Nothing of a body is
kept but the usage object that is being read, and that is bounded. Never raises, whatever the body is.

Only where an API puts them do the two count: at the top of a document, or in its `response` or `message`. What a model
wrote is inside a string, and what it was asked for is deeper down.
"""

import re
import sys
from typing import Final

from taximeter.asgi.small import read_whole
from taximeter.asgi.usage import Said

#: A `usage` object longer than this is none.
USAGE_MAX_BYTES: Final = 16_384
#: Of a plain body this much is looked through: that takes time on the loop of the server.
JSON_MAX_BYTES: Final = 16_777_216

_PLAIN: Final = re.compile(rb'[^"{}\[\]]*+')
_STRING: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_SPACE: Final = b" \t\r\n"
_QUOTE, _OBJECT = b'"{'
_OPENS: Final = b"{["
_WRAPPERS: Final = (b"response", b"message")
_KEYS: Final = frozenset((b"usage", b"error", *_WRAPPERS))
_KEY_MAX_BYTES: Final = 8

_JSON_TYPES: Final = frozenset(
    (
        b"application/json",
        b"application/x-ndjson",
        b"application/ndjson",
        b"application/jsonl",
        b"application/json-lines",
    )
)
_BREAK: Final = re.compile(rb"[\r\n]")
_DATA: Final = b"data:"
#: An event with data in one line, and nothing else.
_LINE: Final = re.compile(rb"data:[^\r\n]*+(?:\n\n|\r\n\r\n)")
_ERROR_EVENTS: Final = frozenset((b"event: error", b"event:error"))
#: A usage object that begins here, or in the next line of the same event; not the null of most events.
_USAGE: Final = re.compile(rb'"usage"[ \t]*(?::[ \t]*)?[\r\n{]')


class Documents:
    """One JSON document after the other: a plain body, lines of JSON, or the data of an event.

    A string is skipped in one step, however long; between strings only brackets are looked at.
    """

    def __init__(self, said: Said | None = None, limit: int = JSON_MAX_BYTES) -> None:
        self.said = said or Said()
        self._left = limit
        self._untouched = True
        self.reset()

    def reset(self) -> None:
        """Forget a document that was begun."""
        self._depth = 0
        self._wrapped = False  #: inside the `response` or `message` of the document
        self._key: bytes | None = None  #: the last string, where it may be the name of what we look for
        self._gap = b""  #: what stood since then, but for space
        self._head: bytes | None = None  #: how the string began that is being read
        self._escaped = False  #: its next byte stands behind a backslash
        self._capture: bytearray | None = None  #: the usage object that is being read
        self._captured_at = 0

    def feed(self, piece: bytes, *, last: bool = False) -> None:
        """Look through the next piece."""
        if not piece or (last and self._untouched and self._whole(piece)):
            return
        self._untouched = False
        if len(piece) > self._left:
            piece, self.said.unread = piece[: self._left], True
        self._left -= len(piece)
        begun = 0  #: where in this piece begins what is captured
        at = 0 if self._head is None else self._string(piece, 0, self._head)
        while at < len(piece):
            stop = _end(_PLAIN, piece, at)
            if self._key is not None:
                self._gap = (self._gap + piece[at:stop].translate(None, _SPACE))[:2]
            if stop == len(piece):
                break
            at = stop + 1
            token = piece[stop]
            if token == _QUOTE:
                at = self._string(piece, at, b"")
            elif token in _OPENS:
                begun = stop if self._opened(token == _OBJECT) else begun
            else:
                self._closed(piece[begun:at])
        if self._capture is not None:
            self._keep(piece[begun:])

    def _whole(self, document: bytes) -> bool:
        """Whether this document needs no further look."""
        return not (b'"usage"' in document or b'"error"' in document) or read_whole(document, self.said)

    def _named(self) -> bytes | None:
        """The name of the value that begins now, if it is one of ours."""
        named = self._key if self._gap == b":" else None
        self._key = None
        return named

    def _opened(self, is_object: bool) -> bool:
        """An object or a list begins; true where it is to be captured."""
        self._depth += 1
        named = None if self._key is None else self._named()
        if named is None or not is_object:
            return False
        if named == b"error":
            self.said.failed = True
        elif named in _WRAPPERS and self._depth == 2:
            self._wrapped = True
        elif named == b"usage":
            self._capture, self._captured_at = bytearray(), self._depth
        return named == b"usage"

    def _closed(self, part: bytes) -> None:
        """An object or a list ends, with `part` if it is the one that is captured."""
        self._key = None
        if self._capture is not None and self._depth == self._captured_at:
            self._keep(part)
            if self._capture is not None:
                self.said.usage(bytes(self._capture))
            self._capture = None
        self._depth = max(0, self._depth - 1)
        self._wrapped = self._wrapped and self._depth > 1

    def _keep(self, part: bytes) -> None:
        if self._capture is not None:
            self._capture += part[: USAGE_MAX_BYTES + 1]
            if len(self._capture) > USAGE_MAX_BYTES:
                self._capture = None

    def _string(self, piece: bytes, at: int, head: bytes) -> int:
        """Go on in a string that began with `head`; returns where to go on after it."""
        stop = piece.find(b'"', at)
        if self._escaped or piece.find(b"\\", at, stop if stop >= 0 else len(piece)) >= 0:
            stop = _end(_STRING, piece, at + 1 if self._escaped else at)
        ends = stop >= 0 and piece[stop : stop + 1] == b'"'
        self._escaped = 0 <= stop < len(piece) and not ends  # what stopped it is a backslash, the last byte
        if len(head) <= _KEY_MAX_BYTES:
            head += piece[at : min(stop if ends else len(piece), at + _KEY_MAX_BYTES + 1)]
        if not ends:
            self._head = head
            return len(piece)
        self._head = None
        if self._key is not None and self._named() == b"error" and head:
            self.said.failed = True
        if (self._depth == 1 or (self._depth == 2 and self._wrapped)) and self._capture is None and head in _KEYS:
            self._key, self._gap = head, b""
        return stop + 1


def _end(pattern: re.Pattern[bytes], piece: bytes, at: int) -> int:
    found = pattern.match(piece, at)
    return found.end() if found else at  # these match always, if only nothing


class Events:
    """Server-sent events: a document in the data of each, which may come in many lines."""

    def __init__(self) -> None:
        self.said = Said()
        self._documents = Documents(self.said, sys.maxsize)
        self._between = True  #: no event is begun
        self._cr = False  #: the last piece ended with a CR, whose LF may follow
        self._line = b""  #: how the line began
        self._is_data: bool | None = None  #: None: not known yet

    def feed(self, piece: bytes, *, last: bool = False) -> None:  # noqa: ARG002 - an event ends by itself
        """Look through the next piece; whole events that say nothing of use cost next to nothing."""
        at, self._cr = (1 if self._cr and piece[:1] == b"\n" else 0), self._cr and not piece
        if self._between and piece.endswith((b"\n\n", b"\r\n\r\n")):
            if not _is_worth_reading(piece):
                return
            if _LINE.fullmatch(piece) and read_whole(piece[len(_DATA) :], self.said):
                return
        while at < len(piece):
            found = _BREAK.search(piece, at)
            stop = found.start() if found else len(piece)
            if stop > at:
                self._part(piece[at:stop])
            if found is None:
                return
            self._line_ended()
            at = stop + (2 if piece[stop : stop + 2] == b"\r\n" else 1)
            self._cr = at == len(piece) and piece[stop:] == b"\r"

    def _part(self, text: bytes) -> None:
        self._between = False
        if self._is_data is None:
            text = self._line + text
            self._line = text[:16]
            if len(text) < len(_DATA):
                return
            self._is_data = text.startswith(_DATA)
            text = text[len(_DATA) :]
        elif not self._is_data:
            self._line = (self._line + text)[:16]
        if self._is_data:
            self._documents.feed(text)

    def _line_ended(self) -> None:
        if not self._line:
            self._documents.reset()
            self._between = True
        elif self._line in _ERROR_EVENTS:
            self.said.failed = True
        self._line, self._is_data = b"", None


def _is_worth_reading(events: bytes) -> bool:
    return b"error" in events or (b'"usage"' in events and _USAGE.search(events) is not None)


class Unread:
    """A body that cannot be read, since it is compressed; the count of it says so."""

    def __init__(self) -> None:
        self.said = Said()
        self.said.unread = True

    def feed(self, piece: bytes, *, last: bool = False) -> None:
        """Let it pass."""


Reader = Documents | Events | Unread


def reader_for(content_type: bytes, content_encoding: bytes) -> Reader | None:
    """What reads a body of this type; None where nothing in it would be looked for."""
    kind = content_type.partition(b";")[0].strip().lower()
    if kind == b"text/event-stream":
        reader: Reader = Events()
    elif kind in _JSON_TYPES or (kind.startswith(b"application/") and kind.endswith(b"+json")):
        reader = Documents()
    else:
        return None
    return reader if content_encoding.strip().lower() in (b"", b"identity") else Unread()
