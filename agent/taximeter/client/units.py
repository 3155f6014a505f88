"""Units as they were given, exact, added up, and cut into as many marks as they need.

Owns no state. Loaded by the first mapping of them, or the first that are told: most predictions have none.
"""

from taximeter.client.text import MAP_MAX_ENTRIES, is_name, pairs, quantity, quote

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from taximeter.client.marks import Units

#: So much of one mark, which leaves room for one more.
_UNITS_BYTES = 1536


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
    """Units, of which what has one name is added up; and how many had to be left out."""
    totals: dict[str, int | str] = {}
    left_out = 0
    for name, amount in held:
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
