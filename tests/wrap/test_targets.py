"""What `--ready` names: addresses and patterns, read before anything runs, and refused with a remedy."""

import _socket
import re

import pytest

from taximeter.wrap.argv import UsageError, parse
from taximeter.wrap.targets import Target

V4, V6 = _socket.AF_INET, _socket.AF_INET6


def target(said: str) -> Target:
    options, _ = parse(["--ready", said, "true"])
    assert options.ready == said
    assert options.target is not None
    return options.target


@pytest.mark.parametrize(
    ("said", "addresses", "path", "host"),
    [
        ("http://127.0.0.1:8000/health-check", [(V4, ("127.0.0.1", 8000))], "/health-check", "127.0.0.1:8000"),
        ("http://127.0.0.1", [(V4, ("127.0.0.1", 80))], "/", "127.0.0.1"),
        ("http://[::1]:8000/a?b=c#d", [(V6, ("::1", 8000))], "/a?b=c", "[::1]:8000"),
        ("http://[::1]", [(V6, ("::1", 80))], "/", "[::1]"),
        ("http://[::1]?x", [(V6, ("::1", 80))], "/?x", "[::1]"),
        ("http://10.0.0.7:1/%20:@", [(V4, ("10.0.0.7", 1))], "/%20:@", "10.0.0.7:1"),
        (
            "http://LocalHost:5000/",
            [(V4, ("127.0.0.1", 5000)), (V6, ("::1", 5000))],
            "/",
            "LocalHost:5000",
        ),
    ],
)
def test_an_http_address_is_asked_for_its_path(said: str, addresses: object, path: str, host: str) -> None:
    found = target(said)
    assert (found.by, found.addresses) == ("http", addresses)
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n"
    assert found.request.decode().startswith(head)
    assert found.request.endswith(b"\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("said", "addresses"),
    [
        ("tcp:127.0.0.1:65535", [(V4, ("127.0.0.1", 65535))]),
        ("tcp:[fe80::1]:22", [(V6, ("fe80::1", 22))]),
        ("tcp:localhost:1", [(V4, ("127.0.0.1", 1)), (V6, ("::1", 1))]),
    ],
)
def test_a_tcp_address_is_only_connected_to(said: str, addresses: object) -> None:
    found = target(said)
    assert (found.by, found.addresses, found.request) == ("tcp", addresses, b"")


def test_a_pattern_is_one_of_bytes() -> None:
    pattern = target("log:^bereit für \\d+$").pattern
    assert pattern is not None
    assert pattern.search("bereit für 7".encode())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("soon", "expected exec, notify, http://"),
        ("HTTP://localhost/", "expected exec, notify, http://"),
        ("https://localhost/", "expected http://"),
        ("http:localhost", "expected http://HOST"),
        ("http:///path", "in numbers"),
        ("http://worker:8000/", "expected localhost or an address in numbers"),
        ("http://me:secret@localhost/", "from 1 to 65535"),
        ("http://me@localhost/", "in numbers"),
        ("http://localhost:/", "from 1 to 65535"),
        ("http://localhost:0/", "from 1 to 65535"),
        ("http://localhost:65536/", "from 1 to 65535"),
        ("http://localhost:+80/", "from 1 to 65535"),
        ("http://localhost:8²/", "from 1 to 65535"),
        ("http://::1/", "brackets"),
        ("http://[::1/", "brackets"),
        ("http://[::1]8/", "brackets"),
        ("http://[127.0.0.1]/", "brackets"),
        ("http://[fe80::1%eth0]/", "in numbers"),
        ("http://127.1/", "in numbers"),
        ("http://localhost/a b", "%20"),
        ("http://localhost/ü", "%20"),
        ("http://localhost/" + "x" * 256, "at most 256 characters"),
        ("http://localhost/\r\nX:y", "printable"),
        ("tcp:localhost", "from 1 to 65535"),
        ("tcp:8000", "from 1 to 65535"),
        ("tcp::8000", "in numbers"),
        ("tcp:[::1]", "from 1 to 65535"),
        ("tcp:", "from 1 to 65535"),
        ("log:", "expected a pattern"),
        ("log:(", "expected a regular expression"),
        ("log:a{99999999999999999999}", "expected a regular expression"),
        ("log:x(?i)", "expected a regular expression"),
        ("log:\x1b", "printable"),
    ],
)
def test_what_cannot_be_waited_for_is_refused_with_what_was_expected(said: str, expected: str) -> None:
    with pytest.raises(UsageError, match=re.escape(expected)):
        parse(["--ready", said, "true"])


def test_the_last_of_several_counts() -> None:
    options, _ = parse(["--ready", "tcp:localhost:1", "--ready", "exec", "true"])
    assert (options.ready, options.target) == ("exec", None)
