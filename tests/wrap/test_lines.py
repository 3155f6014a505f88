"""Facts formatted by hand, read back by json and by the journal's own reader."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter import events, wire
from taximeter.journal import parse_line
from taximeter.wrap import facts, lines, marks, opening
from taximeter.wrap.argv import Options, UsageError, parse

BOOT = "94fa3f54-a596-4f33-8555-c112ddbd1ad0"
INSTANCE = "01a20319-c917-7053-a4ae-dc26917164f2"
SURROGATES = st.characters(categories=["Cs"])
ANY_TEXT = st.text(st.characters(codec=None) | SURROGATES)


def open_line(options: Options, command: list[str], values: dict[str, str] | None = None) -> bytes:
    description = opening.describe(options, command, values or {}, lines.clock(BOOT))
    return opening.open_line(INSTANCE, 0, description, 7)


def parsed(line: bytes) -> events.Event:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return parse_line(line[:-1])


@given(st.text())
def test_a_string_reads_back_as_it_was(value: str) -> None:
    assert json.loads(lines.line_bytes(lines.text(value))) == value


@given(ANY_TEXT)
def test_what_is_no_unicode_is_replaced_and_the_rest_kept(value: str) -> None:
    expected = "".join("?" if 0xD800 <= ord(char) < 0xE000 else char for char in value)
    assert json.loads(lines.line_bytes(lines.text(value))) == expected


@given(st.dictionaries(st.text(), st.text()))
def test_an_object_reads_back_as_it_was(values: dict[str, str]) -> None:
    assert json.loads(lines.line_bytes(lines.strings(values))) == values


def test_nothing_is_null() -> None:
    assert lines.text(None) == "null"


@given(st.lists(st.text(max_size=30), min_size=1, max_size=20))
def test_a_command_of_usual_length_is_noted_whole(command: list[str]) -> None:
    assert json.loads(lines.line_bytes(lines.argv(command))) == command


@pytest.mark.parametrize(
    "command", [["x"] * 100_000, ["\0" * 200_000], ["é" * 200_000], [""] * 200_000, ["a" * 16_383, "", "b" * 9]]
)
def test_a_command_of_any_length_leaves_room_in_its_line(command: list[str]) -> None:
    assert len(open_line(Options(), command)) < wire.LINE_MAX_BYTES // 2


def test_a_cut_word_ends_in_an_ellipsis() -> None:
    assert json.loads(lines.argv(["python", "x" * 100_000]))[1].endswith("x…")


def test_the_longest_open_line_is_shorter_than_a_line_may_be() -> None:
    options, _ = parse(["true"])
    options.labels = {f"{n:0>4}": "🚕" * 80 for n in range(60)}
    for name in ("model", "version", "account", "pool", "prediction", "parent", "root"):
        setattr(options, name, "\\" * 256)
    values = dict.fromkeys(wire.ENV_VISIBLE, "\x01" * 10_000)
    line = open_line(options, ["\x01" * 100_000], values)
    assert isinstance(parsed(line), events.Opened)


def test_labels_that_are_too_much_for_one_line_are_refused() -> None:
    options = Options()
    options.labels = {f"{n}": "🚕" * 256 for n in range(64)}
    with pytest.raises(UsageError, match="shorten the labels"):
        opening.format_options(options)


def test_an_open_line_says_everything_that_was_asked_for() -> None:
    said = {"model": "m", "version": "v", "account": "a", "class": "private", "pool": "p", "prediction": "i"}
    more = {"parent": "u", "root": "r", "label": "k=w", "unit": "image=2", "on-term": "drain", "ready": "notify"}
    options, command = parse([*(f"--{name}={value}" for name, value in (said | more).items()), "true", "x"])
    event = parsed(open_line(options, command, {"CUDA_VISIBLE_DEVICES": "0,1", "HOME": "/x"}))
    assert isinstance(event, events.Opened)
    assert event.options == events.Options(
        worker=False,
        model="m",
        version="v",
        account="a",
        service_class=events.ServiceClass.PRIVATE,
        pool="p",
        prediction="i",
        parent="u",
        root="r",
        labels={"k": "w"},
        units={"image": "2"},
        on_term=events.StopReason.DRAIN,
        ready="notify",
    )
    assert (event.argv, event.visible, event.instance) == (("true", "x"), {"CUDA_VISIBLE_DEVICES": "0,1"}, INSTANCE)


@pytest.mark.parametrize(("link", "said"), [("pid:[4026531836]", None), ("pid:[4026532177]", "pid:[4026532177]")])
def test_whose_pids_are_not_the_machines_says_so(link: str, said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening.posix, "readlink", lambda path: link)
    event = parsed(open_line(Options(), ["true"]))
    assert isinstance(event, events.Opened)
    assert event.pid_namespace == said


def test_a_trace_is_kept() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    event = parsed(open_line(Options(), ["true"], {"TRACEPARENT": trace}))
    assert isinstance(event, events.Opened)
    assert event.traceparent == trace


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (facts.spawn(5, 3, 9, 77), events.Spawned(5, 3, 9, 77)),
        (facts.spawn(5, 3, 9, None), events.Spawned(5, 3, 9, None)),
        (facts.ready(5, "exec"), events.BecameReady(5, "exec")),
        (lines.fact("ready_timeout", 5), events.ReadyTimedOut(5)),
        (lines.fact("stopping", 5, ',"by":"notify"'), events.Stopping(5, events.StopReason.DRAIN)),
        (
            facts.signal(5, 15, kernel=False, sender=9, outside=True),
            events.Signaled(5, 15, by_kernel=False, outside=True, sender=9),
        ),
        (facts.signal(5, 2, kernel=True, sender=0, outside=True), events.Signaled(5, 2, by_kernel=True, outside=True)),
    ],
)
def test_a_fact_is_read_as_the_event_it_means(line: bytes, event: events.Event) -> None:
    assert parsed(line) == event


def test_clocks_say_how_long_their_reading_took() -> None:
    clock = json.loads(lines.clock(BOOT))
    assert 0 < clock["took"] < 10_000_000_000
    assert "utc_error" not in clock


@pytest.mark.parametrize("error_ns", [7_000, None])
def test_clocks_say_how_far_off_the_calendar_may_be_where_that_was_asked(error_ns: int | None) -> None:
    assert json.loads(lines.clock(BOOT, lambda: error_ns))["utc_error"] == error_ns


def test_clocks_are_read_again_if_something_came_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0, 50_000_000, 50_001_000])
    monkeypatch.setattr(lines.time, "monotonic_ns", lambda: next(ticks))
    clock = json.loads(lines.clock(BOOT))
    assert (clock["monotonic"], clock["took"]) == (50_000_000, 1_000)


def test_clocks_are_not_read_again_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 10**12, 10**9))
    monkeypatch.setattr(lines.time, "monotonic_ns", lambda: next(ticks))
    assert json.loads(lines.clock(BOOT))["took"] == 10**9


def test_a_heartbeat_carries_the_clock_and_the_usage() -> None:
    event = parsed(facts.heartbeat(5, lines.clock(BOOT), facts.usage(10, None)))
    assert isinstance(event, events.Heartbeat)
    assert (event.at_ns, event.clock.boot_id, event.usage) == (5, BOOT, events.Usage(10, None))


@pytest.mark.parametrize(
    ("status", "code", "number", "core"),
    [
        (0, 0, None, False),
        (3 << 8, 3, None, False),
        (255 << 8, 255, None, False),
        (15, None, 15, False),
        (139, None, 11, True),
    ],
)
def test_an_exit_says_how(status: int, code: int | None, number: int | None, core: bool) -> None:
    event = parsed(facts.ended(5, lines.clock(BOOT), status, facts.usage(1, 2), ""))
    assert isinstance(event, events.Exited)
    assert (event.code, event.signal, event.core_dumped) == (code, number, core)


def test_lines_that_found_no_room_are_counted_in_the_exit() -> None:
    assert json.loads(facts.ended(5, lines.clock(BOOT), 0, "null", facts.known(4, None, None)))["dropped"] == 4


def test_a_command_that_never_started_says_why() -> None:
    event = parsed(facts.failure(5, lines.clock(BOOT), 127, 'cannot run "x"'))
    assert isinstance(event, events.Exited)
    assert (event.code, event.error) == (127, 'cannot run "x"')


@given(st.binary(min_size=1, max_size=200))
def test_a_mark_is_kept_as_it_came(raw: bytes) -> None:
    assert json.loads(marks.format_marks(5, [raw]))["raw"]
    assert isinstance(parsed(marks.format_marks(5, [raw])), events.BadMark)


def test_a_mark_is_read_as_the_mark_it_means() -> None:
    event = parsed(marks.format_marks(5, [b'{"mark":"ready"}']))
    assert event == events.Marked(5, events.ReadyMark())
