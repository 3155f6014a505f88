"""What a command's output costs on its way through `taximeter run --ready log:REGEX`: while it is searched, and after.

The command writes lines of 80 bytes into a pipe that is read as fast as it can be. Each way is taken in the same
rounds; the figure is the median of a way's rounds.

    python benchmarks/relay_rate.py [--mib 512] [--rounds 7]
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

from interpreter import describe
from wrapper_cost import program

WRITER = """
import os, sys
block = (b"x" * 79 + b"\\n") * 819
os.write(1, b"up\\n")
for _ in range(int(sys.argv[1]) * 16): os.write(1, block)
"""
BARE, SEARCHED, PASSED = "without the meter", "while every line is searched", "after the line has come"


def rate(words: list[str], mib: int) -> float:
    """MiB a second, from the first byte to the last."""
    with subprocess.Popen([*words, sys.executable, "-c", WRITER, str(mib)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        fd, read = process.stdout.fileno(), len(os.read(process.stdout.fileno(), 3))
        began = time.monotonic_ns()
        while data := os.read(fd, 1 << 20):
            read += len(data)
        took_s = (time.monotonic_ns() - began) / 1e9
    return read / (1 << 20) / took_s


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    said = parser.parse_args()
    run = [str(program()), "run"]
    ways = {
        BARE: [],
        SEARCHED: [*run, "--ready", "log:^never$", "--"],
        PASSED: [*run, "--ready", "log:^up$", "--"],
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["TAXIMETER_STATE_DIR"] = temporary
        for _ in range(said.rounds):
            for way in random.sample(list(ways), len(ways)):
                rates[way].append(rate(ways[way], said.mib))
    median = {way: statistics.median(found) for way, found in rates.items()}
    print(f"{describe()}; {said.mib} MiB in lines of 80 bytes, {said.rounds} interleaved rounds\n")
    print("| a pipe is written and read | MiB/s | of its speed |")
    print("| --- | ---: | ---: |")
    for way, found in median.items():
        print(f"| {way} | {found:.0f} | {found / median[BARE]:.2f} |")


if __name__ == "__main__":
    main()
