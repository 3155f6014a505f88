"""Which devices a run was really on, as an agent finds out, and what that changes of its price.

The GPUs are a stand-in's. So is who is on them: the pids are those of real commands, found by the agent's own means.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taximeter.records import RecordType
from tests.nvml_standin import H100, LOST, T4, Scenario, cut, h100s
from tests.require import require_root
from tests.system.agents import Agent, Node, wait_until
from tests.system.rides import children_of

CONFIG = "\n[billing]\ninterim_s = 1\n[hardware]\nsample_s = 0.1\n"
MIB = 1 << 20


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    return Node(taximeter_program, tmp_path / "node", CONFIG)


@contextmanager
def agent_on(node: Node, scenario: Scenario, library: Path) -> Iterator[Agent]:
    with node.agent(**scenario.environment(library)) as agent:
        yield agent


@contextmanager
def run(node: Node, *words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A run under way, whose environment declares devices."""
    command = [node.program, "run", *words, "--", "sleep", "100"]
    process = subprocess.Popen(command, env=node.environment(**environment), text=True)
    try:
        yield process
    finally:
        for pid in (*children_of(process.pid), process.pid):
            if process.poll() is None:
                os.kill(pid, signal.SIGKILL)
        process.wait()


def command_of(process: subprocess.Popen[str]) -> int:
    pid: int = wait_until(lambda: sleeper(process.pid), "the command")
    return pid


def sleeper(parent: int) -> int:
    """The child that is the command by now; a wrapper has others before it."""
    for pid in children_of(parent):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "sleep\n":
                return pid
    return 0


def end(process: subprocess.Popen[str]) -> None:
    os.kill(command_of(process), signal.SIGTERM)
    process.wait()


def last_record(node: Node) -> dict[str, Any]:
    """What was told of the one prediction that has ended."""
    (last,) = wait_until(lambda: [one for one in node.predictions() if one["data"]["final"]], "the final record")
    data: dict[str, Any] = last["data"]
    return data


def seen_on(node: Node, *uuids: str) -> Any:
    """Wait until some interim record says that it was seen so."""
    return wait_until(
        lambda: [one for one in node.predictions() if one["data"]["hardware"]["observed"] == list(uuids)], f"on {uuids}"
    )


def total(node: Node) -> Decimal:
    return sum(
        (Decimal(one["data"]["billing"]["amount"] or 0) for one in node.records() if "billing" in one["data"]),
        Decimal(0),
    )


def billed_s(node: Node) -> Decimal:
    return sum((Decimal(one["data"]["time"]["share_ns"]) / 10**9 for one in node.predictions()), Decimal(0))


def test_a_run_that_is_seen_where_it_declares_to_be_says_both(node: Node, tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 2)
    with agent_on(node, scenario, nvml_library), run(node, CUDA_VISIBLE_DEVICES="1") as process:
        scenario.process("GPU-1", command_of(process), 700 * MIB).play()
        seen_on(node, "GPU-1")
        end(process)
        data = last_record(node)
    hardware = data["hardware"]
    assert (hardware["evidence"], hardware["declared"], hardware["tier"]) == ("both", ["GPU-1"], "gpu-h100")
    assert (hardware["shared"], hardware["shared_devices"]) == (False, [])
    assert data["resources"]["gpu_memory_peak_bytes"] == 700 * MIB


def test_what_names_no_device_is_sold_as_what_it_is_seen_on(node: Node, tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario")
    with agent_on(node, scenario, nvml_library), run(node) as process:
        wait_until(node.predictions, "an interim record of all eight")
        scenario.process("GPU-3", command_of(process)).play()
        seen_on(node, "GPU-3")
        end(process)
        hardware = last_record(node)["hardware"]
        assert (hardware["evidence"], hardware["declared"], hardware["tier"]) == ("observed", [], "gpu-h100")
        wait_until(lambda: total(node) == billed_s(node) * Decimal("0.001525"), "the price of one")
        assert node.predictions()[0]["data"]["hardware"]["tier"] == "gpu-h100-8x"


def test_a_run_on_a_device_that_it_did_not_declare_is_a_mismatch_and_the_cheaper_bills(
    node: Node, tmp_path: Path, nvml_library: Path
) -> None:
    scenario = h100s(tmp_path / "scenario", 2)
    with agent_on(node, scenario, nvml_library) as agent, run(node, CUDA_VISIBLE_DEVICES="0") as process:
        pid = command_of(process)
        scenario.process("GPU-0", pid).process("GPU-1", pid).play()
        seen_on(node, "GPU-0", "GPU-1")
        end(process)
        hardware = last_record(node)["hardware"]
        assert (hardware["evidence"], hardware["declared"]) == ("mismatch", ["GPU-0"])
        assert (hardware["observed"], hardware["tier"]) == (["GPU-0", "GPU-1"], "gpu-h100")
        assert agent.metric('taximeter_hardware_mismatches_total{tier="gpu-h100"}') == 1


def test_a_device_that_was_declared_and_never_used_is_a_mismatch_that_is_corrected(
    node: Node, tmp_path: Path, nvml_library: Path
) -> None:
    scenario = h100s(tmp_path / "scenario", 2)
    with agent_on(node, scenario, nvml_library), run(node, CUDA_VISIBLE_DEVICES="0,1") as process:
        scenario.process("GPU-0", command_of(process)).play()
        seen_on(node, "GPU-0")
        most = 3 * len(node.predictions()) + 3
        wait_until(lambda: len(node.predictions()) >= most, "a life most of which it was seen")
        end(process)
        hardware = last_record(node)["hardware"]
        assert (hardware["evidence"], hardware["tier"]) == ("mismatch", "gpu-h100")
        (correction,) = wait_until(lambda: node.records(RecordType.CORRECTION), "the correction")
        assert (correction["data"]["reason"], correction["data"]["hardware"]["tier"]) == ("evidence", "gpu-h100")
        assert total(node) == billed_s(node) * Decimal("0.001525")
        assert node.taximeter("verify").returncode == 0


def test_two_instances_on_one_gpu_say_that_they_share_it_and_part_its_energy(
    node: Node, tmp_path: Path, nvml_library: Path
) -> None:
    scenario = h100s(tmp_path / "scenario", 1)
    with (
        agent_on(node, scenario, nvml_library) as agent,
        run(node, "--prediction", "a", CUDA_VISIBLE_DEVICES="0") as one,
        run(node, "--prediction", "b", CUDA_VISIBLE_DEVICES="0") as other,
    ):
        for process in (one, other):
            scenario.process("GPU-0", command_of(process), 100 * MIB)
        scenario.play()
        for name in "ab":
            wait_until(
                lambda name=name: [r for r in node.predictions() if r["data"]["prediction"] == name and _is_shared(r)],
                "shared",
            )
        scenario.devices["GPU-0"] = {**H100, "energy_mj": 5_000_000 + 10_000}
        scenario.play()
        wait_until(lambda: agent.metric('taximeter_device_energy_joules_total{device="GPU-0"}') == 10, "energy")
        end(one)
        end(other)
        wait_until(lambda: len([r for r in node.predictions() if r["data"]["final"]]) == 2, "both ends")
        parts = [_energy(node, name) for name in "ab"]
        assert sum(parts) == 10_000
        assert min(parts) > 4_000
        assert {r["data"]["resources"]["energy_source"] for r in node.predictions()} <= {None, "counter"}


def _is_shared(record: dict[str, Any]) -> bool:
    hardware = record["data"]["hardware"]
    return bool(hardware["shared"] and hardware["shared_devices"] == ["GPU-0"] and hardware["evidence"] == "both")


def _energy(node: Node, prediction: str) -> int:
    mine = [r["data"]["resources"]["energy_mj"] for r in node.predictions() if r["data"]["prediction"] == prediction]
    return sum(energy_mj or 0 for energy_mj in mine)


def test_an_instance_in_a_pid_namespace_is_seen_on_its_device(node: Node, tmp_path: Path, nvml_library: Path) -> None:
    require_root()
    scenario = h100s(tmp_path / "scenario", 1)
    with agent_on(node, scenario, nvml_library):
        command = ["unshare", "--pid", "--fork", "--mount-proc", node.program, "run", "--", "sleep", "100"]
        outer = subprocess.Popen(command, env=node.environment(CUDA_VISIBLE_DEVICES="0"))
        try:
            (wrapper,) = wait_until(lambda: children_of(outer.pid), "the wrapper")
            pid = wait_until(lambda: sleeper(wrapper), "the command")
            scenario.process("GPU-0", pid).play()
            seen_on(node, "GPU-0")
            os.kill(pid, signal.SIGTERM)
            outer.wait()
            assert last_record(node)["hardware"]["evidence"] == "both"
        finally:
            outer.kill()
            outer.wait()


def test_a_gpu_that_is_lost_in_mid_run_is_still_what_the_run_was_on(
    node: Node, tmp_path: Path, nvml_library: Path
) -> None:
    scenario = h100s(tmp_path / "scenario", 2)
    with agent_on(node, scenario, nvml_library) as agent, run(node, CUDA_VISIBLE_DEVICES="1") as process:
        scenario.process("GPU-1", command_of(process)).play()
        seen_on(node, "GPU-1")
        scenario.fail(LOST, uuid="GPU-1").play()
        wait_until(lambda: agent.metric("taximeter_devices_lost") == 1, "the loss")
        end(process)
        data = last_record(node)
    assert (data["hardware"]["evidence"], data["hardware"]["tier"]) == ("both", "gpu-h100")
    assert data["billing"]["status"] == "rated"


def test_evidence_outlives_the_agent(node: Node, tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 2)
    with run(node, CUDA_VISIBLE_DEVICES="0") as process:
        scenario.process("GPU-1", command_of(process)).play()
        with agent_on(node, scenario, nvml_library):
            seen_on(node, "GPU-1")
        scenario.more.clear()
        scenario.play()
        with agent_on(node, scenario, nvml_library):
            end(process)
            assert last_record(node)["hardware"]["evidence"] == "mismatch"


def test_a_run_on_a_slice_is_seen_on_that_slice(node: Node, tmp_path: Path, nvml_library: Path) -> None:
    scenario = cut(tmp_path / "scenario")
    with agent_on(node, scenario, nvml_library), run(node, CUDA_VISIBLE_DEVICES="MIG-GPU-0/2/0") as process:
        scenario.line(f"process uuid=GPU-0;pid={command_of(process)};kind=compute;gi=2;ci=0").play()
        seen_on(node, "MIG-0-2")
        end(process)
        hardware = last_record(node)["hardware"]
    assert (hardware["evidence"], hardware["declared"]) == ("both", ["MIG-0-2"])


def test_energy_of_a_device_without_a_counter_is_its_power_over_time(
    node: Node, tmp_path: Path, nvml_library: Path
) -> None:
    scenario = Scenario(tmp_path / "scenario").gpu("GPU-0", **T4).play()
    with agent_on(node, scenario, nvml_library), run(node, CUDA_VISIBLE_DEVICES="0") as process:
        scenario.process("GPU-0", command_of(process)).play()
        seen_on(node, "GPU-0")
        wait_until(lambda: len(node.predictions()) >= 3, "three seconds")
        end(process)
        last_record(node)
        parts = [one["data"]["resources"] for one in node.predictions()]
    assert {part["energy_source"] for part in parts if part["energy_mj"] is not None} == {"power"}
    energy_mj = sum(part["energy_mj"] or 0 for part in parts)
    assert 0 < energy_mj <= 27_000 * billed_s(node) * 2


def test_a_worker_is_corrected_for_predictions_that_ended_before_it_was_seen(
    node: Node, tmp_path: Path, nvml_library: Path
) -> None:
    scenario = h100s(tmp_path / "scenario")
    with agent_on(node, scenario, nvml_library):
        marks = '{"mark":"start","prediction":"a"}', '{"mark":"finish","prediction":"a","status":"succeeded"}'
        script = (
            f"echo '{marks[0]}' 1<>$TAXIMETER_MARKS; until [ -e {tmp_path}/go ]; do sleep 0.02; done; "
            f"echo '{marks[1]}' 1<>$TAXIMETER_MARKS; exec sleep 100"
        )
        command = [node.program, "run", "--worker", "--", "sh", "-c", script]
        process = subprocess.Popen(command, env=node.environment(), text=True)
        try:
            wait_until(node.predictions, "an interim record")
            (tmp_path / "go").touch()
            wait_until(lambda: node.predictions()[-1]["data"]["final"], "the prediction's last record")
            before = node.predictions()[-1]
            assert before["data"]["hardware"]["tier"] == "gpu-h100-8x"
            scenario.process("GPU-2", command_of(process)).play()
            (correction,) = wait_until(lambda: node.records(RecordType.CORRECTION), "the correction")
            assert correction["data"]["corrects"]["id"] == before["id"]
            assert correction["data"]["hardware"]["tier"] == "gpu-h100"
            assert total(node) == billed_s(node) * Decimal("0.001525")
            end(process)
        finally:
            process.kill()
            process.wait()


def test_a_workers_prediction_has_the_memory_that_its_process_held_while_it_ran(
    node: Node, tmp_path: Path, nvml_library: Path
) -> None:
    scenario = h100s(tmp_path / "scenario", 1)
    script = """echo '{"mark":"start","prediction":"a"}' 1<>$TAXIMETER_MARKS; exec sleep 100"""
    command = [node.program, "run", "--worker", "--", "sh", "-c", script]
    with agent_on(node, scenario, nvml_library):
        process = subprocess.Popen(command, env=node.environment(CUDA_VISIBLE_DEVICES="0"), text=True)
        try:
            for size_bytes in (300 * MIB, 700 * MIB, 500 * MIB):
                at = len(node.predictions())
                scenario.process("GPU-0", command_of(process), size_bytes).play()
                wait_until(lambda at=at: len(node.predictions()) >= at + 2, "a second of it")
            end(process)
            last_record(node)
        finally:
            process.kill()
            process.wait()
    peaks = [one["data"]["resources"]["gpu_memory_peak_bytes"] for one in node.predictions()]
    assert peaks[-1] == 700 * MIB
    assert [peak for peak in peaks if peak] == sorted(peak for peak in peaks if peak)


def test_an_orphan_that_its_wrapper_took_in_is_its_instances(node: Node, tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 1)
    with agent_on(node, scenario, nvml_library):
        command = [node.program, "run", "--", "sh", "-c", "(sleep 1; sleep 200 & exit) & exec tail -f /dev/null"]
        process = subprocess.Popen(command, env=node.environment(CUDA_VISIBLE_DEVICES="0"))
        try:
            orphan = wait_until(lambda: sleeper(process.pid), "an orphan that the wrapper took in")
            scenario.process("GPU-0", orphan).play()
            seen_on(node, "GPU-0")
        finally:
            for pid in (*children_of(process.pid), process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait()
