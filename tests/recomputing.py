"""tools/recompute.py over whatever ledgers tests make: what it is given, and which ledgers it is spared.

Most tests put no facts into their ledgers, so every card and every set of rules that this process makes is noted as
it is made, and given beside the records. Ledgers that are forged on purpose say so: `@pytest.mark.forged`.
"""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import taximeter.billing.rates
import taximeter.rulebook
from taximeter.errors import LedgerError
from taximeter.ledger.reader import LedgerReader, RecordFilter

TOOL = Path(__file__).parent.parent / "tools" / "recompute.py"
#: So many records of a ledger are recomputed, from the first on: some seconds in all.
MOST_RECORDS = 2_000
_NAMES = ("ledger.db",)

_cards: dict[str, Any] = {}
_rules: dict[str, Any] = {}


def tool() -> ModuleType:
    """The tool, loaded by its path, as it is nowhere to be imported from."""
    if "recompute" not in sys.modules:
        spec = importlib.util.spec_from_file_location("recompute", TOOL)
        assert spec is not None and spec.loader is not None
        module = sys.modules["recompute"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["recompute"]


def note_what_is_made() -> None:
    """Note every card and all rules from now on, by the digest that each is known by."""
    for module, noted in ((taximeter.billing.rates, _cards), (taximeter.rulebook, _rules)):
        original = module.digest

        def digest(content: Any, original: Any = original, noted: dict[str, Any] = noted) -> str:
            known_as: str = original(content)
            noted[known_as] = content
            return known_as

        module.digest = digest  # type: ignore[attr-defined]


def recomputed(lines: list[bytes]) -> Any:
    """The outcome for records of this process."""
    return tool().recompute(lines, list(_cards.values()), list(_rules.values()))


def ledgers_in(directory: Path) -> Iterator[Path]:
    """Every ledger below a directory."""
    for at, _, names in os.walk(directory):
        for name in names:
            if name in _NAMES:
                yield Path(at) / name


def faults_of(ledger: Path) -> list[str]:
    """What the tool finds wrong with a ledger; nothing where it cannot be read at all, which is another test's."""
    with contextlib.suppress(LedgerError), LedgerReader(ledger) as reader:
        lines = list(reader.records(RecordFilter(limit=MOST_RECORDS)))
        found = recomputed(lines).findings
        return [f"{ledger}: {finding.id} (record {finding.seq}): {finding.what}" for finding in found]
    return []
