"""tools/recompute.py over whatever ledgers tests make: what it is given, and which ledgers it is spared.

Most tests put no facts into their ledgers, so every card and every set of rules that this process makes is noted as
it is made, and given beside the records. Ledgers that are forged on purpose say so: `@pytest.mark.forged`.
"""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import taximeter.billing.rates
import taximeter.rulebook
from taximeter.errors import LedgerError
from taximeter.ledger import chain
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.ledger.seal import Author, seal
from taximeter.ledger.values import NodeInfo
from taximeter.records import PLATFORM, RecordType, UsageRecord
from taximeter.rulebook import Rulebook

TOOL = Path(__file__).parent.parent / "tools" / "recompute.py"
#: So many records of a ledger are recomputed, from the first on: some seconds in all.
MOST_RECORDS = 2_000
#: So many rules may be those of a ledger without facts: a test makes few, a property many.
MOST_RULES = 5
AUTHOR = Author.of("0198c2f4-0000-7000-8000-000000000000", NodeInfo("test", None, "taximeter test", "sha256:0"))

_cards: dict[str, Any] = {}
_rules: dict[str, Any] = {}


def tool() -> ModuleType:
    """The tool, loaded by its path, as it is nowhere to be imported from."""
    if "recompute" not in sys.modules:
        spec = importlib.util.spec_from_file_location("recompute", TOOL)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["recompute"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["recompute"]


def note_what_is_made() -> None:
    """Note every card and all rules from now on, by the digest that each is known by."""
    for module, noted in ((taximeter.billing.rates, _cards), (taximeter.rulebook, _rules)):
        original = module.digest

        def digest(content: Any, original: Any = original, noted: dict[str, Any] = noted) -> str:
            known_as: str = original(content)
            noted.pop(known_as, None)  # made again, it is the newest
            noted[known_as] = content
            return known_as

        module.digest = digest  # type: ignore[attr-defined]


def recomputed(lines: Sequence[bytes]) -> Any:
    """The outcome for records of this process; they were made under some of its newest rules."""
    return tool().recompute(lines, list(_cards.values()), list(_rules.values())[-MOST_RULES:])


def sealed(records: Iterable[UsageRecord], author: Author = AUTHOR) -> list[bytes]:
    """Records as a ledger would have stored them."""
    return [body for _, _, body in seal(records, author, 0, chain.GENESIS).rows]


def facts(book: Rulebook, number: int = 0) -> list[UsageRecord]:
    """What an agent puts into its ledger of a rulebook."""
    said = [("rules", rules.hash, rules.content()) for rules in book.rules.values()]
    said += [("rate_card", card.hash, card.content()) for card in book.cards]
    return [
        UsageRecord(
            f"{AUTHOR.ledger_id}-{number + at:08d}",
            RecordType.FACT,
            PLATFORM,
            0,
            {"fact": kind, "hash": known_as, "content": content},
        )
        for at, (kind, known_as, content) in enumerate(said)
    ]


def faults_in(lines: Sequence[bytes], where: object = "records") -> list[str]:
    """What the tool finds wrong, a line each."""
    return [f"{where}: {found.id} (record {found.seq}): {found.what}" for found in recomputed(lines).findings]


def ledgers_in(directory: Path) -> Iterator[Path]:
    """Every ledger below a directory."""
    for at, _, names in os.walk(directory):
        for name in names:
            if name == "ledger.db":
                yield Path(at) / name


def faults_of(ledger: Path) -> list[str]:
    """What the tool finds wrong with a ledger; nothing where it cannot be read at all, which is another test's."""
    with contextlib.suppress(LedgerError), LedgerReader(ledger) as reader:
        return faults_in(list(reader.records(RecordFilter(limit=MOST_RECORDS))), ledger)
    return []
