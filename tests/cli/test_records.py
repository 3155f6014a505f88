"""`taximeter records`: the ledger as a table, as lines of JSON, as CSV."""

import csv
import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer

from taximeter.cli.records import CSV_COLUMNS, since_text
from taximeter.ledger.reader import LedgerReader
from taximeter.records import PLATFORM, RecordType, UsageRecord
from tests.cli import node
from tests.cli.node import instance, on_a_terminal, taximeter

NOW_NS = int(datetime(2026, 11, 22, 12, 0, tzinfo=UTC).timestamp()) * 1_000_000_000


def stored(state: Path) -> list[bytes]:
    with LedgerReader(state / "ledger.db") as reader:
        return list(reader.records())


def printed(*words: str) -> list[dict[str, object]]:
    return [json.loads(line)["data"] for line in taximeter("records", "--json", *words).lines]


def test_lines_of_json_are_the_bytes_that_the_hashes_cover(booked: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "taximeter.cli", "records", "--json"], capture_output=True, timeout=60)
    assert done.stdout.splitlines() == stored(booked)


def test_a_table_has_a_line_for_each_record_below_its_head(booked: Path) -> None:
    answer = taximeter("records", columns=140)
    assert (answer.code, answer.err) == (0, "")
    assert answer.lines[0].split()[:3] == ["#", "2026-11-22", "type"]
    assert answer.lines[1].split() == [
        *("1", "10:00:00", "pred", "p-one", "succeeded", "cus_7", "acme/sdxl-lora", "cpu", "412", "ms", "0.0000412"),
    ]
    assert len(answer.lines) == 1 + len(stored(booked))


def test_a_fact_is_named_by_what_it_says(state: Path) -> None:
    content = {"fact": "config", "hash": f"sha256:{'ab' * 32}", "content": {}}
    node.write(state, (UsageRecord("L-00000000", RecordType.FACT, PLATFORM, 0, content),))
    lines = taximeter("records", columns=140).lines
    assert lines[1].split() == ["1", "00:00:00", "fact", "config", "sha256:abababababab…", *"––––––"]


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_narrow_table_leaves_columns_out_and_never_cuts_an_id_or_an_amount(booked: Path, columns: int) -> None:
    lines = taximeter("records", columns=columns).lines
    assert any(instance(1) in line for line in lines) == (columns > 40)
    assert all("…" not in line for line in lines)
    assert columns < 60 or max(len(line) for line in lines) <= columns


def test_where_there_is_no_room_ids_go_before_when_how_and_how_much(booked: Path) -> None:
    lines = taximeter("records", columns=50).lines
    assert max(map(len, lines)) <= 50
    assert "2026-11-22" in lines[0]
    assert all(name in lines[0].split() for name in ("status", "time", "USD"))
    assert "prediction or instance" not in lines[0]
    assert "10:00:00" in lines[1]
    assert {"succeeded", "0.0000412", "412"} <= set(lines[1].split())


def test_amounts_stand_with_their_points_below_each_other(booked: Path) -> None:
    lines = taximeter("records", columns=80).lines[1:]
    points = {line.rindex(".") for line in lines if "0." in line}
    assert len(points) == 1


def test_csv_has_every_column_for_every_record(booked: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(taximeter("records", "--format", "csv").out)))
    assert len(rows) == len(stored(booked))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert rows[0]["amount"] == "0.0000412"
    assert rows[0]["active_ns"] == "412000000"
    assert rows[0]["time"] == "2026-11-22T10:00:00.001000000Z"
    assert rows[0]["final"] == "true"


def test_a_negative_amount_stays_a_number_in_csv(booked: Path) -> None:
    rows = csv.DictReader(io.StringIO(taximeter("records", "--format", "csv", "--type", "correction").out))
    assert [row["amount"] for row in rows] == ["-0.0002"]


def test_a_spreadsheet_is_not_made_to_compute_by_an_id(hostile: Path) -> None:
    out = taximeter("records", "--format", "csv").out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert all(not cell.startswith(("=", "+", "@")) for row in csv.reader(io.StringIO(out)) for cell in row)


def test_hostile_ids_are_shown_and_not_obeyed_in_a_table(hostile: Path) -> None:
    lines = taximeter("records", columns=400).lines
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert "[bold]x[/bold]" in lines[1]


@pytest.mark.parametrize(
    ("words", "predictions"),
    [
        (["--account", "cus_7", "--type", "prediction"], ["p-one", "p1", "p-private"]),
        (["--model", "acme/sdxl-lora", "--type", "prediction"], ["p-one"]),
        (["--prediction", "p2"], ["p2"]),
        (["--instance", instance(2), "--type", "prediction"], ["p1", "p2"]),
        (["--root", "p1"], ["p1", "p2"]),
        (["--limit", "2", "--type", "prediction"], ["p-unpriced", "p-killed"]),
        (["--since", "2026-11-22T10:00:02Z", "--type", "prediction"], ["p-aborted"]),
        (["--since", "1h"], []),
        (["--account", "nobody"], []),
    ],
)
def test_records_are_chosen_by_what_was_asked(booked: Path, words: list[str], predictions: list[str]) -> None:
    assert [data["prediction"] for data in printed(*words)] == predictions


def test_a_table_of_nothing_is_said_to_be_nothing(booked: Path) -> None:
    answer = taximeter("records", "--account", "nobody")
    assert (answer.code, answer.out, answer.err) == (0, "", "no records\n")


def test_a_reader_that_goes_away_ends_it_silently(booked: Path) -> None:
    program = [sys.executable, "-m", "taximeter.cli", "records", "--format", "ndjson"]
    for _ in range(3):
        writer = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.close()
        _, err = writer.communicate(timeout=60)
        assert err == b""


def test_the_end_of_a_long_ledger_is_all_that_is_read_for_a_table(booked: Path) -> None:
    newest = [str(json.loads(body)["data"]["ledger"]["seq"]) for body in stored(booked)][-3:]
    lines = taximeter("records", "--limit", "3", columns=140).lines[1:]
    assert [line.split()[0] for line in lines] == newest


def test_lines_of_json_command_no_terminal(hostile: Path) -> None:
    printed = on_a_terminal("records", "--json").replace("\r\n", "\n")
    assert all(char.isprintable() or char == "\n" for char in printed)
    assert [json.loads(line) for line in printed.splitlines()] == [json.loads(body) for body in stored(hostile)]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("90s", "2026-11-22T11:58:30.000000000Z"),
        ("2h", "2026-11-22T10:00:00.000000000Z"),
        ("7d", "2026-11-15T12:00:00.000000000Z"),
        ("2026-11-01 10:00", "2026-11-01T10:00:00.000000000Z"),
        ("2026-11-01T10:00:00.123456789", "2026-11-01T10:00:00.123456789Z"),
        ("2026-11-01", "2026-11-01T00:00:00.000000000Z"),
        ("2026-11-01T10:00:00Z", "2026-11-01T10:00:00.000000000Z"),
        ("2026-11-01T10:00:00.5+02:00", "2026-11-01T08:00:00.500000000Z"),
    ],
)
def test_a_time_may_be_said_shortly(said: str, meant: str) -> None:
    assert since_text(said, NOW_NS) == meant


@pytest.mark.parametrize(
    "said",
    ["yesterday", "", "-1h", "1y", "999999w", "1_0s", "٢h", "2026-13-01", "2026-11-01Z", "2026-11-01T10", "0001-01-01"],
)
def test_what_is_no_time_is_a_usage_error(said: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected 90s, 15m, 2h, 7d"):
        since_text(said, NOW_NS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "xml"], "cannot use 'xml': expected one of table, ndjson, csv"),
        (
            ["--type", "guess"],
            "cannot use 'guess': expected one of prediction, instance, correction, fact, threshold, grant",
        ),
        (["--limit", "0"], "cannot use '0': expected a whole number from 1"),
        (["--limit", "ten"], "cannot use 'ten': expected a whole number from 1"),
    ],
)
def test_a_wrong_value_is_told_in_our_words(words: list[str], said: str) -> None:
    assert f"Invalid value for '{words[0]}': {said}\n" in taximeter("records", *words).err


@pytest.mark.parametrize("words", [["--since", "x"], ["--type", "x"], ["--format", "x"], ["--limit", "0"], ["--nope"]])
def test_a_wrong_option_is_a_usage_error(words: list[str]) -> None:
    answer = taximeter("records", *words)
    assert (answer.code, answer.out) == (2, "")
    assert "Try 'taximeter records --help'" in answer.err
