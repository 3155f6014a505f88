"""The first line of a journal (and of each of its segments): what was asked for, by whom, on which clock.

Owns what is said of a run before it starts. Refuses to know files.
"""

import posix

from taximeter import wire
from taximeter.wrap import lines
from taximeter.wrap.argv import Options, UsageError

#: A value of the environment is cut here: longer than any list of devices of one node.
_ENV_MAX_BYTES = 4096
#: What is left to the options, so that the open line stays below wire.LINE_MAX_BYTES whatever else is in it.
_OPTIONS_MAX_BYTES = 24_576
#: The time namespace whose clocks are the machine's own; the kernel has a number for it that never changes.
_MACHINES_OWN = "time:[4026531834]"
#: Likewise the pid namespace in which a pid of ours is one of the machine's.
_MACHINES_PIDS = "pid:[4026531836]"


def format_options(options: Options) -> str:
    """The options as a JSON object. Raises UsageError where they are too much for one line."""
    timeout = "null" if options.ready_timeout_ns is None else options.ready_timeout_ns
    text = lines.text
    said = (
        f'{{"worker":{"true" if options.worker else "false"},"model":{text(options.model)},'
        f'"version":{text(options.version)},"account":{text(options.account)},'
        f'"class":{text(options.service_class)},"pool":{text(options.pool)},'
        f'"prediction":{text(options.prediction)},"parent":{text(options.parent)},"root":{text(options.root)},'
        f'"labels":{lines.strings(options.labels)},"units":{lines.strings(options.units)},'
        f'"on_term":{text(options.on_term)},"ready":{text(options.ready)},"ready_timeout_ns":{timeout}}}'
    )
    size = len(lines.line_bytes(said))
    if size > _OPTIONS_MAX_BYTES:
        raise UsageError(
            f"cannot note {size} bytes of options: expected at most {_OPTIONS_MAX_BYTES}; shorten the labels"
        )
    return said


def describe(options: Options, command: list[str], values: dict[str, str], clock: str) -> str:
    """What every segment says of a run, as further keys; `values` is the environment, `clock` is JSON already."""
    visible = {name: lines.cut(values[name], _ENV_MAX_BYTES) for name in wire.ENV_VISIBLE if name in values}
    trace = values.get(wire.ENV_TRACEPARENT)
    if trace is not None and len(trace) > wire.NAME_MAX_CHARS:
        trace = None
    return (
        f',"argv":{lines.argv(command)},"options":{format_options(options)},"clock":{clock},"uid":{posix.getuid()},'
        f'"pid":{posix.getpid()},"sid":{posix.getsid(0)},"env":{lines.strings(visible)},"traceparent":{lines.text(trace)},'
        f'"software":"taximeter {wire.VERSION}"{_time_namespace()}{_pid_namespace()}'
    )


def _time_namespace() -> str:
    """A further key where the clocks here are not the machine's own; reading this link costs a microsecond."""
    try:
        if posix.readlink("/proc/self/ns/time") == _MACHINES_OWN:
            return ""
    except OSError:  # this kernel has none
        return ""
    from taximeter.wrap.timens import offsets

    return offsets()


def _pid_namespace() -> str:
    """A further key where a pid of ours means nothing to the machine."""
    try:
        link = posix.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return "" if link == _MACHINES_PIDS else f',"pidns":{lines.text(link)}'


def open_line(instance: str, segment: int, description: str, at_ns: int) -> bytes:
    """The open fact of a segment."""
    return lines.fact(wire.FACT_OPEN, at_ns, f',"instance":"{instance}","segment":{segment}{description}')
