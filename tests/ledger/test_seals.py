"""Checkpoints in the chain: what was sealed is compared with what is there, by number, hash and key."""

import pytest

from taximeter.ledger.notes import Checkpoint, Note
from taximeter.ledger.signing import sign
from taximeter.ledger.unsealed import unsealed

HASHES = {1: b"1" * 32, 2: b"2" * 32}
NOTE, KEY = sign(Checkpoint("L1", 2, HASHES[2]), bytes(32))


def faults(note: str = NOTE.text, key: str = KEY, ledger: str = "L1") -> list[str]:
    return list(unsealed(note, key, ledger, HASHES.get))


def test_a_seal_of_what_is_there_is_no_fault() -> None:
    assert faults() == []


def resealed(**changes: object) -> str:
    checkpoint = NOTE.checkpoint._replace(**changes)  # type: ignore[arg-type]
    return sign(checkpoint, bytes(32))[0].text


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("no note", "is no checkpoint"),
        (resealed(ledger_id="L2"), "is a checkpoint of ledger L2, expected L1"),
        (resealed(size=3), "seals 3 records, and there are fewer"),
        (resealed(head=HASHES[1]), "seals another record 2 than is there"),
        (Note(NOTE.checkpoint, NOTE.key_id, bytes(64)).text, "did not sign"),
    ],
)
def test_any_other_is_a_fault_in_words(note: str, expected: str) -> None:
    (fault,) = faults(note)
    assert expected in fault


def test_another_key_did_not_sign_it() -> None:
    assert faults(key=sign(NOTE.checkpoint, b"x" * 32)[1]) != []


@pytest.mark.parametrize("size", [1, 2])
def test_a_ledger_cut_anywhere_below_a_seal_is_found_by_it(size: int) -> None:
    left = {number: digest for number, digest in HASHES.items() if number < size}
    assert list(unsealed(NOTE.text, KEY, "L1", left.get))


def test_nothing_sealed_is_sealed_as_nothing() -> None:
    note, key = sign(Checkpoint("L1", 0, bytes(32)), bytes(32))
    assert list(unsealed(note.text, key, "L1", HASHES.get)) == []
