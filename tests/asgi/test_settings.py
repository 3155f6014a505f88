"""What a Meter is told, by its arguments, the environment and the headers of a request."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter import wire
from taximeter.asgi import Meter
from taximeter.asgi.headers import header_reader
from taximeter.asgi.settings import HEADERS, Settings, path_matcher, read_settings
from tests.asgi.conversation import Client, answer, request, serve


def said(client: Client, *headers: tuple[bytes, bytes], **settings: Any) -> dict[str, str]:
    """What a prediction was begun with."""
    serve(answer(b"{}"), request() | {"headers": list(headers)}, **settings)
    told: dict[str, str] = client.only.said
    return told


def test_headers_say_what_a_prediction_is(client: Client) -> None:
    pairs = [(name.encode(), f"the {key}".encode()) for key, name in HEADERS.items() if key != "class"]
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert said(client, *pairs, (b"taximeter-class", b"training"), (b"traceparent", trace.encode())) == {
        "id": "the prediction",
        "service_class": "training",
        "traceparent": trace,
        **{key: f"the {key}" for key in ("account", "model", "version", "pool", "parent", "root")},
    }


def test_a_header_comes_before_what_the_meter_was_told(client: Client) -> None:
    told = said(client, (b"taximeter-model", b"b"), model="a", version="1", service_class="training")
    assert told == {"model": "b", "version": "1", "service_class": "training"}


def test_headers_may_have_other_names_and_an_empty_one_takes_none(client: Client) -> None:
    headers = {"account": "X-Customer", "parent": ""}
    pairs = [(b"x-customer", b"cus_1"), (b"taximeter-account", b"cus_2"), (b"taximeter-parent", b"p0"), (b"", b"x")]
    assert said(client, *pairs, headers=headers) == {"account": "cus_1"}


def test_of_a_header_that_is_there_twice_the_last_holds(client: Client) -> None:
    """A gateway that adds its own adds it behind what a client has sent."""
    assert said(client, (b"taximeter-account", b"a"), (b"taximeter-account", b"b"))["account"] == "b"


def test_headers_that_are_not_trusted_say_nothing_but_the_trace(client: Client) -> None:
    pairs = [(b"taximeter-account", b"a"), (b"taximeter-prediction", b"p"), (b"traceparent", b"00-x")]
    assert said(client, *pairs, trust_headers=False, account="c") == {"account": "c", "traceparent": "00-x"}


@pytest.mark.parametrize("bad", [b"", b" ", b"x" * 257, b"a\tb", b"a\x00", "é".encode(), b"\xff", b"a\x7f"])
def test_a_bad_value_is_as_none(client: Client, bad: bytes) -> None:
    assert said(client, *((name.encode(), bad) for name in HEADERS.values())) == {}


@pytest.mark.parametrize("word", ["private", "deployment", "gold", "PUBLIC"])
def test_a_class_that_no_prediction_can_have_is_as_none(client: Client, word: str) -> None:
    assert said(client, (b"taximeter-class", word.encode())) == {}


@given(st.lists(st.tuples(st.sampled_from([name.encode() for name in HEADERS.values()]), st.binary(max_size=300))))
def test_no_header_raises_and_what_is_taken_is_a_name(headers: list[tuple[bytes, bytes]]) -> None:
    for value in header_reader(Settings())(headers).values():
        assert 0 < len(value) <= wire.NAME_MAX_CHARS
        assert value.isprintable()


def test_a_meter_without_arguments_takes_its_settings_from_the_environment() -> None:
    environment = {
        "TAXIMETER_ASGI_MODEL": "acme/m",
        "TAXIMETER_ASGI_SERVICE_CLASS": "fast_boot",
        "TAXIMETER_ASGI_PATHS": "/v1/*, /predict",
        "TAXIMETER_ASGI_SKIP": "",
        "TAXIMETER_ASGI_METHODS": "get,post",
        "TAXIMETER_ASGI_HEADERS": "account=X-Customer,pool=",
        "TAXIMETER_ASGI_TRUST_HEADERS": "no",
        "TAXIMETER_ASGI_CLIENT_ERRORS": "canceled",
        "TAXIMETER_ASGI_USAGE": "0",
        "TAXIMETER_ASGI_WEBSOCKETS": "on",
        "TAXIMETER_ASGI_LIFESPAN": "FALSE",
        "TAXIMETER_ASGI_ADMIT": "1",
    }
    assert read_settings({}, environment) == Settings(
        model="acme/m",
        service_class="fast_boot",
        paths=("/v1/*", "/predict"),
        skip=(),
        methods=("GET", "POST"),
        headers={**HEADERS, "account": "x-customer", "pool": ""},
        trust_headers=False,
        client_errors="canceled",
        usage=False,
        websockets=True,
        lifespan=False,
        admit=True,
    )


def test_an_argument_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXIMETER_ASGI_MODEL", "a")
    monkeypatch.setenv("TAXIMETER_ASGI_USAGE", "0")
    meter = Meter(answer(), model="b", usage=True)
    assert (meter.settings.model, meter.settings.usage) == ("b", True)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"client_errors": "free"}, "cannot use client_errors 'free': expected one of ('failed', 'canceled')"),
        ({"headers": {"acount": "x"}}, "cannot take 'acount' from a header: expected one of "),
        ({"headers": {"account": "x customer"}}, "cannot use 'x customer' as a header: expected a name of HTTP"),
    ],
)
def test_a_setting_that_makes_no_sense_stops_the_server(settings: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=r"^cannot ") as raised:
        Meter(answer(), **settings)
    assert str(raised.value).startswith(expected)


def test_a_switch_that_makes_no_sense_is_named_as_it_stands_in_the_environment() -> None:
    with pytest.raises(ValueError, match=r"^cannot use TAXIMETER_ASGI_USAGE 'maybe': expected 1 or 0$"):
        read_settings({}, {"TAXIMETER_ASGI_USAGE": "maybe"})


def test_a_setting_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError):
        Meter(answer(), modell="x")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("paths", "path", "matches"),
    [
        (("/predict",), "/predict", True),
        (("/predict",), "/predict/", False),
        (("/v1/*",), "/v1/a/b", True),
        (("/v1/*",), "/v10/a", False),
        (("*/generate",), "/models/m/generate", True),
        (("/a?c",), "/abc", True),
        ((), "/", False),
    ],
)
def test_a_star_stands_for_anything(paths: tuple[str, ...], path: str, matches: bool) -> None:
    assert path_matcher(Settings(paths=paths))(path) is matches


def test_a_variable_that_makes_no_sense_stops_a_server_as_it_imports_the_meter() -> None:
    argv = [sys.executable, "-P", "-c", "import taximeter.asgi"]
    done = subprocess.run(argv, env={"TAXIMETER_ASGI_TRUST_HEADERS": "of"}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot use TAXIMETER_ASGI_TRUST_HEADERS 'of': expected 1 or 0" in done.stderr
