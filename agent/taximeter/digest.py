"""What a content is known by: one canonical text, and its SHA-256.

Owns the rule by which rate cards, rules and settings are found again in a ledger. Ground; knows nothing of ours.
"""

import hashlib
import json


def digest(content: object) -> str:
    """`sha256:…` over plain JSON values; the same for the same content, in whatever order its keys stood."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
