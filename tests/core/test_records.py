"""How a record is kept: what is said of the ledger itself, and the hash that a stored record is known by."""

from taximeter.ledger import chain
from taximeter.records import PLATFORM, RecordType, UsageRecord, fact


def test_what_was_put_in_force_is_a_record_that_nobody_is_billed_for() -> None:
    assert fact("r-1", 7, ("rules", "sha256:0", {"a": 1})) == UsageRecord(
        "r-1", RecordType.FACT, PLATFORM, 7, {"fact": "rules", "hash": "sha256:0", "content": {"a": 1}}
    )


def test_a_stored_record_is_known_by_the_sha256_of_its_bytes() -> None:
    assert chain.hash_of(b"abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
