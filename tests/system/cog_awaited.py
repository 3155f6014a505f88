"""The example's predictor for tests that cancel: it begins once a cancellation takes hold of it. Cog loads this file.

Cog (0.23.1) hands an asynchronous run to its event loop, and notes only then what is to be canceled of it. In between
the run may begin; who cancels it then gets the answer that it is canceled, and it runs on.
"""

import asyncio
import os
import sys
import time
from concurrent.futures import Future
from pathlib import Path as File

from cog import Input, Path, concurrent

sys.path.insert(0, str(File(__file__).parents[2] / "examples" / "cog"))

import predict


def is_awaited() -> bool:
    """Whether a thread of Cog's waits for the result of a run, which it does behind noting what is to be canceled.

    There is but one run at a time where this matters.
    """
    for thread in sys._current_frames().values():
        frame = thread
        while frame is not None:
            if frame.f_code is Future.result.__code__:
                future = frame.f_locals["self"]  # None in the moment in which it returns
                if future is not None and not future.done():
                    return True
            frame = frame.f_back  # type: ignore[assignment] # None at the end
    return False


class Runner(predict.Runner):
    """As the example, begun later; when its setup was over is beside the state directory."""

    def setup(self, weights: str) -> None:
        super().setup(weights)
        File(os.environ["TAXIMETER_STATE_DIR"]).with_name("setup").write_text(str(time.monotonic_ns()))

    @concurrent(max=4)
    async def run(
        self,
        text: str = Input(default=""),
        document: Path | None = Input(default=None),
        words: int = Input(default=100),
        seed: int = Input(default=0),
    ) -> str:
        while not is_awaited():  # noqa: ASYNC110 -- no event tells of another thread
            await asyncio.sleep(0)
        return await super().run(text, document, words, seed)
