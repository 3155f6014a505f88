"""A real Prometheus, with the shipped configuration, scrapes a served node and answers questions about it."""

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from taximeter.observe import api
from taximeter.observe.queries import Queries
from tests.conftest import ROOT
from tests.observe import histories
from tests.observe.nodes import BUSY, TOKEN, ledger_of
from tests.require import require_program
from tests.system.ports import held_port

pytestmark = pytest.mark.anyio

SHIPPED = ROOT / "config" / "prometheus"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[int]:
    """A node that serves its faces; the port it listens on."""
    reader = ledger_of(tmp_path, histories.one_shot())
    app = api.build(lambda: BUSY, Queries(reader), TOKEN)
    async with anyio.create_task_group() as tasks:
        yield await tasks.start(api.serve, app, "127.0.0.1", 0)
        tasks.cancel_scope.cancel()
    reader.close()


@pytest.fixture
def prometheus(tmp_path: Path, node: int) -> Iterator[int]:
    """A Prometheus on the shipped configuration, its target and pace adapted; the port it listens on."""
    program, home = require_program("prometheus"), tmp_path / "prometheus"
    home.mkdir()
    config = (SHIPPED / "prometheus.yml").read_text()
    assert "127.0.0.1:9847" in config
    config = config.replace("127.0.0.1:9847", f"127.0.0.1:{node}").replace("interval: 15s", "interval: 200ms")
    (home / "prometheus.yml").write_text(config)
    (home / "taximeter.rules.yml").write_text((SHIPPED / "taximeter.rules.yml").read_text())
    command = [program, f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data", "--log.level=warn"]
    with (home / "log").open("wb") as log, held_port() as port:
        command.append(f"--web.listen-address=127.0.0.1:{port}")
        running = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield port
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


async def answer_of(port: int, path: str, **query: str) -> Any:
    """What Prometheus answers; None while it cannot."""
    url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}"

    def ask() -> Any:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as refused:
            refused.close()
            return None
        except OSError:
            return None

    return await anyio.to_thread.run_sync(ask)


async def value_of(port: int, query: str, expected: str | None = None, deadline_s: float = 60.0) -> str:
    """The value of the one series that `query` names, once it is there (and `expected`)."""
    seen = None
    with anyio.move_on_after(deadline_s):
        while True:
            answer = await answer_of(port, "/api/v1/query", query=query)
            if answer and len(answer["result"]) == 1:
                seen = answer["result"][0]["value"][1]
                if expected in (None, seen):
                    return str(seen)
            await anyio.sleep(0.05)
    pytest.fail(f"{query}: expected {expected} within {deadline_s} s, got {seen}")


async def test_prometheus_scrapes_a_node(prometheus: int) -> None:
    assert await value_of(prometheus, 'up{job="taximeter"}', "1") == "1"
    assert await value_of(prometheus, "taximeter_ledger_head") == "20"
    assert await value_of(prometheus, 'taximeter_billed_seconds_total{tier="gpu-h100"}') == "41.5"
    (target,) = (await answer_of(prometheus, "/api/v1/targets"))["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


async def test_the_shipped_rules_are_evaluated_without_an_error(prometheus: int) -> None:
    with anyio.fail_after(60):
        while True:
            groups = (await answer_of(prometheus, "/api/v1/rules") or {"groups": []})["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            if rules and all(rule["health"] == "ok" for rule in rules):
                break
            assert not [rule["lastError"] for rule in rules if rule.get("lastError")]
            await anyio.sleep(0.05)
    assert {rule["name"] for rule in rules} >= {"TaximeterDown", "TaximeterUnrated", "TaximeterSinkFailing"}


def test_promtool_accepts_the_shipped_configuration() -> None:
    promtool = require_program("promtool", "prometheus")
    command = [promtool, "check", "config", str(SHIPPED / "prometheus.yml")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, "SUCCESS" in ran.stdout) == (0, True), ran.stdout + ran.stderr


#: A pool of two nodes that is always up: the first sells half of it and gives some back, the second sells nothing.
POOL_RULE = """
rule_files: [RULES]
tests:
  - interval: 1m
    input_series:
      - {series: 'taximeter_pool_seconds_total{pool="sdxl",phase="idle",instance="a"}', values: '0+30x70'}
      - {series: 'taximeter_pool_seconds_total{pool="sdxl",phase="active",instance="a"}', values: '0+30x70'}
      - {series: 'taximeter_pool_sold_seconds_total{pool="sdxl",instance="a"}', values: '0+30x70'}
      - {series: 'taximeter_pool_returned_seconds_total{pool="sdxl",instance="a"}', values: '0+6x70'}
      - {series: 'taximeter_pool_seconds_total{pool="sdxl",phase="idle",instance="b"}', values: '0+60x70'}
      - {series: 'taximeter_pool_sold_seconds_total{pool="sdxl",instance="b"}', values: '0+0x70'}
      - {series: 'taximeter_pool_returned_seconds_total{pool="sdxl",instance="b"}', values: '0+0x70'}
    promql_expr_test:
      - expr: taximeter:pool_sold:ratio_1h
        eval_time: 65m
        exp_samples: [{labels: 'taximeter:pool_sold:ratio_1h{pool="sdxl"}', value: 0.2}]
"""


def test_what_part_of_a_pool_was_sold_is_recorded_over_all_nodes(tmp_path: Path) -> None:
    promtool = require_program("promtool", "prometheus")
    (tmp_path / "test.yml").write_text(POOL_RULE.replace("RULES", str(SHIPPED / "taximeter.rules.yml")))
    command = [promtool, "test", "rules", str(tmp_path / "test.yml")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, "SUCCESS" in ran.stdout) == (0, True), ran.stdout + ran.stderr


def test_every_metric_that_a_rule_names_exists() -> None:
    named = set(re.findall(r"\btaximeter_[a-z_]+", (SHIPPED / "taximeter.rules.yml").read_text()))
    golden = (ROOT / "tests" / "observe" / "golden_scrape.txt").read_text()
    assert named
    assert named <= set(re.findall(r"^# TYPE (\S+)", golden, re.MULTILINE))
