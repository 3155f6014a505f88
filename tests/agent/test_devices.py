"""The agent's sight of the devices: what is current, what grows old, what only grows."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taximeter.agent.devices import Devices, Energy
from taximeter.agent.placing import Placer
from taximeter.config import load
from taximeter.hardware.inventory import Host
from taximeter.hardware.nvml.door import Door
from taximeter.hardware.samples import DeviceSample, Samples
from tests.nvml_standin import LOST, Scenario, h100s

SHIPPED = load(None, {"TAXIMETER_STATE_DIR": "/nowhere"})
HOST = Host(64, 1 << 40)
S = 1_000_000_000


class Sight:
    """Devices on a scenario, looked at when the test says so."""

    def __init__(self, door: Door | None) -> None:
        self.devices = Devices(SHIPPED.hardware, HOST, door)
        self._loop = asyncio.Runner()

    def look(self) -> None:
        self._loop.run(self.devices.look())

    def end(self, door: Door | None) -> None:
        self.devices.close()
        with self._loop as loop:
            assert door is None or loop.run(door.gone(30))


@pytest.fixture
def on(nvml_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Scenario], Sight]]:
    ends: list[Callable[[], None]] = []

    def begin(scenario: Scenario) -> Sight:
        for name, value in scenario.environment(nvml_library).items():
            monkeypatch.setenv(name, value)
        door = Door(30.0)
        sight = Sight(door)
        ends.append(lambda: sight.end(door))
        return sight

    yield begin
    for end in ends:
        end()


On = Callable[[Scenario], Sight]


def test_an_inventory_is_the_same_object_while_it_says_the_same(on: On, tmp_path: Path) -> None:
    sight = on(h100s(tmp_path / "scenario", 2))
    sight.look()
    before = sight.devices.inventory
    sight.look()
    assert sight.devices.inventory is before
    assert [device.uuid for device in before.devices] == ["GPU-0", "GPU-1"]


def test_instances_are_placed_on_what_there_is_when_they_start(on: On, tmp_path: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 2)
    sight = on(scenario)
    sight.look()
    placer = Placer(lambda: sight.devices.inventory, SHIPPED.catalogue)
    assert (placer.place({}).tier, placer.whole_node.tier) == ("gpu-h100-2x", "gpu-h100-2x")
    scenario.fail(LOST, uuid="GPU-1").play()
    sight.look()
    assert (placer.place({}).tier, placer.whole_node.tier) == ("unknown", "unknown")
    assert placer.place({"CUDA_VISIBLE_DEVICES": "0"}).tier == "gpu-h100"
    assert sight.devices.lost == ("GPU-1",)


def test_who_listens_hears_of_every_round(on: On, tmp_path: Path) -> None:
    sight = on(h100s(tmp_path / "scenario", 1))
    heard: list[Samples] = []
    sight.devices.listen(heard.append)
    sight.look()
    sight.look()
    assert len(heard) == 2
    assert heard[-1] is sight.devices.samples


def test_what_a_device_is_outlives_a_driver_that_tells_nothing_more(on: On, tmp_path: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 1)
    sight = on(scenario)
    sight.look()
    before = sight.devices.inventory
    scenario.fail(1).fail(999, "nvmlInitWithFlags").play()
    sight.look()
    after = sight.devices.inventory
    assert (after.devices, after.devices_known) == (before.devices, True)
    assert len(after.problems) == 1
    scenario.more.clear()
    scenario.play()
    for _ in range(4):
        sight.look()
    assert sight.devices.inventory == before


def test_a_node_that_shall_not_ask_says_so_and_has_no_samples() -> None:
    sight = Sight(None)
    sight.look()
    assert sight.devices.inventory.problems == ("NVML is not asked: hardware.nvml is false",)
    assert (sight.devices.samples, sight.devices.lost, sight.devices.respawns, sight.devices.hung) == (None, (), 0, 0)
    sight.end(None)


def energy_of(*samples: tuple[float, int | None]) -> int:
    first, *others = (DeviceSample("GPU-0", int(at_s * S), energy_mj=energy_mj) for at_s, energy_mj in samples)
    energy = Energy(first)
    for other in others:
        energy.add(other)
    return energy.total_mj


def test_energy_is_what_the_counter_gained_since_it_was_first_seen() -> None:
    assert energy_of((0, 9_000), (5, 9_500), (10, 11_000)) == 2_000


def test_energy_goes_on_when_the_counter_begins_anew() -> None:
    assert energy_of((0, 9_000), (5, 9_500), (10, 300), (15, 400)) == 500 + 300 + 100


def test_a_counter_that_jumps_further_than_a_device_can_is_not_believed() -> None:
    assert energy_of((0, 9_000), (5, 10**12), (10, 10**12 + 7)) == 7


def test_a_sample_without_the_counter_is_bridged() -> None:
    assert energy_of((0, 9_000), (5, None), (10, 9_100)) == 100
