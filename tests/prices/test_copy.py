"""The last good copy of a price list: there after any crash, and whole."""

from pathlib import Path

import pytest

from taximeter.prices import Copy, read_copy, write_copy

COPY = Copy("https://platform.example/v1/models", '{"data":[]}', 5, '"e1"', "Thu, 26 Nov 2026 07:00:00 GMT")


def test_what_was_kept_is_read_back(tmp_path: Path) -> None:
    write_copy(tmp_path / "list.json", COPY)
    assert read_copy(tmp_path / "list.json") == COPY


def test_where_nothing_was_kept_there_is_nothing(tmp_path: Path) -> None:
    assert read_copy(tmp_path / "list.json") is None


def test_it_replaces_the_one_before_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / ".list.json.new").write_text("half of one, from a crash")
    write_copy(tmp_path / "list.json", COPY)
    assert [path.name for path in tmp_path.iterdir()] == ["list.json"]
    assert (tmp_path / "list.json").stat().st_mode & 0o007 == 0


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"url":1}', '{"url":"u","body":"b","since_utc_ns":"1"}', "[" * 9999]
)
def test_what_is_damaged_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(ValueError, match="expected the copy of a price list"):
        read_copy(tmp_path / "list.json")


def test_a_copy_cut_anywhere_is_damaged(tmp_path: Path) -> None:
    write_copy(tmp_path / "list.json", COPY)
    whole = (tmp_path / "list.json").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "list.json").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="expected the copy"):
            read_copy(tmp_path / "list.json")


def test_it_is_called_by_what_it_says() -> None:
    assert COPY.tag == Copy("other", COPY.body, 7).tag != Copy(COPY.url, "[]", 5).tag
