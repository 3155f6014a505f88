"""Checkpoints as text: what is written is read back, what is signed is told from what is not."""

import base64
import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.ledger.notes import Checkpoint, parse_note
from taximeter.ledger.signing import is_signed, sign

SEED = bytes(range(32))
CHECKPOINT = Checkpoint("0198c2aa-0000-7000-8000-000000000001", 41, bytes(range(32)))


def test_a_note_is_text_that_a_person_can_read() -> None:
    note, public = sign(CHECKPOINT, SEED)
    lines = note.text.split("\n")
    assert lines[:4] == [
        "taximeter.ledger/0198c2aa-0000-7000-8000-000000000001",
        "41",
        base64.b64encode(bytes(range(32))).decode(),
        "",
    ]
    assert lines[4].startswith("— taximeter.ledger/0198c2aa-0000-7000-8000-000000000001 ")
    assert lines[5:] == [""]
    assert len(base64.b64decode(public)) == 32


@given(st.uuids(), st.integers(0, 10**15), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_what_is_written_is_read_back_and_signed(ledger: object, size: int, head: bytes, seed: bytes) -> None:
    note, public = sign(Checkpoint(str(ledger), size, head), seed)
    assert parse_note(note.text) == note
    assert is_signed(parse_note(note.text), public)


@given(st.integers(0, 3), st.binary(min_size=32, max_size=32))
def test_nothing_else_is_signed(which: int, other: bytes) -> None:
    note, public = sign(CHECKPOINT, SEED)
    changed = (
        note._replace(checkpoint=CHECKPOINT._replace(size=42)),
        note._replace(checkpoint=CHECKPOINT._replace(head=bytes(32))),
        note._replace(checkpoint=CHECKPOINT._replace(ledger_id="another")),
        note._replace(signature=other + other),
    )[which]
    assert not is_signed(changed, public)
    assert not is_signed(note, sign(CHECKPOINT, os.urandom(32))[1])
    assert not is_signed(note, "no key")


@given(st.text() | st.builds(lambda at, by: sign(CHECKPOINT, SEED)[0].text[:at] + by, st.integers(0, 250), st.text()))
def test_what_is_none_is_said_to_be_none(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_note(text).text == text


@pytest.mark.parametrize("at", range(1, 6))
def test_a_note_without_one_of_its_lines_is_none(at: int) -> None:
    lines = sign(CHECKPOINT, SEED)[0].text.split("\n")
    with pytest.raises(ValueError, match="expected a checkpoint"):
        parse_note("\n".join(lines[: at - 1] + lines[at:]))
