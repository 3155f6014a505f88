"""Opens the ledger that this node goes on with: the one that is there, or what takes the place of a damaged one.

Owns what is said of that, aloud: money is in it. Refuses to know what can be saved.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from taximeter.config import Directories
from taximeter.config.model import SinkConfig
from taximeter.errors import LedgerError
from taximeter.ledger import chain, layout
from taximeter.ledger.rebuild import Rebuilt, rebuild_if_damaged
from taximeter.ledger.remembered import Remembered, machine, recall, remember
from taximeter.ledger.store import Ledger, NodeInfo
from taximeter.shipping.sinks import filled

logger = logging.getLogger(__name__)

#: So many numbers of lost records are said.
_MOST_SAID = 20


def open_ledger(where: Directories, node: NodeInfo, sinks: Sequence[SinkConfig] = ()) -> Ledger:
    """Open the ledger for writing; one that is damaged is set aside, and rebuilt first. Raises LedgerError."""
    memory = where.state / "checkpoint"

    def take_over(ledger_id: str, before: Mapping[str, object]) -> None:
        remember(
            memory, Remembered(ledger_id, 0, chain.digest_text(chain.GENESIS), machine(), "", _head(memory, before))
        )

    try:
        rebuilt = rebuild_if_damaged(where.ledger, node, take_over, lambda ledger_id: _reached(sinks, ledger_id))
    except OSError as error:
        expected = "a directory that the agent may write to, on a disk with room"
        raise LedgerError(f"cannot rebuild ledger {where.ledger}: {error}: expected {expected}") from error
    if rebuilt is not None:
        _say(rebuilt)
    ledger = Ledger.open(where.ledger, node)
    layout.keep(where.ledger)
    return ledger


def _reached(sinks: Sequence[SinkConfig], ledger_id: str) -> dict[str, int]:
    """Up to which number those sinks have a ledger's records that can be asked: files, which say it themselves."""
    paths = {sink.name: sink.path for sink in sinks if sink.type == "file" and sink.path is not None}
    reached = {name: filled.reached(path, ledger_id) for name, path in paths.items()}
    return {name: seq for name, seq in reached.items() if seq is not None}


def set_aside(where: Directories) -> tuple[str, ...]:
    """Which damaged ledgers lie beside the one in use."""
    return tuple(sorted(path.name for path in where.state.glob(f"{where.ledger.stem}-damaged-*{where.ledger.suffix}")))


def _head(memory: Path, before: Mapping[str, object]) -> Mapping[str, object]:
    """The head of the ledger whose place is taken: as it was sealed, where less than that can be read."""
    last = recall(memory)
    if last is None or (last.ledger == before["ledger"] and last.size <= int(str(before["size"]))):
        return before
    if last.size == 0 and before["ledger"] is None:
        return last.before or before
    return {"ledger": last.ledger, "size": last.size, "head": last.head} if last.size else before


def _say(rebuilt: Rebuilt) -> None:
    logger.error(
        "ledger.damaged: %s: kept as %s. Its place takes a ledger with the %d records that some sink has not had, and "
        "with %d instances that are open; %d instances are booked anew from their journals",
        rebuilt.why,
        rebuilt.kept_as,
        rebuilt.carried,
        rebuilt.open,
        rebuilt.from_journals,
    )
    if rebuilt.given_up:
        logger.error(
            "ledger.given_up: of %d instances that were open nobody can read how far they were, and a sink has a part "
            "of them: what is in no record yet is billed to nobody",
            rebuilt.given_up,
        )
    if rebuilt.lost:
        numbers = ", ".join(map(str, rebuilt.lost[:_MOST_SAID]))
        more = f" and {len(rebuilt.lost) - _MOST_SAID} more" if len(rebuilt.lost) > _MOST_SAID else ""
        logger.error("ledger.lost: records %s%s of it cannot be read, and some sink has not had them", numbers, more)
