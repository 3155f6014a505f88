"""The time namespace that we are in, whose clocks are not the machine's own (time_namespaces(7)).

Loaded only in one. Owns /proc/self/timens_offsets, which is of the namespace that our children will be in: after an
exec, and so for us, the same. Refuses to say anything where that cannot be read.
"""

from taximeter.wrap.entry import read_file

_NS_PER_S = 1_000_000_000


def offsets() -> str:
    """By how much the clocks here are ahead, as a further key of the open fact; nothing where they are not."""
    try:
        rows = dict([_parse(row) for row in read_file("/proc/self/timens_offsets").splitlines()])
        monotonic, boottime = rows[b"monotonic"], rows[b"boottime"]
    except (OSError, ValueError, KeyError):
        return ""
    return f',"timens":{{"monotonic":{monotonic},"boottime":{boottime}}}' if monotonic or boottime else ""


def _parse(row: bytes) -> tuple[bytes, int]:
    name, seconds, nanoseconds = row.split()
    return name, int(seconds) * _NS_PER_S + int(nanoseconds)
