"""Gives answers of the HTTP API, good and bad, and takes what was sent.

Owns how an answer is written and what each error is to whoever asked. Refuses to know the paths.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import anyio
import msgspec
import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from taximeter.errors import LedgerError, SinkError, TaximeterError
from taximeter.observe.filters import QuestionError
from taximeter.observe.granting import REQUEST_MAX_BYTES, ConflictError, GrantError
from taximeter.observe.guard import problem
from taximeter.observe.letters import LetterError
from taximeter.observe.reconciling import ReconcileError
from taximeter.observe.rerating import RerateError
from taximeter.observe.summary import line_of

#: As the platforms write it, an amount is a number, with all of its digits.
encoded = msgspec.json.Encoder(decimal_format="number").encode
PLAIN = "text/plain"
#: How long a request's body may take.
_BODY_S = 10.0


def in_a_line(receipt: dict[str, Any], refused_marks: Mapping[str, int]) -> Response:
    """Give a receipt in plain words, for whoever has no use for more; 202 while its last record is not written yet.

    `refused_marks` are those of its instance, by reason.
    """
    if receipt["pending"]:
        return Response(f"pending: {receipt['pending_why']}\n", 202, media_type=PLAIN)
    return Response(line_of(receipt, refused_marks) + "\n", media_type=PLAIN)


def as_json(value: object, status: int = 200) -> Response:
    """Give a value as JSON."""
    return Response(orjson.dumps(value), status, media_type="application/json")


def priced(value: object) -> Response:
    """Give JSON in which an amount is a number, as the platforms write it, with all of its digits."""
    return Response(encoded(value), media_type="application/json")


async def _refused(request: Request, error: HTTPException) -> Response:
    detail = error.detail
    if detail == HTTPStatus(error.status_code).phrase:  # the router's own word
        allowed = " or ".join(sorted((error.headers or {}).get("Allow", "GET, HEAD").split(", ")))
        expected = {404: "a path that this node has, such as /v1/status", 405: allowed}.get(error.status_code, detail)
        detail = f"cannot {request.method[:20]} {request.url.path[:256]!r}: expected {expected}"
    return problem(error.status_code, detail, dict(error.headers or {}))


async def body_of(request: Request) -> bytes:
    """Give what was sent, if it is short and comes soon; HTTPException if not."""
    body = b""
    with anyio.move_on_after(_BODY_S) as patience:
        async for chunk in request.stream():
            body += chunk
            if len(body) > REQUEST_MAX_BYTES:
                close = {"connection": "close"}
                raise HTTPException(413, f"expected a body of at most {REQUEST_MAX_BYTES} bytes", close)
    if patience.cancelled_caught:
        raise HTTPException(408, f"expected the body within {_BODY_S:g} s", {"connection": "close"})
    return body


async def _misput(_: Request, error: TaximeterError) -> Response:
    return problem(400, str(error))


async def _unreached(_: Request, error: SinkError) -> Response:
    return problem(502, str(error))


async def _conflicting(_: Request, error: ConflictError) -> Response:
    return problem(409, str(error))


async def _gone(_: Request, __: ClientDisconnect) -> Response:
    return problem(400, "expected a whole body", {"connection": "close"})


async def _unread(_: Request, error: LedgerError) -> Response:
    return problem(503, str(error))


#: What is answered where one of these was raised.
HANDLERS: dict[Any, Any] = {
    HTTPException: _refused,
    ClientDisconnect: _gone,
    ConflictError: _conflicting,
    SinkError: _unreached,
    LedgerError: _unread,
    **dict.fromkeys((QuestionError, GrantError, RerateError, LetterError, ReconcileError), _misput),
}
