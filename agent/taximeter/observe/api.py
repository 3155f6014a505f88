"""The node's HTTP API: routes to questions, and answers in the format that was asked for.

Owns paths and formats. Who may ask is the guard's, what an answer is made of the queries', and connections are
the server's business. Nothing here changes a measurement. The ledger is asked in a thread, one question
at a time; the loop never waits for the disk.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple, TypeVar

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from taximeter.billing.credit import Grant
from taximeter.observe.answers import HANDLERS, PLAIN, as_json, body_of, encoded, in_a_line, priced
from taximeter.observe.filters import filter_of, kind_of
from taximeter.observe.granting import (
    agree,
    granted_view,
    read_grant,
)
from taximeter.observe.guard import TRUSTED, Guard
from taximeter.observe.letters import Order, read_order
from taximeter.observe.metrics import render
from taximeter.observe.models import found_by
from taximeter.observe.queries import Queries
from taximeter.observe.reconciling import Looked, looked_view, read_request
from taximeter.observe.reconciling import Request as WhatToLookAt
from taximeter.observe.rerating import Asked, Rerated, read_asked, rerated_view
from taximeter.observe.server import is_loopback, serve, serve_unix
from taximeter.observe.snapshot import Pulse, Snapshot

__all__ = ["build", "is_loopback", "serve", "serve_unix"]

NDJSON = "application/x-ndjson"
#: The list of models is so old at most, or, where reading it takes long, so many times older than that took.
MODELS_KEPT_S = 5.0
_MODELS_SHARE = 20

#: Grants credit; gives the grant of that id as it is kept, and whether it is new.
GrantCredit = Callable[[Grant], Awaitable[tuple[Grant, bool]]]
#: Rates what is unrated, as far as that can be.
Rerate = Callable[[Asked], Awaitable[Rerated]]
#: Does something with dead letters; gives how many there were.
TreatLetters = Callable[[Order], Awaitable[int]]

#: Looks at some of what a receiver has.
Reconcile = Callable[[WhatToLookAt], Awaitable[Looked]]

#: So many dead letters are listed at most.
_MOST_LETTERS = 1000

_T = TypeVar("_T")


def _nothing() -> None:
    """There is nobody who ships."""


@dataclass(frozen=True, slots=True)
class Doing:
    """What may be done here, beside reading; None: not here."""

    grant: GrantCredit | None = None
    rerate: Rerate | None = None
    letters: TreatLetters | None = None
    reconcile: Reconcile | None = None
    drain: Callable[[], None] = _nothing  #: ships at once, whatever is waited for


def build(
    snapshot: Callable[[], Snapshot],
    queries: Queries,
    token: str,
    *,
    pulse: Callable[[], Pulse | Snapshot] | None = None,
    doing: Doing | None = None,
    loopback: bool = True,
) -> ASGIApp:
    """Make the ASGI application of a node.

    `snapshot` is called in the event loop for each request and must be cheap; `pulse` is as much of it as is asked for
    every second, and must cost nothing, however much runs; `queries` answer from the ledger; `token` opens what is not
    open to all; `doing` is what may be done here, beside reading; `loopback` is whether it will listen there
    (`is_loopback(host)`).
    """
    faces = _Faces(snapshot, pulse or snapshot, queries, doing or Doing())
    routes = [
        Route("/metrics", faces.metrics),
        Route("/healthz", faces.healthz),
        Route("/readyz", faces.readyz),
        Route("/openapi.json", faces.openapi),
        Route("/v1/status", faces.status),
        Route("/v1/instances", faces.instances),
        Route("/v1/records", faces.records),
        Route("/v1/receipts/{asked:path}", faces.receipt),
        Route("/v1/estimates/{asked:path}", faces.estimate),
        Route("/v1/accounts/{account:path}/grants", faces.grant, methods=["POST"]),
        Route("/v1/accounts/{account:path}", faces.account),
        Route("/v1/drain", faces.drain, methods=["POST"]),
        Route("/v1/rerate", faces.rerate, methods=["POST"]),
        Route("/v1/deadletters", faces.letters, methods=["GET", "POST"]),
        Route("/v1/reconcile", faces.reconcile, methods=["POST"]),
        Route("/v1/devices", faces.devices),
        Route("/v1/devices/explained", faces.explained),
        Route("/v1/hardware", faces.hardware),
        Route("/v1/models", faces.models),
        Route("/v1/models/{slug:path}", faces.model),
        Route("/v1/model/{slug:path}", faces.model),
    ]
    app = Starlette(routes=routes, exception_handlers=HANDLERS)
    app.router.redirect_slashes = False
    return Guard(app, token, loopback=loopback)


class _Listed(NamedTuple):
    """Models, and the answer that lists them."""

    models: Sequence[dict[str, Any]] = ()
    body: bytes = b"[]"

    @staticmethod
    def of(models: Sequence[dict[str, Any]]) -> "_Listed":
        return _Listed(models, encoded(models))


class _Faces:
    """One method a path."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        pulse: Callable[[], Pulse | Snapshot],
        queries: Queries,
        doing: Doing,
    ) -> None:
        self._snapshot = snapshot
        self._pulse = pulse
        self._queries = queries
        self._doing = doing
        # A connection to the ledger is for one thread at a time, and hostile askers shall queue, not pile up.
        self._one_at_a_time = anyio.CapacityLimiter(1)
        self._reading_models = anyio.Lock()
        self._models = _Listed(), _Listed()  # all, and what is for everybody
        self._models_until_s = 0.0

    async def metrics(self, request: Request) -> Response:
        body, kind = render(self._snapshot(), request.headers.get("accept", ""), process=True)
        return Response(body, headers={"content-type": kind})

    async def healthz(self, _: Request) -> Response:
        alive = self._pulse().alive
        return as_json({"alive": alive}, 200 if alive else 503)

    async def readyz(self, _: Request) -> Response:
        ready = self._pulse().ready
        return as_json({"ready": ready}, 200 if ready else 503)

    async def openapi(self, _: Request) -> Response:
        document = (files("taximeter") / "schema" / "openapi.json").read_bytes()
        return Response(document, media_type="application/json")

    async def status(self, _: Request) -> Response:
        return as_json(await self._ask(Queries.status))

    async def instances(self, _: Request) -> Response:
        return as_json(await anyio.to_thread.run_sync(self._queries.at(self._snapshot()).instances))

    async def devices(self, _: Request) -> Response:
        return as_json(self._queries.at(self._snapshot()).devices())

    async def hardware(self, _: Request) -> Response:
        return priced(self._queries.at(self._snapshot()).hardware())

    async def explained(self, _: Request) -> Response:
        return as_json(self._queries.at(self._snapshot()).explained())

    async def records(self, request: Request) -> Response:
        wanted = filter_of(dict(request.query_params))
        bodies = await self._ask(lambda queries: list(queries.records(wanted)))
        if NDJSON in request.headers.get("accept", ""):
            return Response(b"".join(body + b"\n" for body in bodies), media_type=NDJSON)
        return Response(b"[" + b",".join(bodies) + b"]", media_type="application/json")

    async def receipt(self, request: Request) -> Response:
        asked = request.path_params["asked"]
        plain = PLAIN in request.headers.get("accept", "")
        receipt = await self._ask(lambda queries: (queries.last_run if plain else queries.receipt)(asked))
        if receipt is None:
            raise HTTPException(404, await self._ask(lambda queries: queries.unknown(asked)))
        if plain:
            return in_a_line(receipt, self._snapshot().refused_marks.get(receipt["instance"], {}))
        return as_json(receipt)

    async def models(self, request: Request) -> Response:
        return Response((await self._listed(request)).body, media_type="application/json")

    async def model(self, request: Request) -> Response:
        slug = request.path_params["slug"]
        found = found_by((await self._listed(request)).models, slug)
        if found is None:
            raise HTTPException(404, f"cannot find model {slug[:256]!r}: expected one that /v1/models lists")
        return priced(found)

    async def _listed(self, request: Request) -> "_Listed":
        """The models that whoever asks may know of. They are open to all, so they are not read anew for each."""
        async with self._reading_models:
            if time.monotonic() >= self._models_until_s:
                began_s = time.monotonic()
                listed = await self._ask(Queries.models)
                now_s = time.monotonic()
                public = self._queries.at(self._snapshot()).public_models(listed)
                self._models = _Listed.of(listed), _Listed.of(public)
                self._models_until_s = now_s + max(MODELS_KEPT_S, _MODELS_SHARE * (now_s - began_s))
        return self._models[0 if request.scope[TRUSTED] else 1]

    async def estimate(self, request: Request) -> Response:
        wanted = kind_of(request.path_params["asked"], dict(request.query_params))
        return as_json(await self._ask(lambda queries: queries.estimate(wanted)))

    async def account(self, request: Request) -> Response:
        asked = request.path_params["account"]
        view = await self._ask(lambda queries: queries.account(asked))
        if view is None:
            raise HTTPException(404, f"cannot find account {asked[:256]!r}: expected one that this node has records of")
        return as_json(view)

    async def grant(self, request: Request) -> Response:
        asked = read_grant(request.path_params["account"], await body_of(request), time.time_ns())
        if self._doing.grant is None:
            raise HTTPException(503, "cannot grant here: expected an agent that writes the ledger")
        if asked.expires_utc_ns is not None and asked.expires_utc_ns <= asked.granted_utc_ns:
            kept, is_new = await self._ask(lambda queries: queries.granted(asked.id)), False
            if kept is None:
                raise HTTPException(400, "cannot grant what has expired: expected an expires_utc that is to come")
        else:
            kept, is_new = await self._doing.grant(asked)
        agree(asked, kept)
        return as_json(granted_view(kept, is_new=is_new), 201 if is_new else 200)

    async def rerate(self, request: Request) -> Response:
        asked = read_asked(await body_of(request))
        if self._doing.rerate is None:
            raise HTTPException(503, "cannot rerate here: expected an agent that writes the ledger")
        return as_json(rerated_view(await self._doing.rerate(asked)))

    async def letters(self, request: Request) -> Response:
        if request.method == "POST":
            return await self._treat_letters(request)
        sink = request.query_params.get("sink")
        return as_json(await self._ask(lambda queries: queries.dead_letters(sink, _MOST_LETTERS)))

    async def _treat_letters(self, request: Request) -> Response:
        order = read_order(await body_of(request))
        if self._doing.letters is None:
            raise HTTPException(503, "cannot treat dead letters here: expected an agent that ships")
        return as_json({"do": order.deed, "sink": order.sink, "records": await self._doing.letters(order)})

    async def reconcile(self, request: Request) -> Response:
        asked = read_request(await body_of(request))
        if self._doing.reconcile is None:
            raise HTTPException(503, "cannot reconcile here: expected an agent that ships")
        return as_json(looked_view(await self._doing.reconcile(asked)))

    async def drain(self, _: Request) -> Response:
        self._doing.drain()
        return Response(status_code=202)

    async def _ask(self, question: Callable[[Queries], _T]) -> _T:
        queries = self._queries.at(self._snapshot())
        return await anyio.to_thread.run_sync(question, queries, limiter=self._one_at_a_time)
