"""What signals ask of the agent: to stop, and to read its prices anew.

Owns that a stop ends, whatever the disk does, and that what is wrong with new prices changes nothing. Refuses to know
how the agent is brought to its end.
"""

import logging
import os
import signal
import threading
import time
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from taximeter.agent.enforcing import Enforcer
from taximeter.agent.notify import Notifier
from taximeter.agent.pricing import Prices
from taximeter.config import load
from taximeter.errors import ConfigError

logger = logging.getLogger(__name__)

#: A disk that has not answered by then is not waited for.
END_S = 4.7


async def reload_on_signal(
    path: Path | None,
    prices: Prices,
    enforce: Enforcer,
    notifier: Notifier,
    *,
    task_status: anyio.abc.TaskStatus[None],
) -> None:
    """Read rates and models anew whenever SIGHUP asks for it; what is wrong with them is said, and nothing changes."""
    if _has_terminal():
        task_status.started()
        return
    with anyio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            notifier.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                card = (await anyio.to_thread.run_sync(load, path, os.environ)).rate_card
                refused = await prices.reload(card, enforce)
                logger.info("agent.reloaded rates=%s", card.version)
            except ConfigError as error:
                refused = str(error)
            if refused is not None:
                logger.error("rates.refused: %s", refused)
            notifier.tell("READY=1")


def _has_terminal() -> bool:
    """Whether this process ends with a terminal, which says so by SIGHUP."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


async def stop_on_signal(scope: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    """Cancel the scope once a signal says so: SIGHUP only where that means that the terminal is gone."""
    numbers = (signal.SIGTERM, signal.SIGINT, *((signal.SIGHUP,) if _has_terminal() else ()))
    with anyio.open_signal_receiver(*numbers) as signals:
        task_status.started()
        async for number in signals:
            logger.info("agent.stopping signal=%s", signal.Signals(number).name)
            patience = threading.Timer(END_S, _end_at_once)
            patience.daemon = True
            patience.start()
            scope.cancel()
            return


def _end_at_once() -> None:
    """The disk does not answer, and whoever stops us waits: all that was committed is safe, the rest is read again."""
    logger.warning("agent.stopped at once: the disk did not answer within %g s", END_S)
    os._exit(0)
