"""Whether a prediction may begin: only one that asks, and where the agent has said no."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter import client
from taximeter.client import admission
from taximeter.wrap import places
from tests.client.fifo import Fifo


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The run directory, as the environment of every test has it."""
    (tmp_path / "run" / "denied").mkdir(parents=True)
    return tmp_path / "run"


def test_a_denied_account_is_refused_before_anything_is_said(fifo: Fifo, run: Path) -> None:
    (run / "denied" / "cus_7").touch()
    entered = []
    with pytest.raises(client.Refused, match="cus_7"), client.prediction(account="cus_7", admit=True):
        entered.append(True)
    assert (entered, fifo.lines()) == ([], [])
    assert client.current() is None


def test_one_that_does_not_ask_begins(fifo: Fifo, run: Path) -> None:
    (run / "denied" / "cus_7").touch()
    with client.prediction(account="cus_7"):
        pass
    assert len(fifo.lines()) == 2


def test_another_account_is_admitted(fifo: Fifo, run: Path) -> None:
    (run / "denied" / "cus_7").touch()
    with client.prediction(account="cus_8", admit=True):
        pass
    assert len(fifo.lines()) == 2


def test_a_node_that_needs_its_agent_refuses_without(fifo: Fifo, run: Path) -> None:
    (run / "refuse-without-agent").touch()
    with pytest.raises(client.Refused, match="agent"):
        client.prediction(admit=True).start()
    (run / "agent").write_text(f'{{"url":"","pid":{os.getpid()}}}')
    client.prediction(admit=True).start()
    assert len(fifo.lines()) == 1


def test_without_a_meter_everything_is_admitted(run: Path) -> None:
    (run / "denied" / "cus_7").touch()
    with client.prediction(account="cus_7", admit=True):
        pass


def test_a_decorated_function_of_a_denied_account_is_not_called(fifo: Fifo, run: Path) -> None:
    (run / "denied" / "cus_7").touch()

    @client.prediction(account="cus_7", admit=True)
    def predict() -> None:
        raise AssertionError

    with pytest.raises(client.Refused):
        predict()


_names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=256)


@given(_names, st.none() | _names)
def test_a_denied_account_is_looked_for_where_a_run_looks_for_it(account: str, model: str | None) -> None:
    assert admission.denied_name(account, model) == places.denied_name(account, model)


def test_a_denied_model_is_refused_to_its_account_alone(fifo: Fifo, run: Path) -> None:
    (run / "denied" / "cus_7@acme%2Fsdxl").touch()
    with pytest.raises(client.Refused, match="acme/sdxl"):
        client.prediction(account="cus_7", model="acme/sdxl", admit=True).start()
    client.prediction(account="cus_7", model="acme/llama", admit=True).start()
    client.prediction(account="cus_8", model="acme/sdxl", admit=True).start()
    assert len(fifo.lines()) == 2


@pytest.mark.parametrize(
    "environment",
    [
        {"TAXIMETER_RUN_DIR": "/r"},
        {"TAXIMETER_STATE_DIR": "/s"},
        {"TAXIMETER_STATE_DIR": "/s", "TAXIMETER_RUN_DIR": "/r"},
        {"TAXIMETER_STATE_DIR": "/var/lib/taximeter"},
        {"XDG_STATE_HOME": "/x"},
        {"HOME": "/home/u"},
    ],
)
def test_the_run_directory_is_that_of_taximeter_run(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TAXIMETER_RUN_DIR", "TAXIMETER_STATE_DIR"):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    state, run = places.directories(environment)
    assert admission.run_directory(f"{state}/journal/i.marks") == run
