"""The description of the HTTP API: complete, sound, and true of what is answered."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from starlette.routing import Route

from taximeter.billing.rates import parse_card
from taximeter.events import ServiceClass
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch, Ledger
from taximeter.observe import api
from taximeter.observe.experience import Experience
from taximeter.observe.filters import FILTERS
from taximeter.observe.guard import is_open
from taximeter.observe.queries import Queries
from tests.core.stories import card, classes
from tests.observe import histories
from tests.observe.nodes import BUSY, TOKEN

DOCUMENT: dict[str, Any] = json.loads((files("taximeter") / "schema" / "openapi.json").read_bytes())
PATHS: dict[str, Any] = DOCUMENT["paths"]
#: What stands for a path's parameter.
EXAMPLES = {"id": "p1", "model": "acme/sdxl", "slug": "acme/sdxl", "account": "cus_7"}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A node with records, runs and a card, asked without sockets."""
    learnt, _ = Experience().of(histories.elsewhere_run())
    ledger = Ledger.open(tmp_path / "ledger.db", histories.NODE)
    ledger.commit(Batch(tuple(histories.shared_worker()), (), runs=learnt))
    ledger.close()
    model = {"name": "acme/sdxl", "amount": "0.03", "unit": "image", "hardware": "cpu", "versions": {"v1": True}}
    rates = parse_card(card().content() | {"models": [model]}, "test")
    view = replace(BUSY, card=rates, terms=classes().terms[ServiceClass.PUBLIC])
    with LedgerReader(tmp_path / "ledger.db") as reader:
        app = api.build(lambda: view, Queries(reader), TOKEN)
        headers = {"authorization": f"Bearer {TOKEN}", "host": "localhost"}
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as asking:
            yield asking


def routes(tmp_path: Path) -> Iterator[Route]:
    Ledger.open(tmp_path / "ledger.db", histories.NODE).close()
    with LedgerReader(tmp_path / "ledger.db") as reader:
        app: Any = api.build(lambda: BUSY, Queries(reader), TOKEN)
        yield from app._app.router.routes


def shape(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def refs(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        for inner in value.values():
            yield from refs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from refs(inner)


def found(ref: str) -> Any:
    value: Any = DOCUMENT
    for key in ref.removeprefix("#/").split("/"):
        value = value[key]
    return value


def test_every_route_is_described_with_its_methods_and_nothing_else_is(tmp_path: Path) -> None:
    there = {
        shape(route.path): {name.lower() for name in (route.methods or ())} - {"head"} for route in routes(tmp_path)
    }
    assert {shape(path): set(said) for path, said in PATHS.items()} == there


def test_whatever_is_referred_to_is_there() -> None:
    assert all(found(ref) for ref in refs(DOCUMENT))


def test_parameters_of_a_path_are_those_in_it() -> None:
    for path, said in PATHS.items():
        for operation in said.values():
            parameters = [found(one["$ref"]) for one in operation.get("parameters", ())]
            named = {one["name"] for one in parameters if one["in"] == "path"}
            assert named == set(re.findall(r"\{([^}]*)\}", path))


def test_what_is_open_to_all_is_said_to_be() -> None:
    for path, said in PATHS.items():
        for method, operation in said.items():
            open_to_all = method == "get" and is_open(path)
            assert ({} in operation.get("security", DOCUMENT["security"])) is open_to_all, path
            assert ("401" in operation["responses"]) is not open_to_all, path


def test_records_are_filtered_by_what_is_described() -> None:
    described = {found(one["$ref"])["name"] for one in PATHS["/v1/records"]["get"]["parameters"]}
    assert described == set(FILTERS)


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for said in PATHS.values() for operation in said.values()]
    assert len(set(names)) == len(names)


@pytest.mark.anyio
@pytest.mark.parametrize("path", [path for path, said in PATHS.items() if "get" in said])
async def test_what_is_answered_is_as_described(client: httpx.AsyncClient, path: str) -> None:
    asked = re.sub(r"\{([^}]*)\}", lambda name: EXAMPLES[name[1]], path)
    answer = await client.get(asked)
    described = PATHS[path]["get"]["responses"][str(answer.status_code)]
    kind = answer.headers["content-type"].partition(";")[0]
    schema = described["content"][kind]["schema"]
    assert answer.status_code == 200
    if kind == "application/json":
        jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(answer.json())


@pytest.mark.anyio
async def test_lists_are_not_empty_where_they_are_checked(client: httpx.AsyncClient) -> None:
    for path in ("/v1/records", "/v1/instances", "/v1/hardware", "/v1/models"):
        assert (await client.get(path)).json(), path
    (model,) = [one for one in (await client.get("/v1/models")).json() if one["run_time"]][:1]
    assert (model["versions"][0]["fast_boot"], model["cost"][0]["currency"]) == (True, "USD")


@pytest.mark.anyio
async def test_the_description_itself_is_answered(client: httpx.AsyncClient) -> None:
    assert (await client.get("/openapi.json")).json() == DOCUMENT
