"""Keys and tokens as NATS has them, made with nothing of ours: an operator, its accounts, their users."""

import base64
import binascii
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

OPERATOR, ACCOUNT, USER, SEED = 14 << 3, 0, 20 << 3, 18 << 3
UNLIMITED = dict.fromkeys(
    (
        "subs",
        "data",
        "payload",
        "imports",
        "exports",
        "conn",
        "leaf",
        "mem_storage",
        "disk_storage",
        "streams",
        "consumer",
    ),
    -1,
)


class Key:
    """A key pair of some kind."""

    def __init__(self, kind: int) -> None:
        self._key, self._kind = Ed25519PrivateKey.generate(), kind

    @property
    def public(self) -> str:
        return spelled(bytes([self._kind]) + self._key.public_key().public_bytes_raw())

    @property
    def seed(self) -> str:
        prefix = bytes([SEED | self._kind >> 5, (self._kind & 31) << 3])
        return spelled(prefix + self._key.private_bytes_raw())

    def sign(self, what: str) -> bytes:
        return self._key.sign(what.encode())

    def login(self, jwt: str | None = None) -> dict[str, Any]:
        """How the library is told who asks."""
        how: dict[str, Any] = {"signature_cb": lambda nonce: base64.b64encode(self.sign(nonce))}
        return how | ({"user_jwt_cb": jwt.encode} if jwt else {})

    def vouch(self, other: "Key", kind: str, **claims: Any) -> str:
        """A JWT by this key, about another."""
        said = {"type": kind, "version": 2, **claims}
        about = {
            "jti": "x",
            "iat": int(time.time()),
            "iss": self.public,
            "name": kind,
            "sub": other.public,
            "nats": said,
        }
        text = f"{coded({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{coded(about)}"
        return f"{text}.{base64.urlsafe_b64encode(self.sign(text)).decode().rstrip('=')}"


class Realm:
    """An operator with a system's account and one that has streams; `user` is of the latter."""

    def __init__(self) -> None:
        operator, system, account = Key(OPERATOR), Key(ACCOUNT), Key(ACCOUNT)
        self.user = Key(USER)
        self.jwt = account.vouch(self.user, "user", subs=-1, data=-1, payload=-1)
        limits = {**UNLIMITED, "wildcards": True}
        accounts = {
            system.public: operator.vouch(system, "account", limits={**limits, "mem_storage": 0, "disk_storage": 0}),
            account.public: operator.vouch(account, "account", limits=limits),
        }
        preload = "\n".join(f"{name}: {jwt}" for name, jwt in accounts.items())
        self.config = (
            f"operator: {operator.vouch(operator, 'operator', system_account=system.public)}\n"
            f"system_account: {system.public}\nresolver: MEMORY\nresolver_preload: {{\n{preload}\n}}"
        )

    @property
    def creds(self) -> str:
        """The file that a user of it is given."""
        return (
            f"-----BEGIN NATS USER JWT-----\n{self.jwt}\n------END NATS USER JWT------\n\n"
            "************************* IMPORTANT *************************\nKeep it.\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{self.user.seed}\n------END USER NKEY SEED------\n"
        )


def spelled(body: bytes) -> str:
    check = binascii.crc_hqx(body, 0).to_bytes(2, "little")
    return base64.b32encode(body + check).decode().rstrip("=")


def coded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
