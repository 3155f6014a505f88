"""The agent's log: what others wrote can neither begin a line nor steer a terminal."""

import logging
import sys

from hypothesis import given
from hypothesis import strategies as st

from taximeter.agent.logs import OneLine

FORM = OneLine("%(levelname)s %(message)s")


def record(message: str, *values: object, failed: bool = False) -> logging.LogRecord:
    info = None
    if failed:
        try:
            raise ValueError(*values)
        except ValueError:
            info = sys.exc_info()
    return logging.LogRecord("taximeter", logging.WARNING, "", 0, message, values if not failed else (), info)


@given(st.text())
def test_a_message_is_one_printable_line(said: str) -> None:
    assert FORM.format(record("cannot read %s", said)).isprintable()


def test_what_is_printable_stays_as_it_is() -> None:
    assert FORM.format(record("größe 🚕 %s", "a b")) == "WARNING größe 🚕 a b"


def test_what_is_not_is_shown_as_its_escape() -> None:
    told = FORM.format(record("%s", "x\nERROR ledger.lost\x1b[2J\u202e"))
    assert told == r"WARNING x\nERROR ledger.lost\x1b[2J\u202e"


@given(st.text())
def test_no_line_of_a_traceback_looks_like_a_message(said: str) -> None:
    first, *rest = FORM.format(record("api.failed", said, failed=True)).split("\n")
    assert first == "WARNING api.failed"
    assert all(line.startswith("  ") and line.isprintable() for line in rest)
