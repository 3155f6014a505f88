r"""The child: a line with a number comes in, a report on that round goes out. The only door to pynvml.

    <round> <budget in ms>\n  ──►  {"number":<round>,…}\n

Owns the loop, and that nothing but reports leaves by its standard output. It ends when its input does, so that it
outlives no agent. Refuses to set anything on a device.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

from taximeter.hardware.nvml.protocol import Report, unknown, write
from taximeter.hardware.nvml.session import Session


def main() -> None:
    """Answer until nobody asks."""
    with suppress(OSError):  # should a list of impossible length be believed, the kernel ends this process and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    answers = os.dup(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # a library that prints must not be taken for us
    import pynvml  # noqa: PLC0415 - only now: it is a large module, and none of it is ours

    session = Session(pynvml)
    for line in sys.stdin.buffer:
        number, budget_ms = (int(word) for word in line.split())
        try:
            report = session.round(number, budget_ms * 1_000_000)
        except Exception as error:  # noqa: BLE001 -- said to the agent, which replaces this process
            report = Report(number, unknown(f"the NVML reader failed: {type(error).__name__}"), replace=True)
        _send(answers, write(report))
    session.close()


def _send(to: int, answer: bytes) -> None:
    while answer:
        answer = answer[os.write(to, answer) :]


if __name__ == "__main__":
    main()
