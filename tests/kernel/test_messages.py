"""What the kernel's process connector says, as bytes that it said: `sh -c 'exit 3'`, forked by 31393."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.kernel import messages

ANSWER = bytes.fromhex(
    "4c00000003000000fd5e0200000000000100000001000000fd5e02004e000000280000000000000001000000"
    "fe7036c142010000000000000000000000000000000000000000000000000000"
)
FORK = bytes.fromhex(
    "4c00000003000000fe5e0200000000000100000001000000fe5e020000000000280000000100000001000000"
    "082b38c142010000a17a0000a17a0000a27a0000a27a00000000000000000000"
)
EXEC = bytes.fromhex(
    "4c00000003000000ff5e0200000000000100000001000000ff5e020000000000280000000200000001000000"
    "81373bc142010000a27a0000a27a000000000000000000000000000000000000"
)
EXIT = bytes.fromhex(
    "4c00000003000000005f0200000000000100000001000000005f020000000000280000000000008001000000"
    "eaaf46c142010000a27a0000a27a00000003000011000000a17a0000a17a0000"
)
FROM_KERNEL = struct.pack("=HHII4x", 16, 0, 0, 1)


def parse(*said: bytes, sender: bytes = FROM_KERNEL) -> list[messages.Event]:
    slots = b"".join((sender + one).ljust(messages.SLOT_BYTES, b"\0") for one in said)
    return list(messages.parse_slots(memoryview(slots), [len(one) for one in said]))


def test_a_fork_an_exec_and_an_exit_are_told_with_their_stamps() -> None:
    assert parse(FORK, EXEC, EXIT) == [
        (messages.FORK, 1386221153032, 31393, 31393, 31394, 31394),
        (messages.EXEC, 1386221352833, 31394, 31394, 0, 0),
        (messages.EXIT, 1386222104554, 31394, 31394, 3 << 8, 17),
    ]


def test_what_another_process_sent_is_not_the_kernels_word() -> None:
    assert parse(EXIT, sender=struct.pack("=HHII4x", 16, 0, 31393, 1)) == []


def test_what_is_too_short_for_an_event_is_none_whatever_the_slot_held_before() -> None:
    slot = memoryview(FROM_KERNEL + EXIT + bytes(4))
    assert list(messages.parse_slots(slot, [75])) == []


def test_another_connectors_message_is_none() -> None:
    assert parse(EXIT[:16] + struct.pack("=II", 2, 1) + EXIT[24:]) == []


def test_an_answer_is_recognised_by_the_question() -> None:
    assert messages.parse_ack(ANSWER, 77) == 0
    assert messages.parse_ack(ANSWER, 78) is None
    assert messages.parse_ack(FORK, 77) is None


def test_an_answer_may_be_a_refusal() -> None:
    assert messages.parse_ack(ANSWER[:52] + struct.pack("=I", 1) + ANSWER[56:], 77) == 1


def test_questions_say_how_long_they_are() -> None:
    for question, content_bytes in (
        (messages.listen(7, 1), 4),
        (messages.listen_to(7, 1, messages.FORK | messages.EXIT), 8),
        (messages.ignore(7, 1), 4),
    ):
        assert struct.unpack_from("=I", question) == (len(question),)
        assert struct.unpack_from("=H", question, 32) == (content_bytes,)
        assert len(question) == 36 + content_bytes


@given(st.binary(max_size=200), st.integers(0, 2**31 - 1))
def test_garbage_is_no_answer_or_one_with_a_number(data: bytes, seq: int) -> None:
    assert messages.parse_ack(data, seq) is None or len(data) >= 56


@given(
    st.lists(st.binary(max_size=messages.SLOT_BYTES - messages.NAME_BYTES), max_size=5),
    st.binary(min_size=16, max_size=16),
)
def test_garbage_never_raises_and_only_the_kernel_is_believed(said: list[bytes], sender: bytes) -> None:
    events = parse(*said, sender=sender)
    assert events == [] or sender[4:8] == bytes(4)


@given(st.sampled_from([FORK, EXEC, EXIT]), st.integers(0, 75), st.integers(0, 255))
def test_a_byte_that_changed_makes_another_event_or_none(message: bytes, position: int, byte: int) -> None:
    changed = message[:position] + bytes([byte]) + message[position + 1 :]
    assert len(parse(changed)) <= 1


@pytest.mark.parametrize("message", [FORK, EXEC, EXIT])
@given(extra=st.integers(0, 4))
def test_a_kernel_with_longer_events_is_understood(message: bytes, extra: int) -> None:
    longer = struct.pack("=I", len(message) + extra) + message[4:] + bytes(extra)
    assert parse(longer) == parse(message)
