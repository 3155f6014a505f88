"""The hash chain: what a record says of its own place, and what it says of the one before.

Owns the published envelope (CloudEvents, structured JSON) in the order of its keys, and the hash over the exact bytes
that are stored, which are the bytes that are shipped. Pure: refuses to know where the bytes are kept.
"""

import hashlib
from collections.abc import Mapping

from taximeter.records import CONTENT_TYPE, SPEC_VERSION, UsageRecord, utc_text

_PREFIX = "sha256:"
#: What the first record names as its predecessor.
GENESIS = bytes(hashlib.sha256().digest_size)


def digest_of(body: bytes) -> bytes:
    """The hash of a record's stored bytes."""
    return hashlib.sha256(body).digest()


def hash_of(body: bytes) -> str:
    """The hash of a record's stored bytes, as records and people write it."""
    return digest_text(digest_of(body))


def digest_text(digest: bytes) -> str:
    """A hash as records and people write it: `sha256:` and 64 hexadecimal digits."""
    return _PREFIX + digest.hex()


def envelope(record: UsageRecord, source: str, node: object, place: Mapping[str, object]) -> dict[str, object]:
    """The whole event: `record` as it is published, with the node that wrote it and its `place` in the ledger."""
    return {
        "specversion": SPEC_VERSION,
        "id": record.id,
        "source": source,
        "type": record.type,
        "subject": record.subject,
        "time": utc_text(record.time_utc_ns),
        "datacontenttype": CONTENT_TYPE,
        "data": {**record.data, "node": node, "ledger": place},
    }


def place_of(ledger_id: str, seq: int, previous: bytes) -> dict[str, object]:
    """Where a record stands: which ledger, which number (from 1, without a gap), behind which hash."""
    return {"id": ledger_id, "seq": seq, "previous": digest_text(previous)}
