"""The platforms' own clients, unchanged, talk to a node: `replicate` lists its hardware."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from taximeter.hardware.tiers import Catalogue, Tier
from taximeter.observe import api
from taximeter.observe.queries import Queries
from tests.core.stories import card
from tests.observe import histories
from tests.observe.nodes import BUSY, TOKEN, ledger_of
from tests.require import require_module

pytestmark = pytest.mark.anyio

PRICE = "0.0001000000000000007"
CATALOGUE = Catalogue((Tier("gpu-t4", "NVIDIA T4", 1, ("Tesla T4",)), Tier("cpu", "CPU", 0)))


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """A node that answers, and is asked without proxies."""
    view = replace(BUSY, catalogue=CATALOGUE, card=card(PRICE))
    with ledger_of(tmp_path, histories.shared_worker()) as reader:
        app = api.build(lambda: view, Queries(reader), TOKEN)
        async with anyio.create_task_group() as tasks:
            yield await tasks.start(api.serve, app, "127.0.0.1", 0)
            tasks.cancel_scope.cancel()


async def python(program: str, **environ: str) -> str:
    """What a Python program of its own says."""

    def run() -> str:
        env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | environ
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return await anyio.to_thread.run_sync(run)


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
