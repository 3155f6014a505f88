"""Whatever history the core's tests tell, its records are recomputed by who does not trust the core."""

from typing import Any

import pytest
from hypothesis import is_hypothesis_test

from tests import recomputing
from tests.core.stories import Told

#: A property with more examples than this is spared: test_recompute has properties of its own.
_MOST_EXAMPLES = 50


def _is_spared(request: pytest.FixtureRequest) -> bool:
    if request.node.get_closest_marker("forged") is not None:
        return True
    test = request.function
    return is_hypothesis_test(test) and test._hypothesis_internal_use_settings.max_examples > _MOST_EXAMPLES


@pytest.fixture(autouse=True)
def _told_is_recomputed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    init = Told.__init__

    def told(self: Told, *values: Any) -> None:
        init(self, *values)
        faults = recomputing.faults_in(recomputing.sealed(self.records))
        assert not faults, "\n".join(faults[:20])

    if not _is_spared(request):
        monkeypatch.setattr(Told, "__init__", told)
