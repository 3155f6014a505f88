"""The scripted receiver in a thread of its own, for tests whose agent is another process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.shipping.receiver import Receiver


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens until the test is over."""
    receiver = Receiver()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(receiver.serve, "127.0.0.1", 0, limit=16 << 20))
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1/events"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield receiver
    finally:
        loop.call_soon_threadsafe(_end, loop, server)
        thread.join()
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, server: asyncio.Server) -> None:
    server.close()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.call_later(0.05, loop.stop)
