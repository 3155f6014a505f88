"""Who called whom, over a real ledger and what runs: the `tree` of a receipt, and the notes of an audit."""

import dataclasses
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import apsw
import msgspec
import orjson
import pytest

from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.observe import calling
from taximeter.observe.queries import Queries
from taximeter.observe.snapshot import PredictionView, Snapshot
from taximeter.observe.sums import LISTED_MAX
from taximeter.records import RecordType, UsageRecord
from taximeter.values import replace
from tests.observe import histories
from tests.observe.histories import call
from tests.observe.nodes import IDLE, RUNNING, ledger_of

Ask = Callable[..., Queries]
Json = dict[str, Any]


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    """Make queries of a ledger with these records, and of an agent that sees these predictions running."""
    readers: list[LedgerReader] = []

    def made(records: list[UsageRecord], *running: PredictionView) -> Queries:
        readers.append(ledger_of(tmp_path, records))
        return Queries(readers[-1], (lambda: seeing(*running)) if running else None)

    yield made
    for reader in readers:
        reader.close()


def seeing(*running: PredictionView) -> Snapshot:
    views = tuple(dataclasses.replace(RUNNING, instance=f"i-{own.prediction}", predictions=(own,)) for own in running)
    return dataclasses.replace(IDLE, instances=views)


def runs(prediction: str, parent: str | None = None, root: str | None = None) -> PredictionView:
    return PredictionView(
        prediction, "active", "2026-11-22T10:00:09.000000000Z", "cus_7", parent=parent, root=root or prediction
    )


def tree(queries: Queries, asked: str) -> Json:
    found = queries.receipt(asked)
    assert found is not None, f"no receipt for {asked}"
    told: Json = found["tree"]
    return told


def drawn(told: Json) -> list[str]:
    return ["  " * node["depth"] + node["prediction"] for node in told["nodes"]]


def test_a_root_has_all_that_it_led_to(ask: Ask) -> None:
    told = tree(ask(histories.calls()), "p-root")
    assert drawn(told) == ["p-root", "  p-plan", "    p-search", "  p-draw"]
    assert (told["root"], told["path"], told["more"]) == ("p-root", [], 0)


def test_its_own_cost_is_apart_from_that_of_what_it_called(ask: Ask) -> None:
    told = tree(ask(histories.calls()), "p-root")
    assert [told[part]["amounts"] for part in ("own", "downstream", "total")] == [
        {"USD": "0.0002"},
        {"USD": "0.00017"},
        {"USD": "0.00037"},
    ]


def test_a_tree_comes_to_what_its_records_come_to(ask: Ask) -> None:
    queries = ask(histories.calls())
    data = [orjson.loads(body)["data"] for body in queries.records(RecordFilter())]
    amounts = [Decimal(one["billing"]["amount"]) for one in data if one["prediction"] is not None]
    assert Decimal(tree(queries, "p-root")["total"]["amounts"]["USD"]) == sum(amounts)


def test_a_call_that_outlives_its_root_is_pending_and_in_the_sums(ask: Ask) -> None:
    told = tree(ask(histories.calls()), "p-root")
    (late,) = (node for node in told["nodes"] if node["prediction"] == "p-draw")
    assert (late["status"], late["pending"], late["amount"]) == ("processing", True, "0.00012")
    assert told["downstream"]["pending"] == 1


def test_each_account_is_told_what_it_is_charged(ask: Ask) -> None:
    payers = tree(ask(histories.calls()), "p-root")["payers"]
    assert {payer["account"]: payer["amounts"]["USD"] for payer in payers} == {"cus_7": "0.00036", "cus_9": "0.00001"}


def test_a_call_names_its_root_and_the_way_to_it(ask: Ask) -> None:
    told = tree(ask(histories.calls()), "p-search")
    assert told["root"] == "p-root"
    assert told["path"] == [{"prediction": "p-root", "link": "root"}, {"prediction": "p-plan", "link": "call"}]


def test_a_call_in_the_middle_has_what_it_led_to_itself(ask: Ask) -> None:
    told = tree(ask(histories.calls()), "p-plan")
    assert (drawn(told), told["nodes"][0]["under"]) == (["p-plan", "  p-search"], None)


def test_downstream_lists_the_same_without_the_first(ask: Ask) -> None:
    found = ask(histories.calls()).receipt("p-root")
    assert found is not None
    assert [run["prediction"] for run in found["downstream"]] == ["p-plan", "p-search", "p-draw"]
    assert found["downstream"][1] == {
        "prediction": "p-search",
        "account": "cus_9",
        "model": "acme/search",
        "class": "public",
        "status": "succeeded",
        "pending": False,
        "started_utc": "2026-11-22T10:00:00.200000000Z",
        "active_ns": 100_000_000,
        "share_ns": 100_000_000,
        "amount": "0.00001",
        "currency": "USD",
    }


def test_who_runs_without_a_record_stands_in_the_tree(ask: Ask) -> None:
    told = tree(ask(histories.calls(), runs("p-late", "p-plan", "p-root")), "p-root")
    assert "    p-late" in drawn(told)
    (late,) = (node for node in told["nodes"] if node["prediction"] == "p-late")
    assert (late["status"], late["pending"], late["amount"], late["billing"]) == ("processing", True, None, None)


def test_a_root_that_still_runs_has_the_calls_that_have_ended(ask: Ask) -> None:
    found = ask(call("p-a", "p-root"), runs("p-root")).receipt("p-root")
    assert found is not None
    assert (found["pending"], found["root"], drawn(found["tree"])) == (True, "p-root", ["p-root", "  p-a"])


def test_what_runs_links_what_has_ended_to_its_root(ask: Ask) -> None:
    records = [*call("p-root"), *call("p-b", "p-a", root="p-a")]
    told = tree(ask(records, runs("p-a", "p-root", "p-root"), runs("p-other")), "p-root")
    assert drawn(told) == ["p-root", "  p-a", "    p-b"]


def test_what_runs_beside_is_in_no_tree(ask: Ask) -> None:
    assert drawn(tree(ask(call("p-root"), runs("p-other")), "p-root")) == ["p-root"]


def test_an_id_that_runs_again_is_pending(ask: Ask) -> None:
    told = tree(ask(call("p-root"), runs("p-root")), "p-root")
    assert (told["own"]["predictions"], told["own"]["pending"], told["nodes"][0]["runs"]) == (1, 1, 2)


def test_who_knew_no_other_root_than_its_parent_stands_in_the_whole_tree(ask: Ask) -> None:
    records = [
        *call("p-root"),
        *call("p-a", "p-root"),
        *call("p-b", "p-a", root="p-a"),
        *call("p-c", "p-b", root="p-b"),
    ]
    queries = ask(records)
    for asked in ("p-root", "p-c"):
        assert tree(queries, asked)["root"] == "p-root"
    assert drawn(tree(queries, "p-root")) == ["p-root", "  p-a", "    p-b", "      p-c"]
    assert tree(queries, "p-root")["findings_total"] == {"root_mismatch": 2}


def test_roots_that_lead_in_a_circle_lead_to_one_of_them(ask: Ask) -> None:
    queries = ask([*call("p-a", "p-b", root="p-b"), *call("p-b", "p-a", 5, root="p-a")])
    assert [tree(queries, asked)["root"] for asked in ("p-a", "p-b")] == ["p-a", "p-a"]
    assert drawn(tree(queries, "p-a")) == ["p-a", "  p-b"]
    assert {note["kind"] for note in queries.verify()["notes"]} == {"cycle", "root_mismatch"}


def test_a_root_elsewhere_is_named_and_stands_for_nothing(ask: Ask) -> None:
    told = tree(ask(call("p-a", "p-far", root="p-far")), "p-a")
    assert (told["root"], told["path"]) == ("p-far", [{"prediction": "p-far", "link": "elsewhere"}])
    (note,) = told["findings"]
    assert (note["kind"], note["text"]) == ("orphan", "names p-far as parent, which has no record here")


def test_a_place_that_stands_for_one_elsewhere_has_nothing_of_its_own(ask: Ask) -> None:
    told = tree(ask([*call("p-root"), *call("p-a", "p-far")]), "p-root")
    assert [run["link"] for run in told["nodes"]] == ["root", "elsewhere", "call"]
    absent = told["nodes"][1]
    assert (absent["pending"], absent["active_ns"], absent["instance"], absent["runs"]) == (None, None, None, 0)
    assert told["downstream"]["predictions"] == 1


def test_who_asks_for_a_root_that_ran_elsewhere_is_told_where_its_calls_are(ask: Ask) -> None:
    queries = ask(call("p-a", "p far", root="p far"))
    assert queries.receipt("p far") is None
    assert "it has no record here, and predictions that it called have" in queries.unknown("p far")
    assert "`taximeter records --root 'p far'`" in queries.unknown("p far")


def test_a_parent_in_another_tree_is_told_from_one_without_a_record(ask: Ask) -> None:
    records = [*call("p-root"), *call("p-else"), *call("p-a", "p-else", root="p-root")]
    (note,) = tree(ask(records), "p-root")["findings"]
    assert (note["kind"], note["text"]) == ("root_mismatch", "names p-root as root; its parent's is p-else")


def test_whose_bill_a_call_is_is_said_and_not_judged(ask: Ask) -> None:
    (note,) = tree(ask(histories.calls()), "p-root")["findings"]
    assert (note["prediction"], note["text"]) == ("p-search", "is charged to cus_9, its parent to cus_7")


def test_a_call_that_is_charged_to_somebody_whose_parent_is_not_is_said(ask: Ask) -> None:
    records = [*call("p-root"), *call("p-a", "p-root", account="cus_1")]
    (note,) = tree(ask(records), "p-root")["findings"]
    assert note["text"] == "is charged to cus_1, its parent to nobody"


def test_an_id_that_was_used_twice_stands_once(ask: Ask) -> None:
    told = tree(ask(histories.twice()), "p1")
    (node,) = told["nodes"]
    assert (node["runs"], node["amount"], told["own"]["predictions"]) == (2, "0.0000912", 1)
    assert told["findings_total"] == {"duplicate": 1}
    assert told["findings"][0]["text"] == "is the id of 2 runs"


def test_what_has_no_price_and_what_its_instance_bills_is_counted(ask: Ask) -> None:
    def below(records: list[UsageRecord]) -> list[UsageRecord]:
        return [
            replace(
                one,
                id=f"{name}-{at:08d}",
                instance=name,
                prediction=one.prediction and name,
                root="p-root",
                data=orjson.loads(
                    msgspec.json.encode({**one.data, "prediction": name, "instance": name, "root": "p-root"})
                ),
            )
            for name in (f"n-{len(records[0].data)}-{records[0].subject}",)
            for at, one in enumerate(one for one in records if one.type is RecordType.PREDICTION)
        ]

    told = tree(ask([*call("p-root"), *below(histories.unpriced_run()), *below(histories.private_run())]), "p-root")
    assert (told["downstream"]["unrated"], told["downstream"]["informative"]) == (1, 1)
    assert {node["billing"] for node in told["nodes"]} == {"rated", "unrated", "informative"}


def test_a_correction_is_in_the_sums(ask: Ask) -> None:
    queries = ask(histories.mismatched_run())
    found = queries.receipt("p1")
    assert found is not None
    assert found["billing"]["corrections"]
    assert found["tree"]["own"]["amounts"] == {"USD": found["total"]["amount"]}
    assert found["tree"]["nodes"][0]["billing"] == found["billing"]["status"] == "rated"


def test_an_instance_has_no_tree(ask: Ask) -> None:
    found = ask(histories.calls()).receipt("i-p-root")
    assert found is not None
    assert found["tree"] is None


def test_the_last_run_in_one_line_is_not_asked_whom_it_called(ask: Ask) -> None:
    found = ask(histories.calls()).last_run("p-root")
    assert found is not None
    assert found["tree"] is None


def many(count: int) -> list[UsageRecord]:
    (one, *_) = call("p-0", "p-root")
    body = msgspec.json.encode(one.data)

    def numbered(n: int) -> UsageRecord:
        data = orjson.loads(body.replace(b"p-0", f"p-{n}".encode()))
        return replace(one, id=f"i-p-{n}-00000000", prediction=f"p-{n}", instance=f"i-p-{n}", data=data)

    return [*call("p-root", ms=200), *map(numbered, range(count))]


def test_more_calls_than_are_listed_are_in_the_sums(ask: Ask) -> None:
    told = tree(ask(many(LISTED_MAX + 5)), "p-root")
    assert (len(told["nodes"]), told["more"], told["downstream"]["predictions"]) == (LISTED_MAX, 6, LISTED_MAX + 5)
    assert Decimal(told["downstream"]["amounts"]["USD"]) == (LISTED_MAX + 5) * Decimal("0.00001")


def test_more_calls_than_are_placed_are_in_the_sums(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "PLACED_MAX", 4)
    told = tree(ask(many(10), *(runs(f"p-r{n}", "p-root", "p-root") for n in range(6))), "p-root")
    assert (told["downstream"]["predictions"], told["more"]) == (14, 7)
    assert told["total"]["amounts"] == {"USD": "0.00012"}
    charged = [Decimal(payer["amounts"].get("USD", "0")) for payer in told["payers"]]
    assert sum(charged) == Decimal("0.00012")


def test_who_was_not_placed_has_a_receipt_without_a_tree(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "PLACED_MAX", 4)
    found = ask(many(10)).receipt("p-9")
    assert found is not None
    assert (found["tree"], found["downstream"]) == (None, [])


def test_an_audit_notes_what_is_odd_and_finds_no_fault_in_it(ask: Ask) -> None:
    records = [
        *histories.calls(),
        *call("p-x", "p-far", root="p-far"),
        *call("q-root"),
        *call("q-a", "q-b", root="q-root"),
        *call("q-b", "q-a", 5, root="q-root"),
    ]
    report = ask(records).verify()
    assert (report["ok"], report["faults"]) == (True, [])
    assert report["notes_total"] == {"orphan": 1, "account": 1, "cycle": 1}
    assert {note["prediction"] for note in report["notes"]} == {"p-x", "p-search", "q-a"}


def changed(path: Path, sql: str) -> None:
    connection = apsw.Connection(str(path / "ledger.db"))
    connection.execute(sql)
    connection.close()


@pytest.mark.forged
def test_a_record_that_cannot_be_read_spoils_no_other_tree(ask: Ask, tmp_path: Path) -> None:
    queries = ask([*histories.calls(), *call("p-x", "p-far", root="p-far")])
    changed(tmp_path, "UPDATE records SET body = x'ff' WHERE seq = (SELECT min(seq) FROM lookups WHERE root = 'p-far')")
    report = queries.verify()
    assert (report["ok"], report["notes_total"]) == (False, {"account": 1})


def test_a_root_that_is_no_text_ends_the_notes(ask: Ask, tmp_path: Path) -> None:
    queries = ask(histories.calls())
    changed(tmp_path, "UPDATE lookups SET root = x'00ff' WHERE prediction = 'p-plan'")
    assert queries.verify()["ok"] is False


def test_the_view_of_an_instance_says_who_called(ask: Ask) -> None:
    (view,) = ask([], runs("p-a", "p-b", "p-c")).instances()
    (own,) = view["predictions"]
    assert (own["parent"], own["root"]) == ("p-b", "p-c")


class Chain:
    """A ledger of predictions each of which names the one before as its root; it counts how often it is asked."""

    def __init__(self, length: int) -> None:
        self._length = length
        self.asked = 0

    def root_of(self, prediction: str) -> str | None:
        self.asked += 1
        number = int(prediction)
        return f"{number - 1:05}" if number else prediction

    def next_root(self, after: str = "") -> str | None:
        number = int(after or -1) + 1
        return f"{number:05}" if number < self._length - 1 else None

    def roots(self, top: str, most: int) -> tuple[str, ...]:
        return (top,)

    def of_root(self, root: str) -> Iterator[bytes]:
        return iter(())

    def below(self, root: str) -> Iterator[bytes]:
        return iter(())


@pytest.mark.parametrize("length", [10, 1000])
def test_a_chain_is_gone_through_once_and_not_once_for_each_of_its_links(length: int) -> None:
    chain = Chain(length)
    assert sum(1 for _ in calling.all_calls(chain)) == 1
    assert chain.asked <= 2 * length
