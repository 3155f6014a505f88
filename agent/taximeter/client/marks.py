"""What a mark says: the words of start, units and finish as bytes, each below the limit of one write.

Owns the shapes (docs/contracts.md, Marks), and what is left out of one that would be too long. Refuses to know time,
processes and FIFOs.
"""

from taximeter import wire
from taximeter.client.text import quote, word

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping

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
_END = b"}\n"
_NAME_AT = FINISH.index(b"%b")

#: An id in JSON is at most this long: 256 characters of any kind, and quotes. What is longer, no agent takes.
NAME_MAX_BYTES = 4 * wire.NAME_MAX_CHARS + 2
#: Of a start, what is neither the id nor a name or an attribute.
_REST_BYTES = len(_START) + 48
#: So much is left for a time, which has 20 digits at most.
_TIME_BYTES = 48
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
        if parent is not None:
            parent = word(parent)
        if root is not None:
            root = word(root)
        outer_id, outer_root = outer.id, outer.root
        if parent in (None, outer_id) and root in (None, outer_root):
            # Else they are of another tree, whose root the agent may know.
            parent, root = outer_id, outer_root
        self.parent, self.root = parent, root
        self.traceparent = word(traceparent) if traceparent is not None else outer.traceparent


def more(outer: "Prediction | Outside", said: "Rest") -> "More | None":
    """That, where there is something to say."""
    made = More(outer, said)
    for said_so in (made.parent, made.root, made.traceparent, made.attributes):
        if said_so is not None:
            return made
    return made if made.detached or made.admit else None


def name_in(end: bytes) -> bytes:
    """How the name is put in, of GIVEN or MADE."""
    return end[_NAME_AT : end.index(b",", _NAME_AT)]


def head(kind: Kind, pid: int, name: bytes) -> tuple[bytes, int]:
    """A start in which the name and the time are missing, and how many attributes are left out of it.

    `name` is the name as it will be there. Raises TooLong.
    """
    plain, more = (*kind[:6], None), kind[6]
    made, is_kept = _plain_head(plain, pid)
    if is_kept and more is None:
        return made, 0
    said, left_out = _said_more(more) if more is not None else b"", 0
    room = wire.MARK_MAX_BYTES - _TIME_BYTES - len(name) - len(made) - len(said)
    if room < 0:
        raise TooLong(f"cannot say this start: expected at most {wire.MARK_MAX_BYTES} bytes")
    if more is not None and more.attributes is not None:
        attributes, left_out = _fitting(more.attributes, room)
        said += b',"attributes":{%b}' % attributes if attributes else b""
    return made[: -len(_END)] + _format(said) + _END, left_out


def _plain_head(kind: Kind, pid: int) -> tuple[bytes, bool]:
    """A start of what most say; and whether it is kept for those who say the same again, since it fits with any id."""
    given = kind[1:6]
    for one in given:
        if one is not None and type(one) is not str:
            is_plain = False
            break
    else:
        is_plain = True
        made = heads.get(kind)
        if made is not None:
            return made, True
    said = _said_by([None if one is None else word(one) for one in given])
    made = _START.replace(b"%b", name_in(kind[0])) + b"%d" % pid + _format(said) + _END
    if not is_plain or len(said) > wire.MARK_MAX_BYTES - _REST_BYTES - NAME_MAX_BYTES:
        return made, False
    if len(heads) >= _HEADS:
        heads.clear()
    heads[kind] = made
    return made, True


def _said_more(more: More) -> bytes:
    said = b',"parent":%b' % quote(more.parent) if more.parent is not None else b""
    if more.root is not None:
        said += b',"root":%b' % quote(more.root)
    if more.traceparent is not None:
        said += b',"traceparent":%b' % quote(more.traceparent)
    return said + b',"detached":true' if more.detached else said


def _format(said: bytes) -> bytes:
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
