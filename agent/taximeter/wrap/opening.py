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


class Opening:
    """What is said of a run in each of its segments; options, environment and clock are JSON already."""

    def __init__(self, instance: str, segment: int, options: str, environment: str, clock: str) -> None:
        self.instance = instance
        self.segment = segment
        self.options = options
        self.environment = environment
        self.clock = clock


def format_environment(values: dict[str, str]) -> str:
    """Keys of the open fact that come from the environment: visible devices, the trace."""
    visible = {name: lines.cut(values[name], _ENV_MAX_BYTES) for name in wire.ENV_VISIBLE if name in values}
    trace = values.get(wire.ENV_TRACEPARENT)
    if trace is not None and len(trace) > wire.NAME_MAX_CHARS:
        trace = None
    return f'"env":{lines.strings(visible)},"traceparent":{lines.text(trace)}'


def open_line(said: Opening, command: list[str], at_ns: int) -> bytes:
    """The open fact."""
    return lines.fact(
        wire.FACT_OPEN,
        at_ns,
        f',"instance":"{said.instance}","segment":{said.segment},"argv":{lines.argv(command)},'
        f'"options":{said.options},"clock":{said.clock},"uid":{posix.getuid()},"pid":{posix.getpid()},'
        f'{said.environment},"software":"taximeter {wire.VERSION}"',
    )
