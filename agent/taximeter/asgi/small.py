"""A small document that came in one piece, as most do: read by the json module, at a tenth of the cost.

Owns that it says what the reading in pieces (bodies) says, of every document; what it cannot be sure of it
leaves to that.
"""

import json
from typing import Any, Final

from taximeter.asgi.usage import Said

#: A longer one takes the server's loop too long at a time, and might hold a usage object that is too long to count.
WHOLE_MAX_BYTES: Final = 16_384
_WRAPPERS: Final = ("response", "message")

# Objects become tuples of pairs: a name that is there twice is seen twice, and arrays, which are lists, are told apart.
_decode = json.JSONDecoder(object_pairs_hook=tuple).decode


def read_whole(document: bytes, said: Said) -> bool:
    """Read a document; False if it has to be read in pieces, of which nothing was taken in."""
    if len(document) > WHOLE_MAX_BYTES or b"\\u" in document:  # a name may be written so, and is not ours then
        return False
    try:
        value = _decode(document.decode())
    except (ValueError, RecursionError):  # many documents, none, or other bytes than UTF-8
        return False
    if type(value) is tuple:
        _read(value, said, wrappers=_WRAPPERS)
    return True


def _read(pairs: tuple[tuple[str, Any], ...], said: Said, wrappers: tuple[str, ...]) -> None:
    for name, value in pairs:
        is_object = type(value) is tuple
        if name == "usage" and is_object:
            said.take(_plain(value))
        elif name == "error":
            said.failed = said.failed or is_object or (type(value) is str and value != "")
        elif name in wrappers and is_object:
            _read(value, said, wrappers=())


def _plain(pairs: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    return {name: dict(value) if type(value) is tuple else value for name, value in pairs}
