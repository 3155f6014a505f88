"""The task group: what runs beside what, what it begins with and how it ends.

Owns start and stop: one agent a state directory, readiness once everything that lay there is booked, and an end within
five seconds that ships what it can and loses nothing. Refuses to know any rule.
"""

import contextlib
import gc
import json
import logging
import os
import random
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from taximeter import kernel, wire
from taximeter.agent import heap, logs
from taximeter.agent.books import Books
from taximeter.agent.corrector import Corrector
from taximeter.agent.custody import Custody
from taximeter.agent.desk import Desk
from taximeter.agent.devices import Devices, open_devices
from taximeter.agent.doors import Doors
from taximeter.agent.enforcing import Enforcer, first_card, open_prices
from taximeter.agent.eyewitness import Eyewitness
from taximeter.agent.files import alone, kept_token, prepare, unusable, write_private
from taximeter.agent.halves import Halves
from taximeter.agent.inforce import Known, has_begun, put_in_force, read_known
from taximeter.agent.ledgers import open_ledger, set_aside
from taximeter.agent.letters import Letters
from taximeter.agent.notify import Notifier
from taximeter.agent.onlooker import Onlooker
from taximeter.agent.placing import Placer
from taximeter.agent.pruner import Pruner
from taximeter.agent.quota import Quota
from taximeter.agent.reading import Reading
from taximeter.agent.reconciler import Reconciler, opened
from taximeter.agent.rerater import Rerater
from taximeter.agent.sealer import Sealer
from taximeter.agent.signals import reload_on_signal, stop_on_signal
from taximeter.agent.telling import Telling
from taximeter.agent.views import Scene, draw, pulse
from taximeter.agent.watcher import Watcher
from taximeter.config import Config, Directories, SinkConfig, directories, fingerprint, load
from taximeter.errors import TaximeterError
from taximeter.journal import is_loose, open_directory
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.remembered import check
from taximeter.ledger.store import Batch, Ledger, NodeInfo
from taximeter.observe import api
from taximeter.observe.queries import Queries
from taximeter.shipping.shipper import Bell, Outbox, ShipState, ship

logger = logging.getLogger(__name__)

#: Of the five seconds that a stop may take, this much is for shipping what is left.
DRAIN_S = 3.0
_SWEEP_S = 1.0
_LOOSE = "expected mode 3733, or 0700 where one user alone has runs here"
_SECOND = 1_000_000_000


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
    async with _witnessed(config) as witnesses, _opened(config, where, witnesses) as (scene, watcher, reader):
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


@dataclass(frozen=True, slots=True)
class _Witnesses:
    """Who is asked beside the journals."""

    processes: kernel.ProcessEvents | None
    deaf: str | None  #: why there are no process events
    devices: Devices


@asynccontextmanager
async def _witnessed(config: Config) -> AsyncIterator[_Witnesses]:
    """The kernel, and the devices, looked at once: what lies in the journals is placed on them."""
    processes, deaf = _listen_to_the_kernel(config)  # first: who asks NVML has none of the agent's capabilities
    devices = open_devices(config.hardware)
    try:
        await devices.look()
        yield _Witnesses(processes, deaf, devices)
    finally:
        devices.close()
        if processes is not None:
            processes.close()


@asynccontextmanager
async def _opened(
    config: Config, where: Directories, witnesses: _Witnesses
) -> AsyncIterator[tuple[Scene, Watcher, LedgerReader]]:
    """Ledger and books, ready to run; closed in order."""
    node = NodeInfo(config.node.id or "", config.node.region, f"taximeter {wire.VERSION}", fingerprint(config))
    with contextlib.ExitStack() as closing:
        ledger = open_ledger(where, node, config.sinks)
        closing.callback(ledger.close)
        directory_fd = _open_directory(where.journal)
        closing.callback(os.close, directory_fd)
        name = config.node.id or ledger.node_id_kept(socket.gethostname())
        node = replace(node, id=name)
        reader = LedgerReader(where.ledger)
        closing.callback(reader.close)
        known = _known(reader, where, ledger)
        prices = open_prices(config, where, known.cards)
        card = await first_card(prices, known, corrects_late=config.billing.corrects_late)
        book, news = put_in_force(config, card, known, ledger.head.ledger_id, f"/nodes/{name}", time.time_ns())
        _settle_sinks(ledger, config.sinks)
        placer = Placer(lambda: witnesses.devices.inventory, config.catalogue)
        books = Books(book, placer.place)
        books.quota = Quota(config.journal.open_per_owner)
        books.resume(ledger.journals())
        reading, custody, onlooker = _metering(directory_fd, config, books, witnesses)
        closing.callback(custody.close)
        desk = Desk(ledger, books.tally)
        if news:
            await desk.commit(Batch(news, ()))
        doors = _open_doors(config, where, ledger, desk)
        closing.callback(doors.close)
        kinds = {sink.name: sink.type for sink in config.sinks}
        scene = Scene(
            node, books, desk, time.time(), witnesses.devices, placer, kinds, prices, _sealer(config, where, desk)
        )
        scene.pruner = Pruner(desk, where.ledger, config.ledger.keep_days)
        scene.processes, scene.witness_trouble, scene.onlooker = witnesses.processes, witnesses.deaf, onlooker
        scene.doors, scene.set_aside = doors, set_aside(where)
        scene.ships = {name: ShipState() for name in kinds}
        desk.bells = {name: Bell() for name in kinds}
        yield scene, Watcher(where.journal, directory_fd, reading, desk, config, custody), reader


def _open_directory(path: Path) -> int:
    directory_fd = open_directory(path)
    if is_loose(directory_fd):
        logger.warning("journal.directory_loose: users may take away each other's files in %s: %s", path, _LOOSE)
    return directory_fd


def _known(reader: LedgerReader, where: Directories, ledger: Ledger) -> Known:
    """What a ledger holds, if it is the one that was sealed here last, or takes its place."""
    known = read_known(reader)
    before = check(where.state / "checkpoint", ledger.head.ledger_id, ledger.head.seq, ledger.hash_at)
    if before is None or has_begun(known):
        return known
    logger.warning("ledger.begun anew: %s had %s records, as far as is known", before["ledger"], before["size"])
    return replace(known, before=before)


def _sealer(config: Config, where: Directories, desk: Desk) -> Sealer:
    handed, every = os.environ.get("CREDENTIALS_DIRECTORY"), config.ledger
    credentials = None if handed is None else Path(handed)
    return Sealer(desk, where.state, credentials, (every.checkpoint_records, every.checkpoint_s))


def _open_doors(config: Config, where: Directories, ledger: Ledger, desk: Desk) -> Doors:
    """Judge what accounts spend by the rules that are in force now, and say who is refused."""
    ledger.charge_by(config.spending)
    doors = Doors(where.run, ledger, config.spending.credit)
    is_strict = config.journal.when_full == "refuse"
    doors.open(refuse_without_agent=config.refuse_without_agent, refuse_when_full=is_strict)
    desk.after = doors.committed
    return doors


def _metering(
    directory_fd: int, config: Config, books: Books, witnesses: _Witnesses
) -> tuple[Reading, Custody, Onlooker]:
    """Whoever brings facts into the books: from journals, of what is held, of what is looked at."""
    owners, devices = config.journal.owner_uids, witnesses.devices
    halves, eyes = Halves(books), Eyewitness(directory_fd, witnesses.processes)
    telling = Telling(halves)
    onlooker = Onlooker(directory_fd, telling, lambda: devices.inventory, config.catalogue)
    devices.listen(onlooker.heard)
    custody = Custody(directory_fd, owners, telling, eyes)
    books.last_words = lambda name, instance, end: (
        *onlooker.last_words(name, instance),
        *custody.last_words(name, end),
    )
    return Reading(directory_fd, owners, halves, eyes.attest), custody, onlooker


def _listen_to_the_kernel(config: Config) -> tuple[kernel.ProcessEvents | None, str | None]:
    """The kernel's process events, where the agent may have them; else why it does without."""
    try:
        processes = kernel.ProcessEvents.open() if config.witness.kernel else None
    except TaximeterError as error:
        logger.warning("witness.no_kernel, using pidfds: %s", error)
        return None, str(error)
    finally:
        _give_up_net_admin()  # before there is any other thread
    if processes is not None:
        processes.start()
    return processes, None


def _give_up_net_admin() -> None:
    try:
        kernel.give_up_net_admin()
    except TaximeterError as error:
        logger.warning("agent.privileged: %s", error)


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


def _settle_sinks(ledger: Ledger, sinks: tuple[SinkConfig, ...]) -> None:
    """Ship to the sinks of the config, and wait no longer for those that left it."""
    wanted = {sink.name for sink in sinks}
    for name in ledger.sinks().keys() - wanted:
        logger.warning("sink.dropped name=%s: it is no longer in the config, so journals no longer wait for it", name)
        ledger.drop_sink(name)
    for sink in sinks:
        ledger.register_sink(sink.name)
