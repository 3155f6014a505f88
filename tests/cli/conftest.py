"""A node that has run a few things, for the command line to tell of."""

import os
from pathlib import Path

import pytest

from tests.cli import node
from tests.observe import histories

HOSTILE = "\x1b[31mred\x1b[0m\n[bold]x[/bold]\u202e=1+1"


@pytest.fixture
def state() -> Path:
    """The state directory of this test (tests/conftest.py names it)."""
    return Path(os.environ["TAXIMETER_STATE_DIR"])


@pytest.fixture
def booked(state: Path) -> Path:
    """A ledger with one run of each kind."""
    return node.write(
        state,
        node.renamed(histories.one_shot(account="cus_7", model="acme/sdxl-lora", version="3f2a"), 1, "p-one"),
        node.renamed(histories.shared_worker(), 2),
        node.renamed(histories.aborted_run(), 3, "p-aborted"),
        node.renamed(histories.private_run(), 4, "p-private"),
        node.renamed(histories.unpriced_run(), 5, "p-unpriced"),
        node.renamed(histories.killed_run(), 6, "p-killed"),
    )


@pytest.fixture
def hostile(state: Path) -> Path:
    """A ledger whose ids were chosen by somebody who wants to own the terminal of whoever reads them."""
    options = {"account": HOSTILE, "model": HOSTILE, "version": HOSTILE, "labels": {HOSTILE: HOSTILE}}
    return node.write(state, node.renamed(histories.one_shot(**options), 1, HOSTILE))
