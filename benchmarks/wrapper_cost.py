"""What `taximeter run -- /bin/true` adds to `/bin/true`, against a bare interpreter and other tools that measure.

Every tool starts the same command in the same rounds, in an order that changes from round to round. Added is the
median of a tool's rounds less that of a bare posix_spawn; the ratio is to the whole of `python3 -I -S -c pass`, which
is what any wrapper in Python pays at least. `srun` is one of a Slurm of its own, once as it is typed, which is a job
on an idle node, and once as a step of an allocation, which is the least that it can cost; they have rounds of their
own, since the daemons are busy for a while after each. `systemd-run` is measured where systemd runs, else in a
throw-away container: as root over the system bus, and all others with it.

    python benchmarks/wrapper_cost.py [--rounds 200] [--state DIR]
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import slurm
from interpreter import describe

ROOT = Path(__file__).parent.parent
COMMAND = "/bin/true"
BARE, PYTHON, TAXIMETER = "posix_spawn", "python3 -I -S -c pass", "taximeter run"
SRUN, STEP, SYSTEMD = "srun", "srun --jobid", "systemd-run --wait"
WARM_UP = 5
#: So long Slurm's daemons have to themselves after a step.
SETTLE_S = 0.1
#: What the wrapper may add at most, as a part of all of the bare interpreter, or of what another tool adds.
GOAL, PARTS = 1.2, {SRUN: 1 / 3, STEP: 1 / 3, SYSTEMD: 1 / 2}


def program() -> Path:
    """The installed `taximeter`: $TAXIMETER_BIN, else the one beside this interpreter."""
    return Path(os.environ.get("TAXIMETER_BIN") or Path(sysconfig.get_path("scripts")) / "taximeter")


def tools() -> dict[str, list[str]]:
    """Every tool that is here, as the words that start the command."""
    words = {
        BARE: [COMMAND],
        PYTHON: [str(program().parent / "python3"), "-I", "-S", "-c", "pass"],
        TAXIMETER: [str(program()), "run", "--", COMMAND],
        "/usr/bin/time": ["/usr/bin/time", "-o", "/dev/null", COMMAND],
        "perf stat": ["perf", "stat", "-o", "/dev/null", COMMAND],
        SYSTEMD: ["systemd-run", "--wait", "--quiet", "--collect", COMMAND],
    }
    if not Path("/run/systemd/system").is_dir():
        del words[SYSTEMD]
    found = {name: shutil.which(argv[0]) for name, argv in words.items()}
    here = {name: [path, *words[name][1:]] for name, path in found.items() if path is not None}
    return {name: argv for name, argv in here.items() if name in (BARE, PYTHON, TAXIMETER) or works(argv)}


def works(argv: list[str]) -> bool:
    """Whether a tool does its work here; `perf stat` may lack permission."""
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def once(argv: list[str]) -> float:
    """Milliseconds from the start of `argv` to its end."""
    began = time.monotonic_ns()
    pid = os.posix_spawn(argv[0], argv, os.environ)
    _, status = os.waitpid(pid, 0)
    took = time.monotonic_ns() - began
    if status != 0:
        sys.exit(f"cannot measure {argv}: expected exit status 0, got wait status {status}")
    return took / 1e6


def measure(words: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every tool, sorted; rounds are interleaved."""
    order, dice = list(words), random.Random(0)
    took: dict[str, list[float]] = {name: [] for name in words}
    for number in range(WARM_UP + rounds):
        dice.shuffle(order)
        for name in order:
            ms = once(words[name])
            if name in (SRUN, STEP):
                time.sleep(SETTLE_S)
            if number >= WARM_UP:
                took[name].append(ms)
    return {name: sorted(values) for name, values in took.items()}


def report(took: dict[str, list[float]]) -> None:
    """Print the table, and what it says of the goals."""
    median = {name: statistics.median(values) for name, values in took.items()}
    added = {name: value - median[BARE] for name, value in median.items()}
    print("| started with | median ms | p99 ms | added ms | added / bare interpreter |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, values in took.items():
        p99 = values[min(len(values) - 1, len(values) * 99 // 100)]
        print(f"| `{name}` | {median[name]:.2f} | {p99:.2f} | {added[name]:.2f} | {added[name] / median[PYTHON]:.2f} |")
    print(f"\n`{TAXIMETER}` adds {added[TAXIMETER] / median[PYTHON]:.2f} × `{PYTHON}` (goal: at most {GOAL}).")
    for name, part in PARTS.items():
        if name in added:
            print(f"It adds {added[TAXIMETER] / added[name]:.2f} of what `{name}` adds (goal: at most {part:.2f}).")


def beside_slurm(words: dict[str, list[str]], rounds: int) -> None:
    """The same table for `srun`, or why there is none."""
    print(f"\n`{SRUN}`, a job of its own, and a step of an allocation:\n")
    with tempfile.TemporaryDirectory() as temporary:
        try:
            with slurm.allocation(Path(temporary)) as (job, step):
                report(measure({**words, SRUN: [*job, COMMAND], STEP: [*step, COMMAND]}, rounds))
        except slurm.NoSlurm as error:
            print(f"skipped: {error}")


def in_bed(rounds: int) -> str:
    """The same table from a container with a systemd of its own, or why there is none."""
    bed = ROOT / "tests" / "system" / "bed"
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
        return "skipped: needs root and systemd-nspawn"
    binds = {str(ROOT), sys.prefix, str(program().parent.parent), str(program().resolve().parent.parent)}
    words = [sys.executable, str(bed), "--timeout", "300"]
    for path in sorted(binds):
        if not path.startswith("/usr") and not any(path.startswith(f"{other}/") for other in binds):
            words += ["--bind", f"{path}:{path}"]
    script = [
        "env",
        f"TAXIMETER_BIN={program()}",
        sys.executable,
        str(Path(__file__).resolve()),
        "--no-bed",
        "--no-slurm",
    ]
    script += ["--rounds", str(rounds)]
    done = subprocess.run([*words, "--", *script], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else f"skipped: the container failed: {done.stderr.strip()[-300:]}"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--state", type=Path, help="state directory (default: a temporary one)")
    parser.add_argument("--no-slurm", action="store_true", help="do not start a Slurm for srun")
    parser.add_argument("--no-bed", action="store_true", help="do not boot a container for systemd-run")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["TAXIMETER_STATE_DIR"] = str(said.state or temporary)
        words = tools()
        print(f"{describe()}; {said.rounds} interleaved rounds; {program()}\n")
        report(measure(words, said.rounds))
        if not said.no_slurm:
            beside_slurm({name: words[name] for name in (BARE, PYTHON, TAXIMETER)}, max(20, said.rounds // 4))
    if SYSTEMD not in words and not said.no_bed:
        print(f"\n`{SYSTEMD}`, in a container of its own:\n\n{in_bed(max(20, said.rounds // 4))}")


if __name__ == "__main__":
    main()
