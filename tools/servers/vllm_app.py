"""vLLM's API server, as its `--middleware` makes it, over an answer from memory: no engine runs without its device."""

import asyncio
import sys

import uvicorn
import vllm.platforms
from vllm.platforms.cpu import CpuPlatform

vllm.platforms._current_platform = CpuPlatform()  # its wheel is for another device, for which it looks in vain

from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.common.cli_args import make_arg_parser
from vllm.entrypoints.openai.completion.protocol import (
    CompletionResponse,
    CompletionResponseChoice,
    CompletionResponseStreamChoice,
    CompletionStreamResponse,
)
from vllm.entrypoints.serve.engine.protocol import UsageInfo
from vllm.utils.argparse_utils import FlexibleArgumentParser


class FromMemory:
    """Is well, and completes with as many words as are asked for."""

    async def check_health(self):
        """It is."""

    async def create_completion(self, request, _raw_request):
        """What vLLM's own does, but for the engine."""
        if request.prompt == "error":
            raise RuntimeError("no words")
        words, model = request.max_tokens, request.model
        usage = UsageInfo(prompt_tokens=2, completion_tokens=words, total_tokens=words + 2)
        if request.stream:
            return self._told(words, model, usage)
        await asyncio.sleep(words / 100)
        choice = CompletionResponseChoice(index=0, text="word " * words)
        return CompletionResponse(model=model, choices=[choice], usage=usage)

    async def _told(self, words, model, usage):
        for _ in range(words):
            await asyncio.sleep(0.01)
            choice = CompletionResponseStreamChoice(index=0, text="word ")
            yield f"data: {CompletionStreamResponse(model=model, choices=[choice]).model_dump_json()}\n\n"
        last = CompletionStreamResponse(model=model, choices=[], usage=usage)
        yield f"data: {last.model_dump_json()}\n\ndata: [DONE]\n\n"


if __name__ == "__main__":
    said = ["--middleware", "taximeter.asgi.Meter", "--sse-keep-alive-interval", "1"]
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(said)
    app = build_app(parsed, ("generate",))
    app.state.openai_serving_completion = app.state.engine_client = FromMemory()
    app.state.enable_server_load_tracking = False
    app.state.log_stats = False
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]))
