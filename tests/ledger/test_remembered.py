"""The last checkpoint, kept apart: an older ledger, another one, another machine's are refused, each in words."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from taximeter.errors import LedgerError
from taximeter.ledger import chain, remembered
from taximeter.ledger.remembered import Remembered, check, recall, remember
from taximeter.ledger.signing import CREDENTIAL, seed_at

HASHES = {1: b"1" * 32, 2: b"2" * 32, 3: b"3" * 32}
LAST = Remembered("L1", 2, chain.digest_text(HASHES[2]), "here", "a note")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(remembered, "machine", lambda: "here")
    remember(tmp_path / "checkpoint", LAST)
    return tmp_path / "checkpoint"


def test_what_is_remembered_is_read_back_and_nothing_is_left_beside_it(path: Path) -> None:
    assert recall(path) == LAST
    assert os.listdir(path.parent) == ["checkpoint"]
    assert recall(path.parent / "other") is None


@pytest.mark.parametrize("size", [2, 3])
def test_the_ledger_itself_goes_on(path: Path, size: int) -> None:
    assert check(path, "L1", size, HASHES.get) is None


def test_a_ledger_that_was_cut_is_refused(path: Path) -> None:
    with pytest.raises(LedgerError, match="it has 1 records, and 2 were sealed: expected the ledger itself"):
        check(path, "L1", 1, HASHES.get)


def test_one_that_went_another_way_is_refused(path: Path) -> None:
    with pytest.raises(LedgerError, match="its record 2 is not the one that was sealed"):
        check(path, "L1", 3, {**HASHES, 2: b"x" * 32}.get)


def test_another_ledger_is_refused_unless_it_is_new(path: Path) -> None:
    with pytest.raises(LedgerError, match="L1 was sealed here"):
        check(path, "L2", 5, HASHES.get)
    before = {"ledger": "L1", "size": 2, "head": LAST.head}
    assert check(path, "L2", 0, HASHES.get) == before
    assert check(path, "L2", 0, HASHES.get) == before  # killed before it could say so
    assert check(path, "L2", 5, HASHES.get) == before  # it has records, and was not sealed yet
    with pytest.raises(LedgerError, match="L2 was sealed here"):
        check(path, "L1", 2, HASHES.get)


def test_another_machines_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "machine", lambda: "elsewhere")
    with pytest.raises(LedgerError, match=r"sealed on another machine.*remove .*checkpoint"):
        check(path, "L1", 2, HASHES.get)


def test_a_machine_without_an_id_is_no_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "machine", lambda: None)
    assert check(path, "L1", 2, HASHES.get) is None


def test_cut_anywhere_it_is_damaged_and_never_taken_for_none(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(LedgerError, match="expected the last checkpoint"):
            check(path, "L1", 3, HASHES.get)


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    first = seed_at(tmp_path / "seal.key")
    assert len(first) == 32
    assert seed_at(tmp_path / "seal.key") == first
    assert (tmp_path / "seal.key").stat().st_mode & 0o777 == 0o600


def test_a_credential_comes_before_the_file(tmp_path: Path) -> None:
    handed = tmp_path / "credentials"
    handed.mkdir()
    other = seed_at(tmp_path / "made elsewhere")
    (handed / CREDENTIAL).write_bytes((tmp_path / "made elsewhere").read_bytes())
    assert seed_at(tmp_path / "seal.key", handed) == other
    assert not (tmp_path / "seal.key").exists()


@pytest.mark.parametrize(
    ("content", "mode"), [(b"", 0o600), (b"se cret!", 0o600), (b"c2hvcnQ=", 0o600), (b"A" * 44, 0o640)]
)
def test_a_key_that_cannot_be_used_is_said_and_not_shown(tmp_path: Path, content: bytes, mode: int) -> None:
    (tmp_path / "seal.key").write_bytes(content)
    (tmp_path / "seal.key").chmod(mode)
    with pytest.raises(LedgerError, match="expected a file with 32 bytes in base64") as caught:
        seed_at(tmp_path / "seal.key")
    assert not content or content.decode() not in str(caught.value)
