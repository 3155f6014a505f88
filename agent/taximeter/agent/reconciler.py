"""Reads back what a sink's receiver has, some records at a time, and sends again what it lost.

Owns which records: those that the sink acknowledged, but dead letters. Uses a connection of its own, so that it delays
no shipping. Refuses to know how a receiver is read.
"""

from collections.abc import Sequence

from taximeter.agent.desk import Desk
from taximeter.config.model import SinkConfig
from taximeter.observe.reconciling import Looked, ReconcileError, Request
from taximeter.shipping.delivery import Sink
from taximeter.shipping.reconcile import reconcile
from taximeter.shipping.sinks import open_sink

#: So many records are looked at in one request.
_AT_ONCE = 50


class Reconciler:
    """Whoever is asked to look at what a receiver has."""

    def __init__(self, desk: Desk, sinks: Sequence[SinkConfig]) -> None:
        self._desk = desk
        self._sinks = {sink.name: sink for sink in sinks}

    async def __call__(self, asked: Request) -> Looked:
        """Look at the next records. Raises ReconcileError, SinkError, LedgerError."""
        config = self._sinks.get(asked.sink)
        if config is None:
            known = ", ".join(sorted(self._sinks)) or "none: no sink is configured"
            raise ReconcileError(f"cannot find sink {asked.sink!r}: expected one of {known}")
        records = await self._desk.acknowledged(asked.sink, asked.after, asked.since_utc_ns or 0, _AT_ONCE)
        sink = opened(config)
        try:
            lost = await reconcile(sink, [record.body for record in records], dry_run=asked.dry_run) if records else 0
        finally:
            await sink.close()
        after = records[-1].seq if records else asked.after
        return Looked(asked.sink, after, len(records), lost, len(records) < _AT_ONCE)


def opened(config: SinkConfig) -> Sink:
    """The sink that is configured so."""
    return open_sink(
        config.name,
        config.type,
        path=config.path,
        rotate_bytes=config.rotate_bytes,
        keep=config.keep,
        url=config.url,
        read_url=config.read_url,
        subject=config.subject,
        token_file=config.token_file,
        user=config.user,
        creds_file=config.creds_file,
        timeout_s=config.timeout_s,
        gzip=config.gzip,
    )
