"""`taximeter export`: the stored bytes, or CSV, in a file that is whole or not there."""

import csv
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from taximeter.cli.export import whole
from taximeter.cli.records import CSV_COLUMNS
from taximeter.ledger.reader import LedgerReader
from tests.cli.node import taximeter


def stored(state: Path) -> list[bytes]:
    with LedgerReader(state / "ledger.db") as reader:
        return list(reader.records())


def test_a_file_has_the_bytes_that_the_hashes_cover(booked: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.ndjson"
    answer = taximeter("export", "-o", str(file))
    assert (answer.code, answer.out) == (0, "")
    assert answer.err == f"{len(stored(booked))} records in {file}\n"
    assert file.read_bytes().splitlines() == stored(booked)
    assert file.stat().st_mode & 0o007 == 0


def test_without_a_file_it_goes_to_standard_output(booked: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "taximeter.cli", "export"], capture_output=True, timeout=60)
    assert done.stdout.splitlines() == stored(booked)


def test_csv_has_a_line_for_every_record(booked: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    assert taximeter("export", "--format", "csv", "-o", str(file)).code == 0
    with file.open(newline="") as lines:
        rows = list(csv.reader(lines))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [row[0] for row in rows[1:]] == [str(json.loads(body)["data"]["ledger"]["seq"]) for body in stored(booked)]


def test_it_can_be_narrowed_from_both_ends(booked: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.ndjson"
    times = sorted({json.loads(body)["time"] for body in stored(booked)})
    taximeter("export", "-o", str(file), "--since", times[0], "--until", times[-1])
    assert sorted({json.loads(line)["time"] for line in file.read_bytes().splitlines()}) == times[:-1]


def test_of_what_fails_nothing_is_left(tmp_path: Path) -> None:
    file = tmp_path / "out.ndjson"
    file.write_text("the one before")
    with pytest.raises(OSError, match="read"), whole(file) as fresh:
        fresh.write(b"half") and fresh.read()
    assert file.read_text() == "the one before"
    assert os.listdir(tmp_path) == ["out.ndjson"]


def test_a_folder_that_is_not_there_is_said(booked: Path, tmp_path: Path) -> None:
    answer = taximeter("export", "-o", str(tmp_path / "no" / "out.ndjson"))
    assert answer.code == 1
    assert "No such file or directory" in answer.err


def test_who_looks_sees_how_far_it_is(booked: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "taximeter.cli", "export", "-o", str(tmp_path / "out.ndjson")]
    with subprocess.Popen(words, stderr=theirs) as process:
        os.close(theirs)
        assert process.wait(60) == 0
    assert b"exporting" in os.read(ours, 65_536)
    os.close(ours)


@pytest.mark.parametrize("words", [["--format", "xml"], ["--until", "yesterday"], ["--type", "bill"]])
def test_what_cannot_be_asked_for_is_said(words: list[str]) -> None:
    assert taximeter("export", *words).code == 2
