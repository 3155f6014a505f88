"""The places records go to, one module a kind; a kind's library is imported only where it is configured."""

from pathlib import Path
from typing import TYPE_CHECKING

from taximeter.errors import ConfigError
from taximeter.shipping.sinks.file import FileSink

if TYPE_CHECKING:
    from taximeter.shipping.sinks.http import HttpSink


def open_sink(  # noqa: PLR0913 - one parameter a key of the config
    name: str,
    kind: str,
    *,
    path: Path | None = None,
    url: str | None = None,
    token_file: Path | None = None,
    timeout_s: float = 10.0,
    gzip: bool = False,
) -> "FileSink | HttpSink":
    """Make the sink called `name`: kind "file" needs `path`, kind "http" needs `url`; ConfigError otherwise."""
    if kind == "file" and path is not None:
        return FileSink(name, path)
    if kind == "http" and url is not None:
        # httpx costs 6 MB and 150 ms: an agent that ships to a file does not pay for it.
        from taximeter.shipping.sinks.http import HttpSink  # noqa: PLC0415

        return HttpSink(name, url, token_file, timeout_s, gzip)
    raise ConfigError((f"sinks.{name}: type = {kind!r}: expected file with a path, or http with a url",))
