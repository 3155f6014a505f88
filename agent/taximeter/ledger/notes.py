"""Checkpoints as text: a signed note, in the style of C2SP (signed-note, tlog-checkpoint). Pure.

    taximeter.ledger/<id>
    <how many records>
    <base64 of the hash of the last of them>

    — taximeter.ledger/<id> <base64 of four bytes of the key's name, and the signature>

What is signed is the text up to its last newline before the empty line. Where a log of that kind would have the root of
its tree, there is the head of the chain: it covers every record before it. Refuses to sign, and to know where a note is
kept.
"""

import base64
import binascii
import hashlib
from typing import NamedTuple

_ORIGIN = "taximeter.ledger/"
_ED25519 = b"\x01"
_HASH_BYTES = 32


class Checkpoint(NamedTuple):
    """That a ledger had so many records, and the last one this hash."""

    ledger_id: str
    size: int
    head: bytes

    @property
    def origin(self) -> str:
        """Whose checkpoint it is."""
        return _ORIGIN + self.ledger_id

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.head).decode()}\n"


class Note(NamedTuple):
    """A checkpoint, and a signature of it by the key of that name."""

    checkpoint: Checkpoint
    key_id: bytes
    signature: bytes

    @property
    def text(self) -> str:
        """The whole note."""
        signed = base64.b64encode(self.key_id + self.signature).decode()
        return f"{self.checkpoint.text}\n— {self.checkpoint.origin} {signed}\n"


def key_id_of(origin: str, public: bytes) -> bytes:
    """What a key is called in a note: four bytes of a hash over its owner and itself."""
    return hashlib.sha256(origin.encode() + b"\n" + _ED25519 + public).digest()[:4]


def parse_note(text: str) -> Note:
    """The note that a text is. Raises ValueError in words."""
    expected = "expected a checkpoint: origin, size and hash, an empty line, and a signature"
    lines = text.split("\n")
    if len(lines) != 6 or lines[3] or lines[5] or not lines[0].startswith(_ORIGIN):
        raise ValueError(f"cannot read {text[:80]!r}: {expected}")
    words = lines[4].split(" ")
    try:
        head, signed = (base64.b64decode(word, validate=True) for word in (lines[2], words[-1]))
        size = int(lines[1]) if lines[1].isascii() and lines[1].isdigit() and len(lines[1]) < 19 else -1
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"cannot read {text[:80]!r}: {expected}") from error
    if len(head) != _HASH_BYTES or words[:2] != ["—", lines[0]] or len(words) != 3 or size < 0 or len(signed) != 68:
        raise ValueError(f"cannot read {text[:80]!r}: {expected}")
    return Note(Checkpoint(lines[0].removeprefix(_ORIGIN), size, head), signed[:4], signed[4:])
