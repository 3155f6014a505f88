"""Ed25519: the one door to `cryptography`. Loaded by whoever signs or verifies, for it costs 11 MB.

Owns the key's file: 32 bytes in base64, readable to the agent's user alone; or a credential that systemd hands over.
"""

import base64
import binascii
import os
from pathlib import Path

from taximeter.errors import LedgerError
from taximeter.ledger.notes import Checkpoint, Note, key_id_of

#: As systemd has it: LoadCredential=taximeter-seal:/etc/taximeter/seal.key
CREDENTIAL = "taximeter-seal"
_SEED_BYTES = 32


def seed_at(path: Path, credentials: Path | None = None) -> bytes:
    """The seed of the node's key: the credential, if there is one, else the file, made where it is absent.

    Raises LedgerError.
    """
    handed = None if credentials is None else credentials / CREDENTIAL
    if handed is not None and handed.exists():
        path = handed
    expected = "a file with 32 bytes in base64, which nobody else may read"
    try:
        if not path.exists():
            _make(path)
        if path != handed and path.stat().st_mode & 0o077:
            raise LedgerError(f"cannot use {path}: expected {expected} (chmod 600)")
        seed = base64.b64decode(path.read_bytes().strip(), validate=True)
    except (OSError, binascii.Error) as error:
        raise LedgerError(f"cannot use {path}: {type(error).__name__}: expected {expected}") from None
    if len(seed) != _SEED_BYTES:
        raise LedgerError(f"cannot use {path}: expected {expected}")
    return seed


def _make(path: Path) -> None:
    """Write a new seed, synced: what it signs must be signed by the same again after any crash."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(base64.b64encode(os.urandom(_SEED_BYTES)) + b"\n")
        file.flush()
        os.fsync(fd)
    fresh.rename(path)


def sign(checkpoint: Checkpoint, seed: bytes) -> tuple[Note, str]:
    """The note, and the public key in base64."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 -- 11 MB

    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = key.public_key().public_bytes_raw()
    note = Note(checkpoint, key_id_of(checkpoint.origin, public), key.sign(checkpoint.text.encode()))
    return note, base64.b64encode(public).decode()


def is_signed(note: Note, public: str) -> bool:
    """Whether that key (base64) signed it."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 -- 11 MB
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        raw = base64.b64decode(public, validate=True)
        if note.key_id != key_id_of(note.checkpoint.origin, raw):
            return False
        Ed25519PublicKey.from_public_bytes(raw).verify(note.signature, note.checkpoint.text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True
