"""What a NATS user signs a server's challenge with: a credentials file (a JWT and a seed), or the seed alone.

Owns the two formats. The seed opens everything and is never sent. Refuses to know who is asked.
"""

import base64
import binascii
import re
from pathlib import Path
from typing import NamedTuple

_MAX_BYTES = 65_536
_SEED = re.compile(rb"^(SU[A-Z2-7]{56})\s*$", re.MULTILINE)
_JWT = re.compile(rb"^-+BEGIN NATS USER JWT-+\s+([A-Za-z0-9_.-]+)\s+-+END NATS USER JWT-+\s*$", re.MULTILINE)
#: The first bytes of keys, as base32 makes them legible: SU… and U….
_SEED_OF_USER, _USER = bytes([0b10010_101, 0b00000_000]), bytes([0b10100_000])


class Creds(NamedTuple):
    """Who a user is, and what it proves that with."""

    user: str  #: its public key, U…
    jwt: str | None  #: what its account says of it, where the server asks for that
    seed: bytes

    def answer(self, nonce: str) -> bytes:
        """Sign a server's challenge."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 -- 11 MB

        return base64.b64encode(Ed25519PrivateKey.from_private_bytes(self.seed).sign(nonce.encode()))


def creds_of(path: Path) -> Creds:
    """Read a file, for each connection, so that it can be changed. Raises ValueError in words, without its bytes."""
    expected = "a NATS credentials file, or a file with a user's seed (SU…)"
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES)
    except OSError as error:
        raise ValueError(f"cannot read creds_file {path}: {type(error).__name__}: expected {expected}") from None
    seed, jwt = _SEED.search(raw), _JWT.search(raw)
    key = _key_in(seed[1]) if seed else None
    if key is None:
        raise ValueError(f"cannot use creds_file {path}: expected {expected}")
    return Creds(_public(key), jwt[1].decode() if jwt else None, key)


def _key_in(seed: bytes) -> bytes | None:
    raw = base64.b32decode(seed + b"=" * (-len(seed) % 8))
    body, check = raw[:-2], raw[-2:]
    is_sound = check == _check(body) and body.startswith(_SEED_OF_USER)
    return body[len(_SEED_OF_USER) :] if is_sound else None


def _public(seed: bytes) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 -- 11 MB

    body = _USER + Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return base64.b32encode(body + _check(body)).decode().rstrip("=")


def _check(body: bytes) -> bytes:
    return binascii.crc_hqx(body, 0).to_bytes(2, "little")
