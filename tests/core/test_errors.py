"""What an error says beside its words, for who acts differently on it."""

from taximeter.errors import JournalFault, SinkError


def test_a_fault_of_a_journal_has_a_word_for_the_metric() -> None:
    assert JournalFault("torn", "cannot read a line: expected its end").reason == "torn"


def test_a_sink_may_say_when_to_come_again() -> None:
    assert SinkError("busy", "cannot send: expected a receiver", 2.5).retry_after_s == 2.5


def test_a_sink_that_asks_for_no_pause_is_left_to_ours() -> None:
    assert SinkError("busy", "cannot send: expected a receiver").retry_after_s is None
