"""What NVML's values mean, and which of them it gives by mistake: unknown, never zero."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.hardware.nvml import values
from taximeter.hardware.samples import ProcessKind, ProcessUse

ALL_ONES = (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, -1)
MINUS_16 = (2147483632, 4294967280, 18446744073709551600, -16)
NUMBERS = [
    values.total_bytes, values.used_bytes, values.ratio, values.power_mw, values.clock_mhz, values.small,
    values.multiprocessor_count, values.pid,
]  # fmt: skip
ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=40)
    | st.lists(st.integers(), max_size=3)
    | st.tuples(st.integers(), st.integers())
)


@pytest.mark.parametrize("mean", NUMBERS, ids=lambda mean: mean.__name__)
@pytest.mark.parametrize("given_", [*ALL_ONES, *MINUS_16, None, "7", 7.0, True])
def test_what_is_not_available_is_unknown(mean: object, given_: object) -> None:
    if given_ in (2147483632, 4294967280, 0xFFFFFFFF) and mean in (values.total_bytes, values.used_bytes):
        return  # two or four gigabytes: a size that can be
    assert callable(mean)
    assert mean(given_) is None


def test_a_counter_is_unknown_where_it_is_all_ones() -> None:
    assert values.count(0xFFFFFFFFFFFFFFFF) is None
    assert values.count(5_000_000) == 5_000_000


def test_what_is_used_may_be_nothing_and_what_there_is_may_not() -> None:
    assert (values.used_bytes(0), values.total_bytes(0)) == (0, None)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (" Tesla T4 ", "Tesla T4"),
        ("", None),
        ("  ", None),
        ("a\nb", None),
        ("\x1b[31m", None),
        (b"T4", None),
        (None, None),
    ],
)
def test_a_text_is_one_printable_line(text: object, known: str | None) -> None:
    assert values.text(text) == known


def test_where_a_device_is_on_the_bus() -> None:
    assert values.pci_bus_id(b"00000000:18:00.0") == "00000000:18:00.0"
    assert values.pci_bus_id("nowhere") is None
    assert values.pci_device_id(0x233010DE) == "2330"
    assert [values.pci_device_id(odd) for odd in (0, 0xFFFFFFFF, None)] == [None] * 3


@pytest.mark.parametrize(
    ("cores", "compute", "sms"),
    [
        (16896, "9.0", 132),
        (6912, "8.0", 108),
        (2560, "7.5", 40),
        (16897, "9.0", None),
        (16896, "99.0", None),
        (None, "9.0", None),
    ],
)
def test_multiprocessors_are_told_by_cores(cores: object, compute: str, sms: int | None) -> None:
    assert values.multiprocessors(cores, compute) == sms


@pytest.mark.parametrize(
    ("slices", "memory_mib", "profile"),
    [
        ((3, 3), 40192, "3g.40gb"),
        ((1, 1), 9728, "1g.10gb"),
        ((3, 1), 40192, "1c.3g.40gb"),
        ((None, 1), 9728, None),
        ((1, 1), 0, None),
    ],
)
def test_a_profile_is_called_by_its_slices_and_memory(
    slices: tuple[int | None, int], memory_mib: int, profile: str | None
) -> None:
    assert values.profile(*slices, memory_mib) == profile


def test_a_slices_name_has_its_profile() -> None:
    assert values.split_name("NVIDIA A100-SXM4-80GB MIG 3g.40gb") == ("NVIDIA A100-SXM4-80GB", "3g.40gb")
    assert values.split_name("NVIDIA A100-SXM4-80GB") == ("NVIDIA A100-SXM4-80GB", None)


@pytest.mark.parametrize(
    ("value", "known"), [((9, 0), "9.0"), ([12, 1], "12.1"), ((0, 0), None), ((9,), None), ("9.0", None), (None, None)]
)
def test_what_a_device_can_compute_is_called_by_two_numbers(value: object, known: str | None) -> None:
    assert values.compute_capability(value) == known


def test_a_process_of_two_lists_is_told_once_with_the_most_memory_that_either_tells() -> None:
    graphics = ProcessUse(7, "GPU-0", 3, ProcessKind.GRAPHICS)
    compute = ProcessUse(7, "GPU-0", None, ProcessKind.COMPUTE)
    other = ProcessUse(7, "GPU-1", None, ProcessKind.COMPUTE)
    assert [(use.device, use.used_bytes) for use in values.merged([graphics, compute, other])] == [
        ("GPU-0", 3),
        ("GPU-1", None),
    ]


@given(st.lists(st.builds(
    ProcessUse, st.integers(1, 4), st.sampled_from(["GPU-0", "GPU-1"]), st.none() | st.integers(0, 9),
    st.sampled_from(ProcessKind),
)))  # fmt: skip
def test_each_process_is_told_once_a_device_with_the_most_that_is_known(uses: list[ProcessUse]) -> None:
    merged = values.merged(uses)
    assert {(use.pid, use.device) for use in uses} == {(use.pid, use.device) for use in merged}
    assert len({(use.pid, use.device) for use in merged}) == len(merged)
    for one in merged:
        same = [use for use in uses if (use.pid, use.device) == (one.pid, one.device)]
        assert one.used_bytes == max((use.used_bytes for use in same if use.used_bytes is not None), default=None)
        assert one.kind in [use.kind for use in same]


@given(ANYTHING)
def test_whatever_is_given_comes_back_as_a_value_or_as_unknown(value: object) -> None:
    for mean in (*NUMBERS, values.text, values.pci_bus_id, values.pci_device_id, values.compute_capability):
        mean(value)
    values.multiprocessors(value, "9.0")
