"""What BentoML serves in tools/real_servers.py: words at once, and words as they come."""

import asyncio
from collections.abc import AsyncGenerator

import bentoml
from usage import event, last_event, usage_of

from taximeter.asgi import Meter


@bentoml.service(workers=2)
class Words:
    @bentoml.api
    async def predict(self, words: int) -> dict:
        if words < 0:
            raise RuntimeError("no words")
        await asyncio.sleep(words / 100)
        return usage_of(words)

    @bentoml.api
    async def stream(self, words: int) -> AsyncGenerator[str, None]:
        for number in range(words):
            await asyncio.sleep(0.01)
            yield event(number)
        yield last_event(words)


Words.add_asgi_middleware(Meter)
