"""What a mark says: the words of start, units and finish as bytes, each below the limit of one write.

Owns the shapes (docs/contracts.md, Marks), and what is left out of one that would be too long. Refuses to know time,
processes and FIFOs.
"""

from taximeter import wire
from taximeter.client.text import MAP_MAX_ENTRIES, attributes, quantity, quote, word

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Units = list[tuple[str, int | str]]

READY = b'{"mark":"ready","at":%d}\n'
STOPPING = b'{"mark":"stopping","reason":%b,"at":%d}\n'
START = b'{"mark":"start","prediction":%b,"pid":%d,"at":%d%b}\n'
ACTIVE = b'{"mark":"active","prediction":%b,"at":%d}\n'
UNITS = b'{"mark":"units","prediction":%b,"at":%d,"units":{%b}}\n'
FINISH = b'{"mark":"finish","prediction":%b,"status":"%b","at":%d}\n'
FINISH_UNITS = b'{"mark":"finish","prediction":%b,"status":"%b","at":%d,"units":{%b}}\n'
STATUSES = {"succeeded": b"succeeded", "failed": b"failed", "canceled": b"canceled"}

#: An id in JSON is at most this long: 256 characters of any kind, and quotes. What is longer, no agent takes.
NAME_MAX_BYTES = 4 * wire.NAME_MAX_CHARS + 2
#: Of a start, what is not the id and what follows it; so much of units, which leaves room for one more after it.
_HEAD_MAX_BYTES = len(START) + 32
_UNITS_BYTES = 1536
#: A tail that fits into any mark is kept for the next one of the kind; so many of them.
_KEPT_BYTES = wire.MARK_MAX_BYTES - _HEAD_MAX_BYTES - NAME_MAX_BYTES
_KEPT = 512

Kind = tuple["str | None", "str | None", "str | None", "str | None", "str | None"]
_kept: dict[Kind, bytes] = {}


def kind_tail(kind: Kind) -> bytes:
    """What a start says of model, version, class, pool and account (`kind`), in this order; kept, for most are alike.

    Raises TypeError where one of them cannot be a key.
    """
    tail = _kept.get(kind)
    if tail is None:
        names = (b"model", b"version", b"class", b"pool", b"account")
        pairs = zip(names, kind, strict=True)
        tail = b"".join([b',"%b":%b' % (name, quote(word(value))) for name, value in pairs if value is not None])
        if len(tail) <= _KEPT_BYTES:
            if len(_kept) >= _KEPT:
                _kept.clear()
            _kept[kind] = tail
    return tail


def whole_tail(
    name: bytes, tail: bytes, more: "list[tuple[bytes, str | None]]", given: "Mapping[str, object]", detached: bool
) -> tuple[bytes, int]:
    """The tail of a start with names and attributes beside the kind's, and how many attributes are left out.

    Raises ValueError where it is too long without any attribute: who pays for what is never left out.
    """
    tail += b"".join([b',"%b":%b' % (key, quote(value)) for key, value in more if value is not None])
    if detached:
        tail += b',"detached":true'
    room = wire.MARK_MAX_BYTES - _HEAD_MAX_BYTES - len(name) - len(tail)
    if room < 0 or len(name) > NAME_MAX_BYTES:
        raise ValueError("cannot say this start: expected at most 4,096 bytes")
    try:
        pairs, unfit = attributes(given)
    except Exception:  # no mapping, or one that fails
        pairs, unfit = [], 1
    said: list[bytes] = []
    room -= len(b',"attributes":{}')
    for pair in pairs:
        if len(pair) + 1 <= room:
            said.append(pair)
            room -= len(pair) + 1
    if said:
        tail += b',"attributes":{%b}' % b",".join(said)
    return tail, unfit + len(pairs) - len(said)


def sums(held: "Units") -> tuple["Units", int]:
    """Take all units that are held and add up what has one name; and how many had to be left out.

    They are taken one by one, so that several threads may add meanwhile.
    """
    totals: dict[str, int | str] = {}
    left_out = 0
    while held:
        try:
            name, amount = held.pop()
        except IndexError:
            break  # another thread took the last one
        before = totals.get(name, 0)
        total = before + amount if type(before) is int and type(amount) is int else _exact_sum(before, amount)
        if quantity(total) is None or (name not in totals and len(totals) >= MAP_MAX_ENTRIES):
            left_out += 1
        else:
            totals[name] = total
    return list(totals.items()), left_out


def cut(units: "Units") -> "Iterator[tuple[Units, bytes]]":
    """Units in parts that fit into a mark each, with their JSON."""
    part: Units = []
    said: list[bytes] = []
    for name, amount in units:
        part.append((name, amount))
        said.append(
            b"%b:%d" % (quote(name), amount)
            if type(amount) is int
            else b'%b:"%b"' % (quote(name), str(amount).encode())
        )
        if sum(map(len, said)) + len(said) > _UNITS_BYTES:
            yield part, b",".join(said)
            part, said = [], []
    if part:
        yield part, b",".join(said)


def _exact_sum(one: "int | str", other: "int | str") -> "int | str":
    from taximeter.client import amounts

    return amounts.total(one, other)
