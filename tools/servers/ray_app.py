"""What Ray Serve serves in tools/real_servers.py: words at once, and words as they come."""

import asyncio
import sys

import ray
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from ray import serve
from usage import event, last_event, usage_of

from taximeter.asgi import Meter

app = FastAPI()
app.add_middleware(Meter)


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.1})
@serve.ingress(app)
class Words:
    @app.post("/predict")
    async def predict(self, request: Request) -> dict:
        words = (await request.json())["words"]
        if words < 0:
            raise RuntimeError("no words")
        await asyncio.sleep(words / 100)
        return usage_of(words)

    @app.post("/stream")
    async def stream(self, request: Request) -> StreamingResponse:
        words = (await request.json())["words"]

        async def told():
            for number in range(words):
                await asyncio.sleep(0.01)
                yield event(number)
            yield last_event(words)

        return StreamingResponse(told(), media_type="text/event-stream")


if __name__ == "__main__":
    ray.init(include_dashboard=False, num_cpus=2, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Words.bind(), blocking=True)
