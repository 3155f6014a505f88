"""An agent on GPUs that tests cannot have: what it sells a run as, while devices come, go, hang and fail."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.nvml_standin import H100, LOST, Scenario, cut, h100s
from tests.system.agents import Agent, Node, wait_until
from tests.system.rides import children_of

QUICK = "\n[hardware]\nsample_s = 0.05\n"
IMPATIENT = QUICK + "deadline_s = 3\n"


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    return Node(taximeter_program, tmp_path / "node", QUICK)


@contextmanager
def agent_on(node: Node, scenario: Scenario, library: Path) -> Iterator[Agent]:
    with node.agent(**scenario.environment(library)) as agent:
        yield agent


def sold_as(node: Node, **environment: str) -> str:
    """Under which tier a run is booked that starts now."""
    known = {record["id"] for record in node.predictions()}
    ran = node.run("--", "env", *(f"{name}={value}" for name, value in environment.items()), "true")
    assert ran.returncode == 0, ran.stderr
    (record,) = wait_until(lambda: [one for one in node.predictions() if one["id"] not in known], "the record")
    tier: str = record["data"]["hardware"]["tier"]
    return tier


def hardware(agent: Agent) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(agent.get("/v1/devices", agent.said["token"])[1])
    return found


def devices(agent: Agent) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = hardware(agent)["devices"]
    return found


def uuids(agent: Agent) -> list[str]:
    return [device["uuid"] for device in devices(agent)]


def test_eight_gpus_are_sold_together_and_shown(node: Node, tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario")
    with agent_on(node, scenario, nvml_library) as agent:
        assert sold_as(node) == "gpu-h100-8x"
        wait_until(lambda: agent.metric('taximeter_device_power_watts{device="GPU-7"}') == 321, "a sample")
        assert agent.metric('taximeter_device_memory_bytes{device="GPU-0"}') == 81559 << 20
        assert agent.metric('taximeter_device_utilisation_ratio{device="GPU-0"}') == 0.37
        assert agent.metric('taximeter_device_energy_joules_total{device="GPU-0"}') == 0
        scenario.devices["GPU-0"] = {**H100, "energy_mj": 5_000_000 + 7_500}
        scenario.play()
        energy = 'taximeter_device_energy_joules_total{device="GPU-0"}'
        wait_until(lambda: agent.metric(energy) == 7.5, "energy")
        scenario.devices["GPU-0"] = {**H100, "energy_mj": 2}  # a driver that was loaded anew
        scenario.play()
        wait_until(lambda: agent.metric(energy) == 7.502, "energy that does not run backwards")


def test_an_instance_is_counted_on_its_devices(node: Node, tmp_path: Path, nvml_library: Path) -> None:
    with (
        agent_on(node, h100s(tmp_path / "scenario", 2), nvml_library) as agent,
        node.spawn("--worker", "--", "sleep", "60"),
    ):
        shown = 'taximeter_device_instances{device="GPU-1",tier="gpu-h100-2x"}'
        wait_until(lambda: agent.metric(shown) == 1, "the instance")


def test_a_node_without_a_library_is_a_cpu_node(node: Node, tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    with agent_on(node, Scenario(tmp_path / "scenario"), tmp_path) as agent:
        assert sold_as(node) == "cpu"
        assert devices(agent) == []
        assert agent.metric('taximeter_nvml_errors_total{code="library_not_found"}') >= 1


def test_gpus_whose_driver_comes_later_are_sold_without_a_restart(
    node: Node, tmp_path: Path, nvml_library: Path
) -> None:
    scenario = Scenario(tmp_path / "scenario", driver=None).gpu("GPU-0", **H100).play()
    with agent_on(node, scenario, nvml_library) as agent:
        assert sold_as(node) == "cpu"
        scenario.driver = "version=595.45.04;nvml=13.595.45.04"
        scenario.play()
        wait_until(lambda: uuids(agent) == ["GPU-0"], "the GPU")
        assert sold_as(node) == "gpu-h100"


def test_slices_are_shown_with_their_gpus(node: Node, tmp_path: Path, nvml_library: Path) -> None:
    with agent_on(node, cut(tmp_path / "scenario"), nvml_library) as agent:
        wait_until(lambda: agent.metric('taximeter_device_memory_used_bytes{device="MIG-1-3"}') == 30 << 20, "a sample")
        slices = [device for device in devices(agent) if device["parent_uuid"] == "GPU-1"]
    assert [device["mig_profile"] for device in slices] == ["1g.10gb", "2g.20gb", "3g.40gb"]


def test_a_gpu_that_is_lost_and_comes_back_is_not_sold_meanwhile(
    node: Node, tmp_path: Path, nvml_library: Path
) -> None:
    scenario = h100s(tmp_path / "scenario", 2)
    with agent_on(node, scenario, nvml_library) as agent:
        assert sold_as(node) == "gpu-h100-2x"
        scenario.fail(LOST, uuid="GPU-1").line("xid uuid=GPU-0;number=79;id=1").play()
        wait_until(lambda: agent.metric("taximeter_devices_lost") == 1, "the loss")
        assert sold_as(node) == "unknown"
        fault = 'taximeter_device_xids_total{device="GPU-0",fault_of="device"}'
        wait_until(lambda: agent.metric(fault) == 1, "the fault")
        scenario.more.clear()
        scenario.play()
        wait_until(lambda: agent.metric("taximeter_devices_lost") == 0, "its return")
        assert sold_as(node) == "gpu-h100-2x"


def test_a_driver_that_hangs_delays_no_record_no_scrape_and_no_end(
    node: Node, tmp_path: Path, nvml_library: Path
) -> None:
    scenario, node.config = h100s(tmp_path / "scenario", 2), IMPATIENT
    with agent_on(node, scenario, nvml_library) as agent:
        wait_until(lambda: agent.metric('taximeter_device_power_watts{device="GPU-1"}') == 321, "a sample")
        scenario.slow(60_000).play()
        wait_until(lambda: agent.metric("taximeter_nvml_late_total") >= 1, "the deadline")
        assert sold_as(node) == "gpu-h100-2x"  # what a device is does not change because nobody tells it
        assert any("did not answer" in problem for problem in hardware(agent)["problems"])
        age = 'taximeter_device_sample_age_seconds{device="GPU-0"}'
        before_s = agent.metric(age)
        wait_until(lambda: agent.metric(age) > before_s, "samples that grow old")
        began_s = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - began_s < 5


def test_a_driver_that_hangs_when_the_agent_starts_delays_it_by_the_deadline(
    node: Node, tmp_path: Path, nvml_library: Path
) -> None:
    scenario = h100s(tmp_path / "scenario", 2).slow(60_000, "nvmlInitWithFlags").play()
    node.config = IMPATIENT
    with agent_on(node, scenario, nvml_library) as agent:
        assert sold_as(node) == "unknown"
        scenario.more.clear()
        scenario.play()
        wait_until(lambda: uuids(agent) == ["GPU-0", "GPU-1"], "another reader")
        assert agent.metric("taximeter_nvml_respawns_total") >= 1
        assert sold_as(node) == "gpu-h100-2x"


def test_a_driver_that_fails_at_everything_costs_no_record(node: Node, tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 1)
    with agent_on(node, scenario, nvml_library) as agent:
        for code, name in ((999, "unknown"), (1, "uninitialized"), (15, "gpu_is_lost"), (4711, "other")):
            scenario.more.clear()
            scenario.fail(code).play()
            wait_until(lambda name=name: agent.metric(f'taximeter_nvml_errors_total{{code="{name}"}}') >= 1, name)
            assert sold_as(node) in ("gpu-h100", "unknown")
        scenario.more.clear()
        scenario.play()
        wait_until(lambda: uuids(agent) == ["GPU-0"] and not devices(agent)[0]["lost"], "the GPU")
        assert sold_as(node) == "gpu-h100"


def test_a_reader_of_nvml_that_somebody_kills_is_replaced(node: Node, tmp_path: Path, nvml_library: Path) -> None:
    with agent_on(node, h100s(tmp_path / "scenario", 1), nvml_library) as agent:
        (reader,) = children_of(agent.process.pid)
        os.kill(reader, signal.SIGKILL)
        wait_until(lambda: agent.metric("taximeter_nvml_respawns_total") == 1, "another reader")
        wait_until(lambda: hardware(agent)["problems"] == [], "its answer")
        assert sold_as(node) == "gpu-h100"


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_the_reader_of_nvml_ends_with_its_agent(end: str, node: Node, tmp_path: Path, nvml_library: Path) -> None:
    with agent_on(node, h100s(tmp_path / "scenario", 1), nvml_library) as agent:
        (reader,) = children_of(agent.process.pid)
        if end == "stopped":
            assert agent.stop() == 0
        else:
            agent.process.kill()
            agent.process.wait()
    wait_until(lambda: not os.path.exists(f"/proc/{reader}"), "the reader's end")


def test_a_node_that_shall_not_ask_has_no_reader(node: Node, tmp_path: Path, nvml_library: Path) -> None:
    node.config = "\n[hardware]\nnvml = false\n"
    with agent_on(node, h100s(tmp_path / "scenario", 1), nvml_library) as agent:
        assert children_of(agent.process.pid) == []
        assert sold_as(node) == "cpu"
