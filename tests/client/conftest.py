"""Of all tests of the client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.fifo import Fifo, opened


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    with opened(tmp_path) as fifo:
        yield fifo
