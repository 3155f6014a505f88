"""Journal lines become events; whatever else is a JournalFault with a bounded reason."""

import contextlib
import json
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter import events
from taximeter.clockwork import utc_ns
from taximeter.errors import JournalFault
from taximeter.journal import Position, parse_line, read_on
from taximeter.records import utc_text
from taximeter.wrap import lines
from tests.journal_samples import BOOT_ID, INSTANCE, NAME, clock, fact, mark_line, open_line, options, sample_lines

REASONS = {
    "read",
    "too_long",
    "not_json",
    "damaged",
    "newer_version",
    "not_a_fact",
    "bad_fact",
    "bad_base64",
    "bad_name",
    "bad_units",
    "bad_attributes",
    "bad_option",
}


def reason_of(line: bytes) -> str:
    with pytest.raises(JournalFault) as caught:
        parse_line(line)
    return caught.value.reason


def outcome(line: bytes) -> str:
    try:
        parse_line(line)
    except JournalFault as fault:
        return fault.reason
    return "read"


def test_an_open_line_carries_all_that_the_wrapper_was_told() -> None:
    assert parse_line(open_line()) == events.Opened(
        at_ns=1_000,
        instance=INSTANCE,
        segment=0,
        argv=("python3", "predict.py", "zwei Wörter"),
        options=events.Options(
            worker=False,
            model="acme/sdxl-lora",
            version="3f2a",
            account="cus_7",
            service_class=events.ServiceClass.PUBLIC,
            pool=None,
            prediction="0198c2f4-7b11-7cc0-9d4f-2f8a6d1b3c56",
            labels={"team": "vision"},
            units={"image": "2"},
            on_term=events.StopReason.CANCELED,
            ready="exec",
        ),
        clock=events.Clock(1_000, 1_005, 993, 1795341603000001000, BOOT_ID),
        uid=1000,
        wrapper_pid=4711,
        visible={"CUDA_VISIBLE_DEVICES": "0"},
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (fact("spawn", 7, before=5, pid=9, start=None), events.Spawned(7, 5, 9, None)),
        (fact("spawn", 7, before=5, pid=9, start=3), events.Spawned(7, 5, 9, 3)),
        (fact("ready", 7, by="notify"), events.BecameReady(7, "notify")),
        (fact("ready", 7, by="http", within=3), events.BecameReady(7, "http", 3)),
        (fact("ready_timeout", 7), events.ReadyTimedOut(7)),
        (fact("stopping", 7, by="notify"), events.Stopping(7, events.StopReason.DRAIN)),
        (
            fact("signal", 7, signal=15, kernel=False, outside=True, sender=0),
            events.Signaled(7, 15, by_kernel=False, outside=True),
        ),
        (
            fact("heartbeat", 7, clock=clock(7), usage={"cpu_ns": None, "rss_peak_bytes": 2}),
            events.Heartbeat(7, events.Clock(7, 12, 0, 1795341603000000007, BOOT_ID), events.Usage(None, 2)),
        ),
        (
            fact("exit", 7, code=None, signal=9, core=True, clock=clock(7), usage=None, error=None),
            events.Exited(7, None, 9, True, events.Clock(7, 12, 0, 1795341603000000007, BOOT_ID)),
        ),
        (
            fact("exit", 7, code=None, signal=9, core=False, clock=None, usage=None, error=None, oom="node", left=3),
            events.Exited(7, None, 9, False, None, oom=events.Oom.NODE, left=3),
        ),
        (
            fact("exit", 7, code=None, signal=9, core=False, clock=None, usage=None, error=None, oom="cosmic rays"),
            events.Exited(7, None, 9, False, None),
        ),
        (
            fact("exit", 7, code=127, signal=None, core=False, clock=None, usage=None, error="not found"),
            events.Exited(7, 127, None, False, None, error="not found"),
        ),
        (
            fact("heartbeat", 7, clock=clock(7) | {"took": 3, "utc_error": 90}),
            events.Heartbeat(7, events.Clock(7, 12, 0, 1795341603000000007, BOOT_ID, 3, 90)),
        ),
        (
            fact("heartbeat", 7, clock=clock(7) | {"took": 3, "utc_error": None}),
            events.Heartbeat(7, events.Clock(7, 12, 0, 1795341603000000007, BOOT_ID, 3)),
        ),
        (mark_line(7, {"mark": "ready"}), events.Marked(7, events.ReadyMark())),
        (mark_line(7, b"junk"), events.BadMark(7, "not_json")),
    ],
)
def test_a_fact_becomes_its_event(line: bytes, event: events.Event) -> None:
    assert parse_line(line) == event


def test_unknown_keys_are_ignored_so_that_a_younger_wrapper_can_add_some() -> None:
    assert parse_line(fact("ready", 7, by="exec", mood={"deep": [1, 2]})) == events.BecameReady(7, "exec")


@pytest.mark.parametrize("value", [True, 1.0, "7", None, -1, 2**60, 2**63, [7]])
def test_a_time_is_an_integer_that_a_monotonic_clock_may_reach_and_nothing_like_one(value: object) -> None:
    assert reason_of(json.dumps({"v": 1, "f": "ready_timeout", "t": value}).encode()) == "bad_fact"


def test_the_largest_time_is_still_one() -> None:
    assert parse_line(fact("ready_timeout", 2**60 - 1)) == events.ReadyTimedOut(2**60 - 1)


def test_an_opening_names_the_offsets_of_its_time_namespace() -> None:
    opened = parse_line(open_line(timens={"monotonic": -5, "boottime": 7}))
    assert isinstance(opened, events.Opened)
    assert opened.timens == events.TimeOffsets(-5, 7)


@pytest.mark.parametrize("timens", [{"monotonic": 2**61, "boottime": 0}, {"monotonic": 1}, [1, 2], {"boottime": "1"}])
def test_offsets_that_are_none_are_refused(timens: object) -> None:
    assert reason_of(open_line(timens=timens)) == "bad_fact"


def test_an_opening_names_the_pid_namespace_that_its_pids_are_of() -> None:
    opened = parse_line(open_line(pidns="pid:[4026532177]"))
    assert isinstance(opened, events.Opened)
    assert opened.pid_namespace == "pid:[4026532177]"
    assert reason_of(open_line(pidns="x" * 65)) == "bad_fact"


@pytest.mark.parametrize("beside", [{"realtime": 2**62}, {"monotonic": 2**60}, {"boottime": 2**60}])
def test_a_clock_that_no_calendar_reaches_is_refused_and_cannot_overflow_a_record(beside: dict[str, int]) -> None:
    assert reason_of(open_line(clock=clock(1_000) | beside)) == "bad_fact"


def test_the_last_instant_of_the_last_clock_is_a_time_of_64_bits() -> None:
    line = open_line(clock=clock(1_000) | {"monotonic": 0, "realtime": 2**62 - 1})
    opened = parse_line(line)
    assert isinstance(opened, events.Opened)
    assert utc_text(utc_ns(opened, 2**60 - 1)).startswith("2152-")


def test_the_processor_time_of_many_cores_may_exceed_any_clock() -> None:
    beat = parse_line(fact("heartbeat", 7, clock=clock(7), usage={"cpu_ns": 2**62}))
    assert isinstance(beat, events.Heartbeat)
    assert beat.usage.cpu_ns == 2**62


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b'{"v":1,"f":"ready_timeout","t":7} x', "not_json"),
        (b'{"v":1,"f":"ready_timeout","t":NaN}', "not_json"),
        (b'{"v":1,"f":"ready_timeout","t":7,"x":' + b"[" * 60_000 + b"}", "not_json"),
        (b"[]", "not_a_fact"),
        (b'"v"', "not_a_fact"),
        (b'{"f":"ready_timeout","t":7}', "not_a_fact"),
        (b'{"v":true,"f":"ready_timeout","t":7}', "not_a_fact"),
        (b'{"v":0,"f":"ready_timeout","t":7}', "not_a_fact"),
        (b'{"v":2,"f":"ready_timeout","t":7}', "newer_version"),
        (b'{"v":2,"f":"something new","t":"other"}', "newer_version"),
        (b'{"v":1,"f":"something new","t":7}', "bad_fact"),
        (b'{"v":1,"f":"ready_timeout","t":1e3}', "bad_fact"),
        (b'{"v":1,"f":"ready_timeout","t":' + b"9" * 5_000 + b"}", "bad_fact"),
        (b'{"v":1,"f":"ready_timeout"}', "bad_fact"),
        (fact("mark", 7, raw="no base64!"), "bad_base64"),
        (fact("mark", 7, raw="Zm9"), "bad_base64"),
        (fact("mark", 7, raw="Wörter"), "bad_base64"),
        (open_line(options=options(units={"image": -1})), "bad_units"),
        (open_line(options=options(prediction="p\n1")), "bad_name"),
        (open_line(options=options(account="\x1b[31mred")), "bad_name"),
        (open_line(options=options(model="m" * 257)), "bad_name"),
        (open_line(options=options(on_term="later")), "bad_option"),
        (open_line(options=options(**{"class": "royal"})), "bad_option"),
        (open_line(options=options(labels={str(number): "" for number in range(65)})), "bad_attributes"),
        (b'{"v":1,"f":"ready","t":7,"by":"' + b"x" * 65_536 + b'"}', "too_long"),
    ],
)
def test_a_line_that_is_no_fact_is_a_fault_that_says_why(line: bytes, reason: str) -> None:
    assert reason_of(line) == reason


def test_a_fault_shows_the_beginning_of_the_line_only() -> None:
    with pytest.raises(JournalFault, match=r"cannot read journal line b'x+\.\.\.': expected one JSON object") as caught:
        parse_line(b"x" * 60_000)
    assert len(str(caught.value)) < 200


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_journal_fault(line: bytes) -> None:
    assert outcome(line) in REASONS


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sample_lines()), st.data())
def test_no_value_in_the_place_of_another_raises_anything_but_a_journal_fault(line: bytes, data: st.DataObject) -> None:
    told = json.loads(line)
    key = data.draw(st.sampled_from(sorted(told)))
    if isinstance(told[key], dict) and data.draw(st.booleans()):
        told, whole = told[key], told
        key = data.draw(st.sampled_from(sorted(told)))
    else:
        whole = told
    told[key] = data.draw(_JSON)
    assert outcome(json.dumps(whole).encode()) in REASONS


@given(st.sampled_from(sample_lines()), st.data())
def test_no_flipped_bit_raises_anything_but_a_journal_fault(line: bytes, data: st.DataObject) -> None:
    damaged = bytearray(line)
    damaged[data.draw(st.integers(0, len(line) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert outcome(bytes(damaged)) in REASONS


# --- Checksums ---


def sealed_lines() -> list[bytes]:
    """Every kind of fact as a wrapper writes it, without its newline."""
    return [lines.sealed(line[:-1])[:-1] for line in sample_lines()]


@pytest.mark.parametrize("at", range(len(sample_lines())))
def test_a_line_with_its_checksum_says_what_it_says_without(at: int) -> None:
    assert parse_line(sealed_lines()[at]) == parse_line(sample_lines()[at])


def test_a_checksum_is_that_of_zlib_over_what_is_before_its_key() -> None:
    line = lines.sealed(b'{"v":1,"f":"ready_timeout","t":7')
    assert line == b'{"v":1,"f":"ready_timeout","t":7,"c":"%08x"}\n' % zlib.crc32(b'{"v":1,"f":"ready_timeout","t":7')


@pytest.mark.parametrize("at", range(len(sample_lines())))
def test_law_a_line_with_any_one_bit_turned_says_what_it_said_or_nothing(at: int) -> None:
    line = sealed_lines()[at]
    said = parse_line(line)
    for bit in range(8 * len(line)):
        turned = bytearray(line)
        turned[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(JournalFault):
            assert parse_line(bytes(turned)) == said, f"bit {bit}"


def test_law_a_journal_with_any_one_bit_turned_says_some_of_what_it_said_in_its_order(tmp_path: Path) -> None:
    path, directory_fd = tmp_path / NAME, os.open(tmp_path, os.O_RDONLY)
    content = b"".join(line + b"\n" for line in sealed_lines()[2:7])

    def read() -> tuple[events.Event, ...]:
        return read_on(directory_fd, INSTANCE, Position(), None).events

    path.write_bytes(content)
    path.chmod(0o640)
    said = read()
    assert len(said) == 5
    for bit in range(8 * len(content)):
        turned = bytearray(content)
        turned[bit // 8] ^= 1 << bit % 8
        path.write_bytes(turned)
        rest = iter(said)
        assert all(event in rest for event in read() if event != events.Unread()), f"bit {bit}"
    os.close(directory_fd)


def test_a_line_that_does_not_fit_its_checksum_is_damaged() -> None:
    line = lines.sealed(b'{"v":1,"f":"ready_timeout","t":7')[:-1]
    assert reason_of(line.replace(b":7,", b":8,")) == "damaged"
    assert reason_of(line.replace(b'"v":1', b'"v":3')) == "damaged"
