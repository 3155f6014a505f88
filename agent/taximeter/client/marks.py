"""What a mark says: the words of start, units and finish as bytes, each below the limit of one write.

Owns the shapes (docs/contracts.md, Marks), and what is left out of one that would be too long. Refuses to know time,
processes and FIFOs.
"""

from taximeter import wire
from taximeter.client.text import MAP_MAX_ENTRIES, is_name, pairs, quantity, quote, word

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from taximeter.client.around import Outside
    from taximeter.client.predictions import Prediction

    Units = list[tuple[str, int | str]]

    #: What few predictions say of themselves, as it is given, in the order of More's.
    Rest = tuple[str | None, str | None, Mapping[str, str | int | float] | None, str | None, bool, bool]


READY = b'{"mark":"ready","at":%d}\n'
STOPPING = b'{"mark":"stopping","reason":%b,"at":%d}\n'
ACTIVE = b'{"mark":"active","prediction":%b,"at":%d}\n'
UNITS = b'{"mark":"units","prediction":%b,"at":%d,"units":{%b}}\n'
FINISH = b'{"mark":"finish","prediction":%b,"status":"%b","at":%d}\n'
FINISH_UNITS = b'{"mark":"finish","prediction":%b,"status":"%b","at":%d,"units":{%b}}\n'
STATUSES = {"succeeded": b"succeeded", "failed": b"failed", "canceled": b"canceled"}
#: How most end. A name that was given is put in whole, one that was made in two parts, of which the second is a number.
GIVEN = FINISH.replace(b'"%b"', b'"succeeded"').replace(b"%b", b"%b%b", 1)
MADE = GIVEN.replace(b"%b%b", b'%b%d"')
_START = b'{"mark":"start","prediction":%b,"at":%d,"pid":'
_NAME_AT = FINISH.index(b"%b")

#: An id in JSON is at most this long: 256 characters of any kind, and quotes. What is longer, no agent takes.
NAME_MAX_BYTES = 4 * wire.NAME_MAX_CHARS + 2
#: Of a start, what is neither the id nor a name or an attribute; so much of units, which leaves room for one more.
_REST_BYTES = len(_START) + 48
_UNITS_BYTES = 1536
#: So many heads are kept, each of a kind that fits with any id.
_HEADS = 512

#: What a prediction says of itself: how it is named (GIVEN or MADE), model, version, class, pool, account; and More.
Kind = tuple[bytes, "str | None", "str | None", "str | None", "str | None", "str | None", "More | None"]
#: By that, where there is no more, a start of the kind, in which only the name and the time are missing.
heads: dict[Kind, bytes] = {}


class TooLong(Exception):
    """A start that does not fit into a mark without any attribute: who pays for what is never left out."""


class More:
    """What few predictions say of themselves."""

    __slots__ = ("admit", "attributes", "detached", "parent", "root", "traceparent")

    def __init__(self, outer: "Prediction | Outside", said: "Rest") -> None:
        parent, root, self.attributes, traceparent, self.detached, self.admit = said
        self.parent = word(parent) if parent is not None else None
        self.root = word(root) if root is not None else None
        if self.parent in (None, outer.id) and self.root in (None, outer.root):
            # Else they are of another tree, whose root the agent may know.
            self.parent, self.root = outer.id, outer.root
        self.traceparent = word(traceparent) if traceparent is not None else outer.traceparent


def more(outer: "Prediction | Outside", said: "Rest") -> "More | None":
    """That, where there is something to say."""
    made = More(outer, said)
    for name in More.__slots__:
        value = getattr(made, name)
        if value is not None and value is not False:
            return made
    return None


def name_in(end: bytes) -> bytes:
    """How the name is put in, of GIVEN or MADE."""
    return end[_NAME_AT : end.index(b",", _NAME_AT)]


def head(kind: Kind, pid: int, name: bytes) -> tuple[bytes, int]:
    """A start in which the name and the time are missing, and how many attributes are left out of it.

    `name` is the name as it will be there. Raises TooLong.
    """
    *given, more = kind[1:]
    is_plain = more is None and all(one is None or type(one) is str for one in given)
    if is_plain and kind in heads:
        return heads[kind], 0
    words = [None if one is None else word(one) for one in given]
    start, said, left_out = _START.replace(b"%b", name_in(kind[0])), _said_by(words), 0
    if is_plain and len(said) <= wire.MARK_MAX_BYTES - _REST_BYTES - NAME_MAX_BYTES:
        if len(heads) >= _HEADS:
            heads.clear()
        heads[kind] = made = start + _plain(b"%d%b}\n" % (pid, said))
        return made, 0
    if more is not None:
        said += _said([(b"parent", more.parent), (b"root", more.root), (b"traceparent", more.traceparent)])
        said += b',"detached":true' if more.detached else b""
    room = wire.MARK_MAX_BYTES - _REST_BYTES - len(name) - len(said)
    if room < 0:
        raise TooLong(f"cannot say this start: expected at most {wire.MARK_MAX_BYTES} bytes")
    if more is not None and more.attributes:
        attributes, left_out = _fitting(more.attributes, room)
        said += b',"attributes":{%b}' % attributes if attributes else b""
    return start + _plain(b"%d%b}\n" % (pid, said)), left_out


def _plain(said: bytes) -> bytes:
    """As a part of what is formatted."""
    return said.replace(b"%", b"%%")


def _said_by(words: "list[str | None]") -> bytes:
    return _said(list(zip((b"model", b"version", b"class", b"pool", b"account"), words, strict=True)))


def _said(names: "list[tuple[bytes, str | None]]") -> bytes:
    return b"".join([b',"%b":%b' % (key, quote(value)) for key, value in names if value is not None])


def _fitting(given: "Mapping[str, object]", room_bytes: int) -> tuple[bytes, int]:
    """Attributes in JSON that fit, and how many do not, or are none."""
    from taximeter.client import flat

    said, left_out = flat.attributes(given)
    fitting = []
    room_bytes -= len(b',"attributes":{}')
    for pair in said:
        if len(pair) + 1 <= room_bytes:
            fitting.append(pair)
            room_bytes -= len(pair) + 1
    return b",".join(fitting), left_out + len(said) - len(fitting)


def counted(given: "Mapping[str, object]") -> tuple["Units", int]:
    """Units as they were given, exact, and how many are left out, which are none."""
    items = pairs(given)
    if items is None:
        return [], 1
    units: Units = []
    for name, amount in items:
        exact = quantity(amount)
        if exact is not None and type(name) is str and is_name(name):
            units.append((name, exact))
    return units, len(items) - len(units)


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
