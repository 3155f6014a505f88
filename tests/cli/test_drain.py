"""`taximeter drain`: what keeps a node from going."""

from typing import Any

from taximeter.cli.drain import left_of, told, waits_for_time
from tests.cli.node import taximeter


def status(**changes: Any) -> dict[str, Any]:
    sinks = [{"name": "billing", "pending": 0, "last_error": None, "dead_letters": 0}]
    ledger = {"seq": 7}
    return {"ready": True, "instances": {}, "sinks": sinks, "reader_lag_s": 0.0, "ledger": ledger, **changes}


def test_a_node_with_nothing_left_may_go() -> None:
    left = left_of(status())
    assert not left["waits"]
    assert told(left) == ["drained: 7 records, all acknowledged; nothing runs"]


def test_what_a_sink_has_not_acknowledged_keeps_it_and_is_said_with_the_reason() -> None:
    left = left_of(status(sinks=[{"name": "billing", "pending": 2, "last_error": "cannot ship", "dead_letters": 0}]))
    assert left["waits"]
    assert told(left) == ["billing: 2 records not acknowledged: cannot ship"]


def test_what_a_sink_refused_keeps_it_and_is_not_waited_for() -> None:
    left = left_of(status(sinks=[{"name": "billing", "pending": 0, "last_error": None, "dead_letters": 2}]))
    assert (left["waits"], waits_for_time(left)) == (True, False)
    assert told(left) == ["billing: 2 records refused: see `taximeter deadletters list`"]


def test_what_runs_and_what_is_not_read_keep_it() -> None:
    assert told(left_of(status(instances={"active": 1, "idle": 1}))) == [
        "2 instances still open: stop what runs, and drain again"
    ]
    assert told(left_of(status(reader_lag_s=0.5))) == ["journals are not read to their end yet"]
    assert left_of(status(ready=False))["unread"]


def test_without_an_agent_nobody_ships() -> None:
    answer = taximeter("drain", "--timeout", "0")
    assert answer.code == 1
    assert "cannot drain without an agent" in answer.err
