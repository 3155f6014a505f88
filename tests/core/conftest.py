"""Whatever history the core's tests tell, its records are recomputed by who does not trust the core."""

from typing import Any

import pytest

from tests import recomputing
from tests.core.stories import Told

#: A property tells hundreds: test_recompute has properties of its own.
_MOST = 10


@pytest.fixture(autouse=True)
def _told_is_recomputed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    left, init = _MOST, Told.__init__

    def told(self: Told, *values: Any) -> None:
        nonlocal left
        init(self, *values)
        left -= 1
        if left >= 0:
            faults = recomputing.faults_in(recomputing.sealed(self.records))
            assert not faults, "\n".join(faults[:20])

    if request.node.get_closest_marker("forged") is None:
        monkeypatch.setattr(Told, "__init__", told)
