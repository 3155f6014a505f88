"""Files of an operator, whatever is in them: a checked value, or a ConfigError that names what is wrong."""

import contextlib
import copy
import json
import tomllib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.billing.classes import parse_classes
from taximeter.billing.invoice import parse_invoice
from taximeter.billing.models_file import Document
from taximeter.billing.rates import parse_card
from taximeter.config import load, parse_catalogue
from taximeter.config.agent_file import check_agent
from taximeter.config.check import Faults
from taximeter.config.files import parse, parse_json, read_shipped, shipped
from taximeter.errors import ConfigError

SHIPPED = {name: shipped(name).read_bytes() for name in ("agent.toml", "tiers.toml", "rates.toml", "models.json")}

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 70), 1 << 70)
    | st.decimals(allow_nan=False)
    | st.text(max_size=300)
    | st.sampled_from(["", "0", "-1", "nan", "1E999999", "١", "1_0", "../..", "\x1b[2J\n", "[", "*", "x" * 5_000])
    | st.sampled_from([Decimal("1E+999999"), Decimal("NaN"), Decimal("-Infinity"), Decimal("1E-999999")])
    | st.datetimes()
    | st.dates()
    | st.times()
)
keys = st.text(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def put(document: Any, path: tuple[Any, ...], value: object) -> Any:
    """A copy with another value in one place."""
    changed = copy.deepcopy(document)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def judged(read: Callable[[], object]) -> None:
    """It passes, or says why it does not."""
    with contextlib.suppress(ConfigError):
        read()


def check_settings(document: Any) -> None:
    faults = Faults("agent.toml")
    check_agent(document, faults)
    if faults.found:
        raise ConfigError(tuple(faults.found))


AGENT: Any = read_shipped("agent.toml")
TIERS: Any = read_shipped("tiers.toml")
RATES: Any = read_shipped("rates.toml")
MODELS = parse_json(SHIPPED["models.json"], "models.json")
OWN = [
    {
        "name": "m",
        "amount": "1",
        "unit": "image",
        "criterias": [{"field": "resolution", "operator": "in", "value": ["1080p", "4k"], "amount": "2"}],
        "prices": [{"amount": "3", "unit": "token", "counts": "token_input"}],
        "versions": {"v1": True},
        "on_failure": "units",
        "counted": {"picture": "image"},
    }
]
READERS: dict[str, tuple[Any, Callable[[Any], object]]] = {
    "agent": (AGENT, check_settings),
    "classes": (AGENT["billing"]["classes"], lambda document: parse_classes(document, "agent.toml")),
    "invoice": ({"USD": {"places": 2, "mode": "up"}}, lambda document: parse_invoice(document, "agent.toml")),
    "tiers": (TIERS, lambda document: parse_catalogue(document, "tiers.toml")),
    "rates": (RATES, lambda document: parse_card(document, "rates.toml")),
    "own": (OWN, lambda document: parse_card(RATES, "rates.toml", Document(document, "models.toml"))),
    "models": (MODELS, lambda document: parse_card(RATES, "rates.toml", Document(document, "models.json"))),
}


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=100)
@given(data=st.data())
def test_another_value_in_any_place_is_taken_or_refused_in_words(name: str, data: st.DataObject) -> None:
    document, read = READERS[name]
    path = data.draw(st.sampled_from(list(places(document))))
    changed = put(document, path, data.draw(values))
    judged(lambda: read(changed))


@pytest.mark.parametrize("name", ["agent.toml", "tiers.toml", "rates.toml"])
@settings(max_examples=100)
@given(data=st.data())
def test_changed_bytes_of_a_toml_file_are_read_or_refused_in_words(name: str, data: st.DataObject) -> None:
    content = bytearray(SHIPPED[name])
    at = data.draw(st.integers(0, len(content)))
    content[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))
    judged(lambda: parse(bytes(content), name))


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_no_bytes_make_the_reading_of_a_file_raise_anything_else(content: bytes) -> None:
    judged(lambda: parse(content, "agent.toml"))
    judged(lambda: parse_json(content, "models.json"))


@settings(max_examples=100)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=10))
def test_json_of_any_kind_is_read_or_refused_in_words(value: object) -> None:
    judged(lambda: parse_json(json.dumps(value).encode(), "models.json"))


@pytest.mark.parametrize("mode", [0o602, 0o666])
def test_a_file_of_prices_that_everybody_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "rates.toml").write_bytes(SHIPPED["rates.toml"])
    (tmp_path / "rates.toml").chmod(mode)
    (tmp_path / "agent.toml").write_text('rates = "rates.toml"\n')
    (tmp_path / "agent.toml").chmod(0o644)
    with pytest.raises(ConfigError, match="writ"):
        load(tmp_path / "agent.toml", {"TAXIMETER_STATE_DIR": str(tmp_path)})


def test_the_shipped_documents_pass() -> None:
    for document, read in READERS.values():
        read(document)
    assert tomllib.loads(SHIPPED["rates.toml"].decode())
