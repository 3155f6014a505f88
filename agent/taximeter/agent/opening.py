"""What an agent works with, opened in order and closed in reverse: witnesses, ledger, books, who brings facts in.

Owns that order: the kernel is listened to before there is any other thread, the devices are looked at before anything
is placed on them, the ledger is there before journals are read, and what was open is taken up before anybody tells more
of it. Refuses to know what runs beside what (service), and any rule.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from taximeter import kernel, wire
from taximeter.agent.books import Books
from taximeter.agent.custody import Custody
from taximeter.agent.desk import Desk
from taximeter.agent.devices import Devices, open_devices
from taximeter.agent.doors import Doors
from taximeter.agent.enforcing import first_card, open_prices
from taximeter.agent.eyewitness import Eyewitness
from taximeter.agent.halves import Halves
from taximeter.agent.inforce import Known, has_begun, put_in_force, read_known
from taximeter.agent.ledgers import open_ledger, set_aside
from taximeter.agent.onlooker import Onlooker
from taximeter.agent.placing import Placer
from taximeter.agent.pruner import Pruner
from taximeter.agent.quota import Quota
from taximeter.agent.reading import Reading
from taximeter.agent.sealer import Sealer
from taximeter.agent.telling import Telling
from taximeter.agent.views import Scene
from taximeter.agent.watcher import Watcher
from taximeter.config import Config, Directories, SinkConfig, fingerprint
from taximeter.errors import TaximeterError
from taximeter.journal import is_loose, open_directory
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.remembered import check
from taximeter.ledger.store import Batch, Ledger, NodeInfo
from taximeter.shipping.shipper import Bell, ShipState

logger = logging.getLogger(__name__)

_LOOSE = "expected mode 3733, or 0700 where one user alone has runs here"


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Who is asked beside the journals."""

    processes: kernel.ProcessEvents | None
    deaf: str | None  #: why there are no process events
    devices: Devices


@asynccontextmanager
async def witnessed(config: Config) -> AsyncIterator[Witnesses]:
    """The kernel, and the devices, looked at once: what lies in the journals is placed on them."""
    processes, deaf = _listen_to_the_kernel(config)  # first: who asks NVML has none of the agent's capabilities
    devices = open_devices(config.hardware)
    try:
        await devices.look()
        yield Witnesses(processes, deaf, devices)
    finally:
        devices.close()
        if processes is not None:
            processes.close()


@asynccontextmanager
async def prepared(
    config: Config, where: Directories, witnesses: Witnesses
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
    directory_fd: int, config: Config, books: Books, witnesses: Witnesses
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


def _settle_sinks(ledger: Ledger, sinks: tuple[SinkConfig, ...]) -> None:
    """Ship to the sinks of the config, and wait no longer for those that left it."""
    wanted = {sink.name for sink in sinks}
    for name in ledger.sinks().keys() - wanted:
        logger.warning("sink.dropped name=%s: it is no longer in the config, so journals no longer wait for it", name)
        ledger.drop_sink(name)
    for sink in sinks:
        ledger.register_sink(sink.name)
