"""The task group: what runs beside what, what it begins with and how it ends.

Owns start and stop: one agent a state directory, readiness once everything that lay there is booked, and an end within
five seconds that ships what it can and loses nothing. Refuses to know any rule.
"""

import gc
import json
import logging
import os
import random
import resource
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from taximeter.agent import heap, logs
from taximeter.agent.corrector import Corrector
from taximeter.agent.desk import Desk
from taximeter.agent.enforcing import Enforcer
from taximeter.agent.files import alone, kept_token, prepare, unusable, write_private
from taximeter.agent.letters import Letters
from taximeter.agent.notify import Notifier
from taximeter.agent.opening import prepared, witnessed
from taximeter.agent.reconciler import Reconciler, opened
from taximeter.agent.rerater import Rerater
from taximeter.agent.signals import reload_on_signal, stop_on_signal
from taximeter.agent.views import Scene, draw, pulse
from taximeter.agent.watcher import Watcher
from taximeter.config import Config, Directories, SinkConfig, directories, load
from taximeter.errors import TaximeterError
from taximeter.observe import api
from taximeter.observe.queries import Queries
from taximeter.shipping.shipper import Outbox, ship

logger = logging.getLogger(__name__)

#: Of the five seconds that a stop may take, this much is for shipping what is left.
DRAIN_S = 3.0
_SWEEP_S = 1.0


def run(config_path: Path | None) -> int:
    """Run the daemon until it is told to stop; 0 after an orderly end, TaximeterError where it cannot run."""
    logs.begin()
    heap.share()
    config = load(config_path, os.environ)
    where = directories(os.environ)
    prepare(where)
    # What is loaded now stays for ever, and facts make no cycles: looking for garbage often would only cost.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    # Two descriptors an instance: as many as this process may have.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with alone(where.lock):
        try:
            anyio.run(_main, config, where, config_path, Notifier(os.environ))
        except ExceptionGroup as group:
            raise _first_of(group) from group
        except OSError as error:
            raise TaximeterError(unusable(error)) from error
    return 0


def _first_of(group: ExceptionGroup) -> Exception:
    """What ended the tasks: where all of it can be said in words, the first of it."""
    error = group.exceptions[0]
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError):
        return TaximeterError(unusable(error))
    return error if isinstance(error, TaximeterError) else group


async def _main(config: Config, where: Directories, path: Path | None, notifier: Notifier) -> None:
    async with witnessed(config) as witnesses, prepared(config, where, witnesses) as (scene, watcher, reader):
        token = await anyio.to_thread.run_sync(kept_token, where.state / "token")
        async with anyio.create_task_group() as tasks:
            await tasks.start(stop_on_signal, tasks.cancel_scope)
            one_at_a_time = anyio.Lock()
            corrector = Corrector(where.ledger, watcher.unsettled, scene.desk, watcher.scribe, one_at_a_time)
            corrects_late = config.billing.corrects_late
            enforce = Enforcer(scene.books, scene.desk, corrector.wake, corrects_late=corrects_late)
            await tasks.start(reload_on_signal, path, scene.prices, enforce, notifier)
            host, port = config.listen.host, config.listen.port
            app = api.build(
                lambda: draw(_told(scene, watcher)),
                Queries(reader, invoice=config.invoice),
                token,
                pulse=lambda: pulse(_told(scene, watcher)),
                doing=api.Doing(
                    grant=scene.desk.grant,
                    letters=Letters(scene.desk),
                    reconcile=Reconciler(scene.desk, config.sinks),
                    rerate=Rerater(where.ledger, scene.books, watcher.scribe, one_at_a_time),
                    drain=scene.hurry.now,
                ),
                loopback=api.is_loopback(host),
            )
            port = await tasks.start(api.serve, app, host, port)
            if config.listen.unix is not None:
                await tasks.start(api.serve_unix, app, Path(config.listen.unix))
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            await tasks.start(watcher.run)
            scene.caught_up = True
            write_private(where.agent_file, json.dumps({"url": url, "token": token, "pid": os.getpid()}))
            for sink in config.sinks:
                tasks.start_soon(_ship, sink, scene)
            tasks.start_soon(_sweep_now_and_then, watcher, scene)
            tasks.start_soon(scene.devices.run)
            if scene.onlooker is not None:
                tasks.start_soon(scene.onlooker.run)
            tasks.start_soon(scene.prices.run, enforce, random.random)
            tasks.start_soon(corrector.run)
            tasks.start_soon(scene.sealer.run)
            if scene.pruner is not None:
                tasks.start_soon(scene.pruner.run)
            tasks.start_soon(_feed_watchdog, notifier, scene.desk)
            notifier.tell("READY=1", f"STATUS=metering, metrics at {url}/metrics")
            logger.info("agent.ready node=%s url=%s ledger=%s", scene.node.id, url, where.ledger)
        notifier.tell("STOPPING=1")
        where.agent_file.unlink(missing_ok=True)
        with anyio.CancelScope(shield=True):
            await _drain(config, scene, watcher)
    logger.info("agent.stopped records=%d", scene.desk.head.seq)


def _told(scene: Scene, watcher: Watcher) -> Scene:
    """The scene, with what the watcher has to tell now."""
    scene.lag_since_s, scene.trouble = watcher.lag_since_s, watcher.trouble
    return scene


# --- Tasks ---


async def _ship(config: SinkConfig, scene: Scene) -> None:
    outbox: Outbox = scene.desk
    bell, state = scene.desk.bells[config.name], scene.ships[config.name]
    await ship(opened(config), outbox, wake=bell, state=state, jitter=random.random, sleep=scene.hurry.nap)


async def _sweep_now_and_then(watcher: Watcher, scene: Scene) -> None:
    while True:
        await anyio.sleep(_SWEEP_S)
        await watcher.sweep()
        if scene.doors is not None and not scene.doors.is_idle:
            await scene.desk.ask(scene.doors.passed)


async def _feed_watchdog(notifier: Notifier, desk: Desk) -> None:
    """Tell systemd that the loop turns and that the ledger's thread answers."""
    if notifier.watchdog_s is None:
        return
    while True:
        with anyio.move_on_after(notifier.watchdog_s / 2):
            await desk.ask(lambda: None)
            notifier.tell("WATCHDOG=1")
        await anyio.sleep(notifier.watchdog_s / 3)


async def _drain(config: Config, scene: Scene, watcher: Watcher) -> None:
    """Book what is there, ship what can be shipped, keep the state of what still runs."""
    with anyio.move_on_after(DRAIN_S):
        await watcher.rest()
        async with anyio.create_task_group() as tasks:
            for sink in config.sinks:
                tasks.start_soon(_ship, sink, scene)
            while any(state_of.pending for state_of in draw(scene).sinks):  # noqa: ASYNC110 -- DRAIN_S at most
                await anyio.sleep(0.02)
            tasks.cancel_scope.cancel()
    with anyio.move_on_after(1):
        while (batch := scene.books.take_batch()) is not None:
            await scene.desk.commit(batch)
        if (last := scene.books.take_everything()) is not None:
            await scene.desk.commit(last)
