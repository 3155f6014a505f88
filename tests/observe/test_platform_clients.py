"""The platforms' own clients, unchanged, talk to a node: `replicate` lists its hardware, `skytells` its models."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from taximeter.billing.rates import parse_card
from taximeter.events import ServiceClass
from taximeter.hardware.tiers import Catalogue, Tier
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch, Ledger
from taximeter.observe import api
from taximeter.observe.experience import Experience
from taximeter.observe.queries import Queries
from tests.core.stories import card as tiers_of
from tests.core.stories import classes
from tests.observe import histories
from tests.observe.nodes import BUSY, TOKEN, ledger_of
from tests.require import require_module

pytestmark = pytest.mark.anyio

PRICE = "0.0001000000000000007"
MODELS = [
    {"name": "SDXL", "namespace": "acme/sdxl", "amount": "0.03", "unit": "image", "versions": {"v1": True}},
    {"name": "Fine-tune of cus_7", "privacy": "private", "amount": "1.12", "unit": "prediction"},
]
CARD = parse_card(tiers_of(PRICE).content() | {"models": MODELS}, "test")
CATALOGUE = Catalogue((Tier("gpu-t4", "NVIDIA T4", 1, ("Tesla T4",)), Tier("cpu", "CPU", 0)))


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """A node that answers, and is asked without proxies."""
    view = replace(BUSY, catalogue=CATALOGUE, card=CARD, terms=classes().terms[ServiceClass.PUBLIC])
    other = histories.one_shot(model="acme/other")
    ledger_of(tmp_path, histories.shared_worker()).close()
    ledger = Ledger.open(tmp_path / "ledger.db", histories.NODE)
    ledger.commit(Batch((), (), runs=Experience().of(other)[0]))
    ledger.close()
    with LedgerReader(tmp_path / "ledger.db") as reader:
        app = api.build(lambda: view, Queries(reader), TOKEN)
        async with anyio.create_task_group() as tasks:
            yield await tasks.start(api.serve, app, "127.0.0.1", 0)
            tasks.cancel_scope.cancel()


async def python(program: str, *words: str, **environ: str) -> str:
    """What a Python program of its own says."""

    def run() -> str:
        env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | environ
        done = subprocess.run(
            [sys.executable, "-c", program, *words], env=env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return await anyio.to_thread.run_sync(run)


LIST = """
import json, sys
from skytells import Skytells
models = Skytells(sys.argv[1], base_url=sys.argv[2]).models
print(json.dumps([models.list(), [models.get(slug) for slug in sys.argv[3:]]]))
"""


async def models_by_sdk(port: int, key: str, *slugs: str) -> list[Any]:
    """What the platform's own client lists, and what it gets by slug."""
    require_module("skytells")
    told: list[Any] = json.loads(await python(LIST, key, f"http://127.0.0.1:{port}/v1", *slugs))
    return told


async def test_the_platforms_client_lists_models_and_reads_amount_currency_and_unit(port: int) -> None:
    (sdxl,), _ = await models_by_sdk(port, "k")
    assert (sdxl["name"], sdxl["namespace"]) == ("SDXL", "acme/sdxl")
    assert {key: sdxl["pricing"][key] for key in ("amount", "currency", "unit")} == {
        "amount": 0.03,
        "currency": "USD",
        "unit": "image",
    }
    assert sdxl["versions"] == [{"id": "v1", "fast_boot": True, "succeeded": 0}]


async def test_the_platforms_client_gets_a_model_by_its_slug(port: int) -> None:
    _, (sdxl,) = await models_by_sdk(port, "k", "acme/sdxl")
    assert sdxl["name"] == "SDXL"


async def test_with_the_nodes_token_as_its_key_it_lists_private_models_and_those_on_no_card(port: int) -> None:
    listed, _ = await models_by_sdk(port, TOKEN)
    assert [model["name"] for model in listed] == ["SDXL", "Fine-tune of cus_7", "acme/other"]
    assert (listed[2]["pricing"]["unit"], listed[2]["run_time"][0]["n"]) == ("computing_second", 1)


async def test_the_platforms_client_is_told_of_a_model_that_is_not_known(port: int) -> None:
    with pytest.raises(AssertionError, match="SkytellsError"):
        await models_by_sdk(port, "k", "nope")


async def test_the_replicate_client_lists_the_hardware_what_the_node_has_first(port: int) -> None:
    require_module("replicate")
    program = "import replicate; print(*[f'{one.sku}={one.name}' for one in replicate.hardware.list()], sep='|')"
    said = await python(program, REPLICATE_BASE_URL=f"http://127.0.0.1:{port}", REPLICATE_API_TOKEN="anything")
    assert said.strip() == "cpu=CPU|gpu-t4=NVIDIA T4"


async def test_a_price_is_a_json_number_with_all_of_its_digits(port: int) -> None:
    program = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/v1/hardware').read().decode())"
    told = json.loads(await python(program), parse_float=Decimal)
    assert told[0] == {
        "name": "CPU",
        "sku": "cpu",
        "count": 0,
        "here": True,
        "pricing": {"amount": Decimal(PRICE), "currency": "USD", "unit": "computing_second"},
    }
