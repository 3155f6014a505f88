#!/usr/bin/env python3
"""A server to copy: it goes on with a text as its author might, word by word, and streams what it writes.

    uvicorn --app-dir examples/asgi serve:app                                             as it is
    taximeter run --worker --ready http://127.0.0.1:8000/health -- uvicorn ...            metered

Owns a language model of the old kind, a Markov chain over pairs of words learned from a novel, behind the
`/v1/completions` of OpenAI's API. Knows of the meter one line, `Middleware(Meter)`: each request is a prediction, with
the tokens that its `usage` tells. Without a meter that line is nothing, and the work is the same.
"""

import asyncio
import contextlib
import json
import random
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from taximeter.asgi import Meter

NOVEL = Path(__file__).parent.parent / "one_shot" / "persuasion.txt"
NAME = "examples/novelist"
MOST_TOKENS = 4096


def tokens_of(text: str) -> list[str]:
    """Words and marks of punctuation, in order."""
    return re.findall(r"[\w'-]+|[.,;:!?]", text)


class Novelist:
    """What follows two words in a novel, how often; where nothing ever did, what follows one."""

    def __init__(self, text: str) -> None:
        self.after: dict[tuple[str, ...], list[str]] = defaultdict(list)
        words = tokens_of(text)
        for first, second, third in zip(words, words[1:], words[2:], strict=False):
            self.after[first, second].append(third)
            self.after[(second,)].append(third)
        self.words = words

    def go_on(self, prompt: list[str], count: int, seed: int | None) -> Iterator[str]:
        """`count` words that may follow the prompt; of the same seed always the same."""
        draw = random.Random(seed)
        last = tuple(prompt[-2:])
        for _ in range(count):
            follows = self.after.get(last) or self.after.get(last[-1:]) or self.words
            word = draw.choice(follows)
            yield word
            last = (*last[-1:], word)


@dataclass(frozen=True)
class Order:
    """What a request asks for."""

    prompt: list[str]
    count: int
    seed: int | None
    stream: bool


def read_order(body: bytes) -> Order:
    """The order in a request's body. Raises ValueError."""
    try:
        said: Mapping[str, Any] = json.loads(body)
        prompt, count, seed = said["prompt"], said.get("max_tokens", 64), said.get("seed")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError('expected {"prompt": "..."} in JSON') from error
    if not isinstance(prompt, str) or not (isinstance(count, int) and 0 <= count <= MOST_TOKENS):
        raise ValueError(f"expected a text as prompt, and 0 to {MOST_TOKENS} as max_tokens")
    return Order(tokens_of(prompt), count, seed if isinstance(seed, int) else None, bool(said.get("stream")))


def piece(text: str) -> dict[str, Any]:
    """A part of an answer, or all of it, in the shape of OpenAI's API."""
    return {"object": "text_completion", "model": NAME, "choices": [{"index": 0, "text": text}]}


def usage(order: Order, written: int) -> dict[str, int]:
    """What the meter counts."""
    read = len(order.prompt)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


async def stream(order: Order, words: Iterator[str]) -> AsyncIterator[str]:
    """An event for each word; the last one says what was used. A client that leaves ends it between two words."""
    written = 0
    for word in words:
        written += 1
        yield f"data: {json.dumps(piece(' ' + word))}\n\n"
        await asyncio.sleep(0)  # others take their turn
    yield f"data: {json.dumps({**piece(''), 'choices': [], 'usage': usage(order, written)})}\n\n"
    yield "data: [DONE]\n\n"


async def complete(request: Request) -> Response:
    """POST /v1/completions."""
    try:
        order = read_order(await request.body())
    except ValueError as error:
        return JSONResponse({"error": {"message": f"cannot go on: {error}", "type": "invalid_request"}}, 400)
    novelist: Novelist = request.app.state.novelist
    words = novelist.go_on(order.prompt, order.count, order.seed)
    if order.stream:
        return StreamingResponse(stream(order, words), media_type="text/event-stream")
    written = list(words)
    return JSONResponse({**piece(" ".join(written)), "usage": usage(order, len(written))})


async def health(_request: Request) -> Response:
    """GET /health."""
    return Response("ok")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Learn the novel before the first request: that is the server's boot."""
    app.state.novelist = Novelist(NOVEL.read_text(encoding="utf-8"))
    yield


app = Starlette(
    routes=[Route("/v1/completions", complete, methods=["POST"]), Route("/health", health)],
    middleware=[Middleware(Meter)],
    lifespan=lifespan,
)
