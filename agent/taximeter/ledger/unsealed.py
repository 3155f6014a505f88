"""What is wrong with a checkpoint, whoever holds it: the ledger's own, or one that was kept elsewhere.

Owns what a seal is held against: the ledger's id, its signer, and the record that it seals. Refuses to walk a ledger.
"""

from collections.abc import Callable, Iterator

from taximeter.ledger import chain
from taximeter.ledger.notes import parse_note


def unsealed(
    note: str, key: str, ledger_id: str, hash_at: Callable[[int], bytes | None], begins: int = 0
) -> Iterator[str]:
    """What is wrong with a checkpoint of this ledger, by the public key (base64) that is to have signed it.

    The record that it seals can be looked at where the ledger `begins` with it, or before it.
    """
    from taximeter.ledger.signing import is_signed  # noqa: PLC0415 -- 11 MB, only where something is sealed

    try:
        said = parse_note(note)
    except ValueError as error:
        yield f"is no checkpoint: {error}"
        return
    of = said.checkpoint
    if of.ledger_id != ledger_id:
        yield f"is a checkpoint of ledger {of.ledger_id}, expected {ledger_id}"
        return
    if not is_signed(said, key):
        yield f"is a checkpoint that key {key or '(none)'} did not sign"
    if of.size < begins:
        return
    found = hash_at(of.size) if of.size else chain.GENESIS
    if found is None:
        yield f"seals {of.size} records, and there are fewer: the ledger was cut, or an older copy put back"
    elif found != of.head:
        yield f"seals another record {of.size} than is there: the ledger was changed, or an older copy went on"
