"""What `--ready` may name beside exec and notify: an address that answers, or a line that is written.

Owns the reading of such a value. Imported once it is on the command line. Refuses to resolve names (a resolver may take
its time, and whoever waits for it forwards no signal) and to open anything.
"""

import _socket

from taximeter import wire
from taximeter.wrap.argv import UsageError, name_fault

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    import re

    Address = tuple[int, tuple[str, int]]

PREFIXES = ("http:", "https:", "tcp:", "log:")
_HTTP_PORT = 80
_LOCAL = ((_socket.AF_INET, "127.0.0.1"), (_socket.AF_INET6, "::1"))
_REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: taximeter/{version}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
)


class Target:
    """What is looked at: addresses to connect to, for http with a request, or a pattern to look for in lines."""

    def __init__(self, by: str) -> None:
        self.by = by
        self.addresses: list[Address] = []
        self.request = b""
        self.pattern: re.Pattern[bytes] | None = None


def parse(word: str, value: str) -> Target:
    """Read the value of `word` that begins with one of PREFIXES. Raises UsageError."""
    kind, _, rest = value.partition(":")
    fault = name_fault(value)
    if fault is None:
        try:
            return _READERS[kind](rest)
        except ValueError as error:
            fault = str(error)
    raise UsageError(f"cannot wait for {word} {value!a}: {fault}")


def _read_http(rest: str) -> Target:
    if not rest.startswith("//"):
        raise ValueError("expected http://HOST[:PORT]/PATH")
    rest = rest[2:].partition("#")[0]
    cut = min([at for at in (rest.find("/"), rest.find("?"), len(rest)) if at >= 0])
    host, path = rest[:cut], rest[cut:]
    if not path.startswith("/"):
        path = "/" + path
    if not path.isascii() or " " in path:
        raise ValueError("expected a path in ASCII, its other characters as %20 and the like")
    target = Target(wire.BY_HTTP)
    target.addresses = _addresses(host, _HTTP_PORT)
    target.request = _REQUEST.format(path=path, host=host, version=wire.VERSION).encode()
    return target


def _read_https(_: str) -> Target:
    raise ValueError(
        "expected http://, since certificates are not checked here; name the plain port, or use tcp: or log:"
    )


def _read_tcp(rest: str) -> Target:
    target = Target(wire.BY_TCP)
    target.addresses = _addresses(rest, None)
    return target


def _read_log(rest: str) -> Target:
    from taximeter.wrap import pattern  # a regular expression costs four milliseconds: only whoever has one pays

    target = Target(wire.BY_LOG)
    target.pattern = pattern.compile_pattern(rest)
    return target


_READERS = {"http": _read_http, "https": _read_https, "tcp": _read_tcp, "log": _read_log}


def _addresses(text: str, default: int | None) -> "list[Address]":
    host, port = _split(text, default)
    if host.lower() == "localhost":
        return [(family, (address, port)) for family, address in _LOCAL]
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, host)
        except OSError:
            continue
        return [(family, (host, port))]
    raise ValueError(f"expected localhost or an address in numbers, since no name is looked up, got {host!a}")


def _split(text: str, default: int | None) -> tuple[str, int]:
    """Host and port of HOST:PORT, with an IPv6 address in brackets."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        if not closed or ":" not in host or colon not in ("", ":"):
            raise ValueError("expected an IPv6 address in brackets, as in [::1]:8000")
    else:
        host, colon, port = text.partition(":")
        if ":" in port:
            raise ValueError("expected an IPv6 address to stand in brackets, as in [::1]:8000")
    if not colon and default is not None:
        return host, default
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ValueError(f"expected a port from 1 to 65535, got {port!a}")
    return host, int(port)
