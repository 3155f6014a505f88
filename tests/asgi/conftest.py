"""Meters here tell a stand-in of the client; tests/system/test_asgi.py has the real one."""

import pytest

from taximeter.asgi import meter
from tests.asgi.conversation import Client


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    stand_in = Client()
    monkeypatch.setattr(meter, "client", stand_in)
    return stand_in
