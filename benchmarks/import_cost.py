"""What importing each runtime dependency costs: milliseconds and megabytes, each alone in a fresh interpreter.

Prints the table of docs/dependencies.md. It takes the minimum of several runs, less what a bare interpreter holds,
so that another process on the machine does not make a library look slow.
"""

import json
import subprocess
import sys

RUNS = 7
#: The distribution, and the module of it that we import.
MODULES = {
    "anyio": "anyio",
    "apsw": "apsw",
    "cryptography": "cryptography.hazmat.primitives.asymmetric.ed25519",
    "httpx": "httpx",
    "msgspec": "msgspec",
    "nats-py": "nats",
    "nvidia-ml-py": "pynvml",
    "orjson": "orjson",
    "prometheus-client": "prometheus_client",
    "psutil": "psutil",
    "rich": "rich.console",
    "starlette": "starlette.applications",
    "typer": "typer",
    "uvicorn": "uvicorn",
}
PROBE = """
import json, resource, sys, time
begin = time.perf_counter_ns()
if sys.argv[1]:
    __import__(sys.argv[1])
took = time.perf_counter_ns() - begin
with open("/proc/self/status") as status:
    rss = next(line for line in status if line.startswith("VmRSS")).split()[1]
print(json.dumps([took, int(rss) * 1024]))
"""


def measure(module: str) -> tuple[float, float]:
    """Milliseconds and megabytes of importing `module` once; an empty name imports nothing."""
    results = []
    for _ in range(RUNS):
        done = subprocess.run([sys.executable, "-I", "-c", PROBE, module], capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout))
    return min(ns for ns, _ in results) / 1e6, min(rss for _, rss in results) / 1e6


def main() -> None:
    """Print the table."""
    _, bare_mb = measure("")
    print(f"Python {sys.version.split()[0]}; a bare interpreter holds {bare_mb:.1f} MB. Minimum of {RUNS} runs.\n")
    print("| library | import ms | MB |\n| --- | ---: | ---: |")
    for name, module in MODULES.items():
        took_ms, held_mb = measure(module)
        print(f"| {name} | {took_ms:.0f} | {held_mb - bare_mb:.1f} |")


if __name__ == "__main__":
    main()
