"""The places records go to, one module a kind; a kind's library is imported only where it is configured."""

from pathlib import Path
from typing import TYPE_CHECKING

from taximeter.errors import ConfigError
from taximeter.shipping.sinks.file import FileSink

if TYPE_CHECKING:
    from taximeter.shipping.sinks.http import HttpSink
    from taximeter.shipping.sinks.nats import NatsSink


def open_sink(  # noqa: PLR0913 - one parameter a key of the config
    name: str,
    kind: str,
    *,
    path: Path | None = None,
    rotate_bytes: int | None = None,
    keep: int | None = None,
    url: str | None = None,
    read_url: str | None = None,
    subject: str | None = None,
    token_file: Path | None = None,
    user: str | None = None,
    creds_file: Path | None = None,
    timeout_s: float = 10.0,
    gzip: bool = False,
) -> "FileSink | HttpSink | NatsSink":
    """Make the sink called `name`: "file" needs `path`, "http" `url`, "nats" `url` and `subject`; ConfigError else."""
    if kind == "file" and path is not None:
        return FileSink(name, path, rotate_bytes, keep)
    if kind == "http" and url is not None:
        # httpx costs 6 MB and 150 ms: an agent that ships to a file does not pay for it.
        from taximeter.shipping.sinks.http import HttpSink  # noqa: PLC0415

        return HttpSink(name, url, token_file, timeout_s, gzip, read_url)
    if kind == "nats" and url is not None and subject is not None:
        from taximeter.shipping.sinks.nats import NatsSink  # noqa: PLC0415 - as costly as httpx

        who = {"token_file": token_file, "creds_file": creds_file}
        return NatsSink(name, url, subject, user=user, timeout_s=timeout_s, **who)
    expected = "file with a path, http with a url, or nats with a url and a subject"
    raise ConfigError((f"sinks.{name}: type = {kind!r}: expected {expected}",))
