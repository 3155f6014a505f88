"""The door's own life: readers that hang, crash, babble or cannot start; whatever happens, it answers in time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.config import load
from taximeter.errors import HardwareError
from taximeter.hardware import host
from taximeter.hardware.inventory import Device, Host
from taximeter.hardware.nvml import door as doors
from taximeter.hardware.nvml.door import MOST_HUNG, Door, read_devices
from taximeter.hardware.nvml.protocol import Reading, Report, parse, write
from taximeter.hardware.nvml.reader import COMMAND
from taximeter.hardware.samples import DeviceSample, Samples
from taximeter.hardware.tiers import place_node
from tests.hardware.seeing import PATIENCE_S, seen
from tests.nvml_standin import LOST, Scenario, h100s

#: A reader in Python; what it is to do for each line that comes in.
_LOOP = "import os, sys, time\nfor line in sys.stdin.buffer:\n    n = int(line.split()[0])\n    "


def talk(command: Sequence[str], deadline_s: float = PATIENCE_S, rounds: int = 1) -> Door:
    """What a door says after some rounds with another reader."""

    async def all_rounds() -> None:
        for _ in range(rounds):
            await door.ask()
        door.close()
        assert await door.gone(PATIENCE_S)

    door = Door(deadline_s, command)
    anyio.run(all_rounds)
    return door


def reader(body: str) -> tuple[str, ...]:
    return (sys.executable, "-c", _LOOP + body)


def test_a_driver_that_hangs_is_left_behind_at_the_deadline(tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 2)
    with seen(scenario, nvml_library) as sight:
        sight.ask()
        sight.door.deadline_s = 1.0  # from now on: how long a reader takes to start is another matter
        scenario.slow(30_000, uuid="GPU-1").play()
        began_s = time.monotonic()
        assert sight.try_to_ask() is None
        assert time.monotonic() - began_s < 10
        assert sight.door.trouble == "NVML did not answer within 1 s: expected a driver that answers; see its log"
        assert sight.door.late == 1


def test_a_reader_is_replaced_only_after_a_pause_that_doubles() -> None:
    second = 0
    door = Door(PATIENCE_S, ("/nowhere/python",), lambda: second)
    tried = []
    for second in range(40):
        door.trouble = None
        assert anyio.run(door.ask) is None
        if door.trouble:
            tried.append(second)
    assert tried == [0, 1, 3, 7, 15, 31]


def test_no_more_readers_are_started_while_so_many_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    # What hangs in the driver is not even ended by SIGKILL: here, because none is sent.
    monkeypatch.setattr(doors, "_FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr("taximeter.hardware.nvml.reader.signal.SIGKILL", signal.SIGCONT)
    door = Door(0.05, (sys.executable, "-c", "import time; time.sleep(30)"))
    hung = []
    try:
        for _ in range(MOST_HUNG + 3):
            assert anyio.run(door.ask) is None
        hung = [one.pid for one in door._hung]
        assert (door.spawned, door.hung) == (MOST_HUNG, MOST_HUNG)
        assert door.trouble == f"{MOST_HUNG} NVML readers hang in the driver: no more are started until one ends"
    finally:
        for pid in hung:
            os.kill(pid, 9)
    assert anyio.run(door.gone, PATIENCE_S)


def test_one_slow_call_after_another_ends_the_round_before_its_deadline(tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 8)
    with seen(scenario, nvml_library) as sight:
        sight.ask()
        sight.door.deadline_s = 3.0
        scenario.slow(50).play()
        first, second = sight.sample(), sight.sample()
        assert sight.door.late == 0
    assert 1 <= len(first.devices) < 8
    assert {device.uuid for device in first.devices} != {device.uuid for device in second.devices}


def test_a_version_mismatch_is_left_to_a_new_process(tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 1).fail(18, "nvmlInitWithFlags").play()
    with seen(scenario, nvml_library) as sight:
        report = sight.ask()
        assert report.replace
        assert sight.door.trouble == "NVML cannot be initialised: RM has detected an NVML/RM version mismatch."
        scenario.more.clear()
        scenario.play()
        sight.door._not_before_s = 0.0
        sight.ask()
        assert sight.door.spawned == 2
    assert [device.uuid for device in sight.reading.devices] == ["GPU-0"]


@pytest.mark.parametrize("code", [2, 4, 17, 999, 4711])
def test_where_nvml_will_not_start_the_devices_are_not_known(code: int, tmp_path: Path, nvml_library: Path) -> None:
    with seen(h100s(tmp_path / "scenario", 1).fail(code, "nvmlInitWithFlags").play(), nvml_library) as sight:
        sight.ask()
    assert (sight.reading.devices, sight.reading.known) == ((), False)
    assert sight.reading.problems[0].startswith("NVML cannot be initialised: ")


def test_a_driver_that_kills_who_asks_it_kills_only_the_reader(tmp_path: Path, nvml_library: Path) -> None:
    with seen(h100s(tmp_path / "scenario", 1).line("kill call=nvmlInitWithFlags").play(), nvml_library) as sight:
        assert sight.try_to_ask() is None
        assert sight.door.trouble in (
            "the NVML reader ended by SIGABRT: expected a report",
            "the NVML reader closed its pipe: expected a report",  # it ends in this very moment
        )


def test_a_reader_that_cannot_be_started_is_a_trouble() -> None:
    assert talk(("/nowhere/python",)).trouble == (
        "cannot start the NVML reader /nowhere/python: No such file or directory"
    )


_FEW = """
import os, resource
from taximeter.errors import HardwareError
from taximeter.hardware.nvml.reader import COMMAND, spawn
before = os.listdir("/proc/self/fd")
resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + 2, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    spawn(COMMAND)
except HardwareError as error:
    print(error)
print(os.listdir("/proc/self/fd") == before)
"""


def test_a_reader_for_whose_pipes_no_descriptors_are_left_leaks_none() -> None:
    done = subprocess.run([sys.executable, "-c", _FEW], capture_output=True, text=True, check=True, timeout=60)
    said = "cannot start the NVML reader: expected two pipes (Too many open files)"
    assert done.stdout.splitlines() == [said, "True"]


def test_a_reader_that_writes_without_end_is_stopped() -> None:
    trouble = talk(("/usr/bin/yes",), rounds=1).trouble
    assert trouble is not None
    assert trouble.startswith("cannot read what the NVML reader wrote: expected a report")
    trouble = talk(reader("os.write(1, b'x' * (20 << 20))")).trouble
    assert trouble == "the NVML reader wrote without end: expected a line of at most 16777216 bytes"


@pytest.mark.parametrize(
    "body",
    [
        "os.write(1, b'{}\\n')",
        "os.write(1, b'\\xff\\n')",
        "os.write(1, b'{\"number\":%d}\\n' % (n + 1))",  # the answer to another question
        "os.write(1, b'{\"number\":%d}\\n{}\\n' % n)",
        "os.close(1); time.sleep(30)",
        "sys.exit(3)",
    ],
)
def test_a_reader_that_babbles_is_replaced(body: str) -> None:
    door = talk(reader(body))
    assert door.trouble is not None
    assert "expected" in door.trouble


def test_a_reader_ends_with_its_door() -> None:
    read, write_ = os.pipe()
    process = subprocess.Popen(COMMAND, stdin=read, stdout=subprocess.PIPE)
    os.close(read)
    os.close(write_)
    assert process.wait(PATIENCE_S) == 0
    assert process.stdout is not None
    process.stdout.close()


def test_a_library_that_prints_is_not_taken_for_the_reader(tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 1)
    scenario.log = Path("/dev/stdout")
    scenario.play()
    with seen(scenario, nvml_library) as sight:
        sight.ask()
    assert [device.uuid for device in sight.reading.devices] == ["GPU-0"]


def test_asking_once_tells_the_devices_or_why_not(
    tmp_path: Path, nvml_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        h100s(tmp_path / "scenario", 2).fail(LOST, uuid="GPU-1").play().environment(nvml_library).items()
    ):
        monkeypatch.setenv(name, value)
    reading = anyio.run(read_devices, PATIENCE_S)
    assert [device.uuid for device in reading.devices] == ["GPU-0", "unknown-1"]
    catalogue = load(None, {"TAXIMETER_STATE_DIR": "/nowhere"}).catalogue
    assert place_node(reading.inventory(Host(32, 256 << 30)), catalogue).tier == "unknown"
    Scenario(tmp_path / "scenario").slow(30_000, "nvmlInitWithFlags").play()
    assert anyio.run(read_devices, 0.5).known is False


# --- What is believed of what a reader writes ---

_REPORT = Report(
    7,
    Reading((Device("GPU-0", "NVIDIA H100 80GB HBM3", 1 << 36),), "595.45.04"),
    Samples(100, (DeviceSample("GPU-0", 101, 0.5),)),
    {"unknown": 2},
)


def test_a_report_is_read_as_it_was_written() -> None:
    assert parse(write(_REPORT), 7, 50, 150) == _REPORT


@pytest.mark.parametrize(
    ("asked_ns", "now_ns", "number"), [(102, 150, 7), (50, 100, 7), (50, 150, 8)], ids=["old", "future", "another"]
)
def test_a_report_of_another_moment_or_question_is_not_believed(asked_ns: int, now_ns: int, number: int) -> None:
    with pytest.raises(HardwareError, match="cannot believe what the NVML reader wrote"):
        parse(write(_REPORT), number, asked_ns, now_ns)


@pytest.mark.parametrize(
    "report",
    [
        Report(7, errors={"no such error": 1}),
        Report(7, errors={"unknown": -1}),
        Report(7, Reading((Device("GPU-0", "a", 1), Device("GPU-0", "b", 1)))),
        Report(7, Reading((Device("GPU-0", "a" * 401, 1),))),
        Report(7, Reading(problems=("p",) * 3000)),
        Report(7, samples=Samples(100, tuple(DeviceSample(str(n), 100) for n in range(600)))),
    ],
)
def test_a_report_that_cannot_be_is_not_believed(report: Report) -> None:
    with pytest.raises(HardwareError, match="cannot believe what the NVML reader wrote"):
        parse(write(report), 7, 50, 150)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_GOOD = write(_REPORT)


def trouble_with(line: bytes) -> str:
    """Why a line is no report on round 7; any other error is the test's."""
    try:
        report = parse(line, 7, 50, 150)
    except HardwareError as error:
        return str(error)
    return "none" if report.number == 7 else "another round"


@given(
    st.binary(max_size=200)
    | st.builds(lambda at, what: _GOOD[:at] + what + _GOOD[at + len(what) :], st.integers(0, len(_GOOD)), st.binary())
    | st.builds(lambda at: _GOOD[:at], st.integers(0, len(_GOOD)))
)
def test_whatever_is_written_is_a_report_or_a_trouble_in_words(line: bytes) -> None:
    assert trouble_with(line).startswith(("none", "cannot read what", "cannot believe what"))


@given(st.sampled_from(["number", "reading", "samples", "errors", "replace"]), _JSON)
def test_whatever_stands_where_a_value_should_is_a_value_or_a_trouble(key: str, value: object) -> None:
    line = json.dumps({**json.loads(_GOOD), key: value}).encode()
    assert trouble_with(line).startswith(("none", "cannot read what", "cannot believe what"))


def test_the_agent_itself_never_loads_pynvml() -> None:
    program = "import sys, taximeter.agent.service; print('pynvml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


def test_the_host_tells_its_cpus_and_memory() -> None:
    found = host.read_host()
    assert found.cpus == os.cpu_count()
    assert found.memory_bytes > 1 << 27
    assert found.architecture == os.uname().machine
