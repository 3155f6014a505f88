"""Applications that test_asgi serves with uvicorn: as frameworks make them, and as they should not be."""

import asyncio
import json
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from taximeter import client
from taximeter.asgi import Meter
from taximeter.asgi.ride import Receive, Scope, Send


async def health(_request: Request) -> Response:
    return Response()


async def fails(_request: Request) -> Response:
    raise LookupError("a fault of the model")


async def endless(request: Request) -> Response:
    """Tells what was used so far with each event, and ends when the client does."""

    async def events() -> AsyncIterator[str]:
        count = 0
        while True:
            count += 1
            yield f"data: {json.dumps({'usage': {'prompt_tokens': 3, 'completion_tokens': count}})}\n\n"
            await asyncio.sleep(0.005)

    return StreamingResponse(events(), media_type="text/event-stream")


async def breaks_off(_request: Request) -> Response:
    """Fails in the midst of a stream that began with 200, as vLLM says it."""

    async def events() -> AsyncIterator[str]:
        yield 'data: {"choices":[{"text":"a"}],"usage":null}\n\n'
        yield 'data: {"error":{"message":"lost the GPU","type":"InternalServerError","code":500}}\n\n'
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def tells_downstream(_request: Request) -> Response:
    """The headers that a call to another model would bear."""
    prediction = client.current()
    assert prediction is not None
    prediction.add(image=2)
    return JSONResponse({"headers": prediction.headers(), "pid": os.getpid()})


async def goes_on(_request: Request) -> Response:
    """Works on after its answer, until it is told to stop."""
    return JSONResponse({}, background=BackgroundTask(stopped.wait))


async def stop(_request: Request) -> Response:
    stopped.set()
    return Response()


stopped = asyncio.Event()


ROUTES = [
    Route("/health", health),
    *(
        Route(f"/{function.__name__}", function, methods=["POST"])
        for function in (fails, endless, breaks_off, tells_downstream, goes_on, stop)
    ),
]

starlette = Starlette(routes=ROUTES)
starlette.add_middleware(Meter)

fastapi = FastAPI()
fastapi.add_middleware(Meter, model="acme/fast")


@fastapi.get("/health")
async def fastapi_health() -> dict[str, str]:
    return {}


@fastapi.post("/predict")
async def predict(count: int) -> dict[str, object]:
    if count > 100:
        raise HTTPException(429, "too many")
    return {"output": "x" * count, "usage": {"prompt_tokens": 1, "completion_tokens": count}}


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """No framework, and no lifespan."""
    assert scope["type"] == "http"
    body = str(len(scope["headers"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


pure = Meter(bare)
