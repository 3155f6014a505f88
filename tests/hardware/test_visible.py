"""Which devices a process can see: the matrix of CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.hardware.inventory import Device
from taximeter.hardware.visible import resolve, usable

A = Device("GPU-aaaa1111-0000", "NVIDIA H100 80GB HBM3", 80 << 30, 0)
B = Device("GPU-aaaa2222-0000", "NVIDIA H100 80GB HBM3", 80 << 30, 1)
C = Device("GPU-cccc3333-0000", "NVIDIA H100 80GB HBM3", 80 << 30, 2)
NODE = (A, B, C)
T4 = Device("GPU-dddd4444-0000", "Tesla T4", 15 << 30, 3)
CUT = Device("GPU-eeee5555-0000", "NVIDIA A100-SXM4-80GB", 80 << 30, 4)
SLICE_1, SLICE_2 = (
    Device(
        uuid, CUT.name, 40 << 30, 4, mig_profile="3g.40gb", parent_uuid=CUT.uuid, gpu_instance=at, compute_instance=0
    )
    for at, uuid in ((1, "MIG-1111"), (2, "MIG-2222"))
)
SLICED = (replace(CUT, mig=True), SLICE_1, SLICE_2)


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        (None, (A, B, C)),
        ("", ()),
        (" ", ()),
        ("0", (A,)),
        ("2,0", (C, A)),
        (" 1 , 2 ", (B, C)),
        ("0,3", (A,)),
        ("0,3,1", (A,)),
        ("3", ()),
        ("-1", ()),
        ("0,-1,1", (A,)),
        ("0,x,1", (A,)),
        ("x", ()),
        ("0,", (A,)),
        (",0", ()),
        ("0,0", ()),
        ("0,1,0", ()),
        ("0,9,9", ()),
        ("1gpu,2", (B, C)),
        ("+1", (B,)),
        ("99999999999999999999", ()),
        ("٢", ()),
        ("NoDevFiles", ()),
        ("GPU-aaaa1111-0000", (A,)),
        ("GPU-aaaa1111", (A,)),
        ("GPU-c,GPU-aaaa2", (C, B)),
        ("GPU-aaaa1,GPU-zzzz,GPU-c", (A,)),
        ("GPU-aaaa1,0", (A,)),
        ("0,GPU-aaaa2", (A,)),
        ("GPU-aaaa1,GPU-aaaa1", ()),
        ("GPU-aaaa1,GPU-aaaa1111-0000", ()),
        ("GPU-c,GPU-aaaa", (C,)),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(asked: str | None, seen: tuple[Device, ...]) -> None:
    visible = resolve(NODE, {} if asked is None else {"CUDA_VISIBLE_DEVICES": asked})
    assert visible.devices == seen
    assert visible.doubt is None


@pytest.mark.parametrize(
    ("given_", "seen"),
    [
        ("all", (A, B, C)),
        ("none", ()),
        ("void", ()),
        ("", ()),
        ("1", (B,)),
        ("2,0", (A, C)),
        ("GPU-cccc3333-0000", (C,)),
        ("GPU-cccc,1", (B, C)),
        ("1,1", (B,)),
    ],
)
def test_nvidia_visible_devices_is_what_a_container_was_given(given_: str, seen: tuple[Device, ...]) -> None:
    visible = resolve(NODE, {"NVIDIA_VISIBLE_DEVICES": given_})
    assert visible.devices == seen
    assert visible.doubt is None


@pytest.mark.parametrize(
    ("given_", "asked", "seen"),
    [
        ("1,2", "0", (B,)),
        ("1,2", "1", (C,)),
        ("1,2", "2", ()),
        ("2,1", "0", (B,)),
        ("all", "2", (C,)),
        ("none", "0", ()),
        ("1", "GPU-aaaa2", (B,)),
        ("1", "", ()),
    ],
)
def test_cuda_counts_what_the_container_was_given(given_: str, asked: str, seen: tuple[Device, ...]) -> None:
    assert resolve(NODE, {"NVIDIA_VISIBLE_DEVICES": given_, "CUDA_VISIBLE_DEVICES": asked}).devices == seen


@pytest.mark.parametrize(
    "environ",
    [
        {"CUDA_VISIBLE_DEVICES": "GPU-zzzz"},
        {"CUDA_VISIBLE_DEVICES": "GPU-aaaa"},
        {"CUDA_VISIBLE_DEVICES": "MIG-GPU-aaaa1111-0000/1/0"},
        {"NVIDIA_VISIBLE_DEVICES": "7"},
        {"NVIDIA_VISIBLE_DEVICES": "GPU-zzzz"},
        {"NVIDIA_VISIBLE_DEVICES": "nvidia.com/gpu=0"},
        {"NVIDIA_VISIBLE_DEVICES": "0,all"},
        {"NVIDIA_VISIBLE_DEVICES": "GPU-zzzz", "CUDA_VISIBLE_DEVICES": "0"},
    ],
)
def test_a_device_that_is_not_here_is_a_doubt_and_not_a_cpu(environ: dict[str, str]) -> None:
    visible = resolve(NODE, environ)
    assert visible.devices == ()
    assert "not a device of this node" in (visible.doubt or "")


def test_an_index_among_unlike_devices_is_a_doubt_since_cuda_counts_the_fastest_first() -> None:
    visible = resolve((A, T4), {"CUDA_VISIBLE_DEVICES": "0"})
    assert visible.devices == ()
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in (visible.doubt or "")


@pytest.mark.parametrize(
    "environ",
    [
        {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        {"CUDA_VISIBLE_DEVICES": "GPU-aaaa1"},
    ],
)
def test_bus_order_or_a_uuid_removes_that_doubt(environ: dict[str, str]) -> None:
    assert resolve((A, T4), environ).devices == (A,)


def test_all_of_unlike_devices_are_all_of_them_in_any_order() -> None:
    assert resolve((A, T4), {"CUDA_VISIBLE_DEVICES": "1,0"}).devices == (T4, A)


def test_a_gpu_that_is_cut_into_slices_is_not_used_beside_them() -> None:
    assert usable((A, CUT, SLICE_1, SLICE_2)) == (A,)


def test_where_every_gpu_is_cut_a_process_gets_one_slice() -> None:
    assert usable((CUT, SLICE_1, SLICE_2)) == (SLICE_1,)


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"])
def test_a_slice_is_named_by_its_uuid(name: str) -> None:
    environ = {"NVIDIA_VISIBLE_DEVICES": "MIG-2222", name: "MIG-2222"}
    assert resolve((CUT, SLICE_1, SLICE_2), environ).devices == (SLICE_2,)


@pytest.mark.parametrize(
    ("environ", "seen"),
    [
        ({"CUDA_VISIBLE_DEVICES": "MIG-2222"}, (SLICE_2,)),
        ({"CUDA_VISIBLE_DEVICES": "MIG-22"}, (SLICE_2,)),
        ({"CUDA_VISIBLE_DEVICES": "MIG-2222,MIG-1111"}, (SLICE_2,)),
        ({"CUDA_VISIBLE_DEVICES": f"MIG-{CUT.uuid}/2/0"}, (SLICE_2,)),
        ({"CUDA_VISIBLE_DEVICES": f"MIG-{CUT.uuid}/1/0,MIG-{CUT.uuid}/7/0"}, (SLICE_1,)),
        ({"CUDA_VISIBLE_DEVICES": "0"}, (SLICE_1,)),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ()),
        ({"NVIDIA_VISIBLE_DEVICES": "4:1"}, (SLICE_2,)),
        ({"NVIDIA_VISIBLE_DEVICES": "4:1", "CUDA_VISIBLE_DEVICES": "0"}, (SLICE_2,)),
        ({"NVIDIA_VISIBLE_DEVICES": "4"}, (SLICE_1,)),
        ({"NVIDIA_VISIBLE_DEVICES": "4", "CUDA_VISIBLE_DEVICES": "MIG-2222"}, (SLICE_2,)),
        ({"NVIDIA_VISIBLE_DEVICES": "MIG-2222", "CUDA_VISIBLE_DEVICES": "0"}, (SLICE_2,)),
        ({"NVIDIA_VISIBLE_DEVICES": "all", "CUDA_VISIBLE_DEVICES": "MIG-2222"}, (SLICE_2,)),
    ],
)
def test_of_slices_a_process_gets_one(environ: dict[str, str], seen: tuple[Device, ...]) -> None:
    visible = resolve(SLICED, environ)
    assert (visible.devices, visible.doubt) == (seen, None)


@pytest.mark.parametrize(
    "environ",
    [
        {"CUDA_VISIBLE_DEVICES": f"MIG-{CUT.uuid}/3/0"},
        {"CUDA_VISIBLE_DEVICES": "MIG-GPU-zzzz/1/0"},
        {"NVIDIA_VISIBLE_DEVICES": "4:2"},
        {"NVIDIA_VISIBLE_DEVICES": "MIG-2222", "CUDA_VISIBLE_DEVICES": "MIG-1111"},
    ],
)
def test_a_slice_that_is_not_here_or_was_not_given_is_a_doubt(environ: dict[str, str]) -> None:
    assert resolve(SLICED, environ).doubt


def test_a_slice_may_be_named_beside_whole_gpus() -> None:
    assert resolve((A, *SLICED), {"CUDA_VISIBLE_DEVICES": "MIG-1111"}).devices == (SLICE_1,)
    assert resolve((A, *SLICED), {}).devices == (A,)


def test_a_gpu_that_is_cut_and_has_no_slice_can_run_nothing() -> None:
    assert usable((SLICED[0],)) == ()


@pytest.mark.parametrize(
    ("environ", "settled"),
    [
        ({}, False),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, False),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, False),
        ({"NVIDIA_VISIBLE_DEVICES": ""}, False),
        ({"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": "0"}, False),
        ({"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": "GPU-aaaa1"}, True),
        ({"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": ""}, True),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, True),
        ({"NVIDIA_VISIBLE_DEVICES": "1"}, True),
        ({"NVIDIA_VISIBLE_DEVICES": "all", "CUDA_VISIBLE_DEVICES": "1"}, True),
        ({"CUDA_VISIBLE_DEVICES": ""}, True),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, True),
    ],
)
def test_what_names_no_device_settles_nothing(environ: dict[str, str], settled: bool) -> None:
    assert resolve(NODE, environ).settled is settled


@pytest.mark.parametrize("environ", [{}, {"NVIDIA_VISIBLE_DEVICES": "all"}, {"NVIDIA_VISIBLE_DEVICES": "void"}])
def test_where_there_is_no_device_everything_is_settled(environ: dict[str, str]) -> None:
    assert resolve((), environ).settled


def test_devices_are_counted_in_bus_order_however_they_were_listed() -> None:
    assert resolve((C, A, B), {"CUDA_VISIBLE_DEVICES": "0"}).devices == (A,)


def test_a_device_that_is_listed_twice_is_one() -> None:
    assert usable((A, A, B)) == (A, B)


@given(
    st.dictionaries(
        st.sampled_from(["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"]),
        st.text() | st.lists(st.sampled_from(["0", "1", "7", "-1", "GPU-a", "GPU-c", "all", ""])).map(",".join),
    )
)
def test_whatever_the_environment_says_each_device_is_seen_at_most_once_and_a_doubt_shows_none(
    environ: dict[str, str],
) -> None:
    visible = resolve(NODE, environ)
    assert len({device.uuid for device in visible.devices}) == len(visible.devices)
    assert set(visible.devices) <= set(NODE)
    assert not (visible.doubt and visible.devices)
    assert visible.why
