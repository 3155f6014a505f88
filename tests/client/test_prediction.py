"""What a worker's predictions say of themselves, mark for mark."""

import asyncio
import os
import pickle
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from taximeter import client
from taximeter.client import around
from tests.client.fifo import Fifo


def test_a_with_block_is_a_prediction(fifo: Fifo) -> None:
    with client.prediction("p1", model="acme/sdxl", version="3f2a", account="cus_7", pool="sdxl"):
        pass
    start, finish = fifo.marks()
    at = start.pop("at")
    assert start == {
        "mark": "start",
        "prediction": "p1",
        "pid": os.getpid(),
        "model": "acme/sdxl",
        "version": "3f2a",
        "account": "cus_7",
        "pool": "sdxl",
    }
    assert finish.pop("at") >= at
    assert finish == {"mark": "finish", "prediction": "p1", "status": "succeeded"}


def test_an_exception_ends_it_as_failed_and_passes_through(fifo: Fifo) -> None:
    with pytest.raises(ZeroDivisionError), client.prediction("p1"):
        _ = 1 / 0
    assert fifo.marks()[-1]["status"] == "failed"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError(), "failed"),
        (asyncio.CancelledError(), "canceled"),
        (KeyboardInterrupt(), "canceled"),
        (GeneratorExit(), "canceled"),
        (SystemExit(), "succeeded"),
        (SystemExit(0), "succeeded"),
        (SystemExit(3), "failed"),
        (SystemExit("no model"), "failed"),
        (ExceptionGroup("", [ValueError()]), "failed"),
        (BaseExceptionGroup("", [asyncio.CancelledError()]), "canceled"),
    ],
)
def test_how_it_ends_is_told_by_what_ends_it(fifo: Fifo, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), client.prediction("p1"):
        raise error
    assert [mark.get("status") for mark in fifo.marks()] == [None, status]


def test_without_an_id_a_uuid7_is_made_for_each(fifo: Fifo) -> None:
    ids = {client.prediction().id for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(name) == 36 and name[14] == "7" and name[19] in "89ab" for name in ids)


def test_one_inside_another_has_it_as_parent_and_its_account(fifo: Fifo) -> None:
    with (
        client.prediction("outer", account="cus_7", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01"),
        client.prediction("mid"),
        client.prediction("in"),
    ):
        pass
    outer, mid, inner = fifo.marks()[:3]
    assert ("parent" in outer, "root" in outer) == (False, False)
    assert (mid["parent"], mid["root"], mid["account"]) == ("outer", "outer", "cus_7")
    assert (inner["parent"], inner["root"], inner["account"]) == ("mid", "outer", "cus_7")
    assert inner["traceparent"] == outer["traceparent"]


def test_a_parent_of_another_tree_comes_without_the_root_of_this_one(fifo: Fifo) -> None:
    with client.prediction("outer"):
        other = client.prediction("p1", parent="elsewhere").start()
        alone = client.prediction("p2", root="r0").start()
        same = client.prediction("p3", parent="outer").start()
    kin = {mark["prediction"]: (mark.get("parent"), mark.get("root")) for mark in fifo.marks() if "pid" in mark}
    assert kin["p1"] == ("elsewhere", None)
    assert kin["p2"] == (None, "r0")
    assert kin["p3"] == ("outer", "outer")
    assert (other.root, alone.root, same.root) == ("elsewhere", "r0", "outer")


def test_the_current_one_is_that_of_this_block() -> None:
    assert client.current() is None
    with client.prediction() as outer:
        with client.prediction() as inner:
            assert client.current() is inner
        assert client.current() is outer
    assert client.current() is None


def test_a_block_in_a_block_of_the_same_prediction_is_left_once(fifo: Fifo) -> None:
    prediction = client.prediction("p1")
    with prediction:
        with prediction:
            assert client.current() is prediction
        assert client.current() is None
    assert client.current() is None
    assert [mark["mark"] for mark in fifo.marks()] == ["start", "finish"]


def test_what_is_to_be_said_by_name_is_refused_without_it() -> None:
    with pytest.raises(TypeError, match="by name"):
        client.prediction("p1", "acme/sdxl")  # type: ignore[arg-type]


def test_an_account_that_is_no_text_is_one_as_it_is_told(fifo: Fifo) -> None:
    account: Any = 7
    for _ in range(2):
        with client.prediction("p1", account=account) as prediction, client.prediction("p2") as inner:
            assert (prediction.account, inner.account) == ("7", "7")
    assert {mark["account"] for mark in fifo.marks() if mark["mark"] == "start"} == {"7"}


def test_a_prediction_without_a_block_is_not_the_current_one(fifo: Fifo) -> None:
    prediction = client.prediction("p1").start()
    assert client.current() is None
    prediction.finish()
    assert [mark["mark"] for mark in fifo.marks()] == ["start", "finish"]


def test_an_end_counts_once(fifo: Fifo) -> None:
    with client.prediction("p1") as prediction:
        prediction.fail()
        prediction.cancel()
    assert [mark.get("status") for mark in fifo.marks()] == [None, "failed"]


def test_load_ends_with_active_once(fifo: Fifo) -> None:
    with client.prediction("p1", service_class="fast_boot") as prediction:
        prediction.active()
        prediction.active()
    assert [mark["mark"] for mark in fifo.marks()] == ["start", "active", "finish"]


def test_what_loads_nothing_is_active_without_a_word(fifo: Fifo) -> None:
    with client.prediction("p1", service_class="public") as prediction:
        prediction.active()
    assert [mark["mark"] for mark in fifo.marks()] == ["start", "finish"]


def test_units_are_added_up_and_go_with_the_end(fifo: Fifo) -> None:
    with client.prediction("p1") as prediction:
        for _ in range(100):
            prediction.add(token_output=1)
        prediction.add({"5 seconds": 2}, image=1)
        prediction.add(video_second=0.1)
        prediction.add(video_second="0.2")
    assert fifo.marks()[-1]["units"] == {"token_output": 100, "5 seconds": 2, "image": 1, "video_second": "0.3"}


def test_a_decorated_function_is_a_prediction_a_call(fifo: Fifo) -> None:
    @client.prediction(model="acme/echo")
    def predict(text: str) -> str:
        assert client.current() is not None
        return text

    assert [predict("a"), predict("b")] == ["a", "b"]
    marks = fifo.marks()
    assert [mark["mark"] for mark in marks] == ["start", "finish"] * 2
    assert marks[0]["prediction"] != marks[2]["prediction"]
    assert predict.__name__ == "predict"


def test_a_decorated_coroutine_function_is_one_until_it_returns(fifo: Fifo) -> None:
    @client.prediction(model="acme/echo")
    async def predict(text: str) -> str:
        await asyncio.sleep(0)
        assert [mark["mark"] for mark in fifo.marks()] == ["start"]
        return text

    assert asyncio.run(predict("a")) == "a"
    assert [mark["mark"] for mark in fifo.marks()] == ["finish"]


def test_a_decorated_generator_is_one_while_it_is_read(fifo: Fifo) -> None:
    @client.prediction("p1")
    def predict() -> Iterator[int]:
        for n in range(2):
            assert client.current() is not None
            yield n

    values = predict()
    assert fifo.marks() == []
    assert next(values) == 0
    assert client.current() is None
    assert [mark["mark"] for mark in fifo.marks()] == ["start"]
    assert list(values) == [1]
    assert fifo.marks()[-1]["status"] == "succeeded"


def test_a_generator_that_nobody_reads_on_is_canceled(fifo: Fifo) -> None:
    closed = []

    @client.prediction("p1")
    def predict() -> Iterator[int]:
        try:
            yield 0
        finally:
            closed.append(client.current())

    values = predict()
    next(values)
    values.close()  # type: ignore[attr-defined]
    assert fifo.marks()[-1]["status"] == "canceled"
    assert [prediction.id for prediction in closed] == ["p1"]


def test_a_decorated_async_generator_is_one_while_it_is_read(fifo: Fifo) -> None:
    @client.prediction("p1")
    async def predict() -> AsyncIterator[int]:
        yield 0
        yield 1

    async def read() -> list[int]:
        return [value async for value in predict()]

    assert asyncio.run(read()) == [0, 1]
    assert [mark.get("status") for mark in fifo.marks()] == [None, "succeeded"]


def test_tasks_have_each_their_own(fifo: Fifo) -> None:
    async def task(name: str) -> None:
        async with client.prediction(name):
            await asyncio.sleep(0)
            async with client.prediction():
                await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(task("a"), task("b"))

    asyncio.run(main())
    parents = sorted(mark["parent"] for mark in fifo.marks() if "parent" in mark)
    assert parents == ["a", "b"]


def test_a_downstream_process_and_call_learn_whose_they_are() -> None:
    prediction = client.prediction("p1", account="cus_7", parent="p0", root="r0")
    assert prediction.environment() == {
        "TAXIMETER_PARENT": "p1",
        "TAXIMETER_ROOT": "r0",
        "TAXIMETER_ACCOUNT": "cus_7",
    }
    assert prediction.headers() == {"taximeter-parent": "p1", "taximeter-root": "r0", "taximeter-account": "cus_7"}


def test_a_header_never_breaks_a_request() -> None:
    assert client.prediction("p\r\nx: y", account="Jürgen").headers() == {}


def test_a_prediction_can_be_sent_to_another_process(fifo: Fifo) -> None:
    with client.prediction("p1") as prediction:
        other = pickle.loads(pickle.dumps(prediction))
    other.add(image=1)
    other.finish()
    assert fifo.marks()[-1]["units"] == {"image": 1}


def test_without_a_meter_nothing_happens_but_ids_are_made() -> None:
    client.ready()
    with client.prediction(model="x") as prediction:
        prediction.active()
        prediction.add(image=-1)
    prediction.finish()
    client.stopping()
    assert len(prediction.id) == 36
    assert client.dropped() == 0


def test_an_id_that_was_read_before_is_the_one_that_is_told_also_a_second_later(
    fifo: Fifo, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = client.prediction()
    read = early.id
    monkeypatch.setattr("taximeter.client.predictions._until_ns", 0)
    late = client.prediction()
    with early:
        assert early.id == read
    with late:
        pass
    assert [mark["prediction"] for mark in fifo.marks()] == [read, read, late.id, late.id]


def test_ids_are_in_the_order_of_their_making_and_tell_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    before_ms = time.time_ns() // 1_000_000
    ids = []
    for _ in range(3):
        monkeypatch.setattr("taximeter.client.predictions._until_ns", 0)
        ids += [client.prediction().id for _ in range(5)]
    assert ids == sorted(ids)
    assert all(before_ms <= uuid.UUID(name).int >> 80 <= before_ms + 60_000 for name in ids)


def test_a_count_of_ids_that_comes_near_its_end_begins_anew_with_other_bits() -> None:
    common, _, _ = around.begin_ids()
    same, _, counted = around.begin_second(common, iter([89_999_999, 90_000_000]))
    other, _, anew = around.begin_second(common, iter([90_000_001]))
    assert same[14:] == common[14:] != other[14:]
    assert next(counted) == 90_000_000
    assert 10_000_000 <= next(anew) < 80_000_000


def test_a_word_that_it_does_not_know_is_an_error_as_of_any_function() -> None:
    with pytest.raises(TypeError, match="modle"):
        client.prediction(modle="acme/sdxl")  # type: ignore[call-arg]
