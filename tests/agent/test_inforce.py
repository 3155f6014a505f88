"""What is in force as facts: told where it changed, numbered with all that the ledger says itself."""

import json
from pathlib import Path

import pytest

from taximeter.agent.inforce import put_in_force, read_known
from taximeter.config import load
from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch, Ledger
from tests.ledger.samples import BEGAN_UTC_NS, opened
from tests.ledger.spending import grant, paying

pytestmark = pytest.mark.forged  # usage by hand, whose prices are round

CHARGES = '[charges]\nthresholds = ["1", "2.5"]\n'


def started(directory: Path, content: str) -> Ledger:
    """A ledger as an agent opens it under this configuration."""
    path = directory / "agent.toml"
    path.write_text(content)
    config = load(path, {"TAXIMETER_STATE_DIR": str(directory)})
    ledger = opened(directory)
    with LedgerReader(directory / "ledger.db") as reader:
        _, news = put_in_force(
            config, config.rate_card, read_known(reader), ledger.head.ledger_id, "/nodes/n", BEGAN_UTC_NS
        )
    if news:
        ledger.commit(Batch(news, ()))
    ledger.charge_by(config.spending)
    return ledger


def own(directory: Path) -> list[tuple[int, str]]:
    """The number and the kind of each record that is the ledger's own, in order."""
    with LedgerReader(directory / "ledger.db") as reader:
        events = [json.loads(body) for body in reader.records()]
        assert audit(reader).faults == ()
    ids = [event for event in events if event["id"].startswith(events[0]["data"]["ledger"]["id"])]
    kinds = [event["data"].get("fact") or event["type"].split(".")[2] for event in ids]
    return [(int(event["id"][-8:]), kind) for event, kind in zip(ids, kinds, strict=True)]


def test_no_rules_of_spending_are_told_where_there_are_none(tmp_path: Path) -> None:
    started(tmp_path, "").close()
    assert "spending" not in [kind for _, kind in own(tmp_path)]


def test_rules_of_spending_are_told_where_they_change_also_to_none(tmp_path: Path) -> None:
    for content in ("", CHARGES, CHARGES, ""):
        started(tmp_path, content).close()
    assert [kind for _, kind in own(tmp_path)].count("spending") == 2


def test_facts_thresholds_and_grants_are_numbered_together_over_restarts(tmp_path: Path) -> None:
    ledger = started(tmp_path, CHARGES)
    ledger.commit(paying(1, "1"))
    ledger.grant(grant("g1", "5"))
    ledger.close()
    ledger = started(tmp_path, '[charges]\nthresholds = ["2"]\n')
    ledger.commit(paying(2, "1"))
    ledger.close()
    numbers, kinds = zip(*own(tmp_path), strict=True)
    assert list(numbers) == list(range(len(numbers)))
    assert [kind for kind in kinds if kind in ("threshold", "grant", "spending")] == [
        "spending",
        "threshold",
        "grant",
        "spending",
        "threshold",
    ]


RATES = 'version = "{version}"\neffective = 2026-0{month}-01T00:00:00Z\ncurrency = "USD"\n[tiers]\ncpu = "1"\n'


def late_facts(directory: Path, month: int, content: str = "") -> list[bool]:
    """Of each rate card that the ledger has put in force: whether what was billed before it came is to be corrected."""
    (directory / "rates.toml").write_text(RATES.format(version=month, month=month))
    started(directory, f'rates = "rates.toml"\n{content}').close()
    with LedgerReader(directory / "ledger.db") as reader:
        facts = [json.loads(body)["data"] for body in reader.records()]
    return ["late" in fact for fact in facts if fact["fact"] == "rate_card"]


def test_a_card_that_is_there_too_late_says_so_but_not_the_first_of_all(tmp_path: Path) -> None:
    assert late_facts(tmp_path, 1) == [False]
    assert late_facts(tmp_path, 2) == [False, True]
    assert late_facts(tmp_path, 2) == [False, True]
    with LedgerReader(tmp_path / "ledger.db") as reader:
        known = read_known(reader)
    assert known.late == (known.cards[1].hash,)


def test_where_late_cards_are_only_warned_of_nothing_is_to_be_corrected(tmp_path: Path) -> None:
    assert late_facts(tmp_path, 1) == [False]
    assert late_facts(tmp_path, 2, '[billing]\nlate_cards = "warn"\n') == [False, False]
