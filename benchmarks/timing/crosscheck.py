"""Whether two tracers agree: the same naps, seen by tracefs and by bpftrace.

bpftrace reads the same tracepoints through a program of its own in the kernel, with a clock that it reads itself. It is
told of every event at once, which wakes it: so it only checks the other on a few naps, before the run.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from timing import naps, tracing

#: bpftrace takes a second or two to begin, and does not say when it has.
ENOUGH, PATIENCE_S, PAUSE_S = 40, 15.0, 0.02

#: Lines as tracefs prints them, so that one parser reads both.
_PROGRAM = """
tracepoint:sched:sched_process_exec {
    printf("-%d [0] . %llu.%06llu: sched_process_exec: filename=%s pid=%d \\n",
        args->pid, nsecs / 1000000000, nsecs % 1000000000 / 1000, str(args->filename), args->pid)
}
tracepoint:signal:signal_generate /args->sig == 17/ {
    printf("-%d [0] . %llu.%06llu: signal_generate: sig=17 errno=0 code=%d \\n",
        tid, nsecs / 1000000000, nsecs % 1000000000 / 1000, args->code)
}
"""


def agree(program: Path) -> str:
    """One sentence: how far the two are apart at most, or why that is not known."""
    if shutil.which("bpftrace") is None:
        return "tracefs was not checked against bpftrace: apt-get install bpftrace"
    ours, theirs = _both(program)
    seen = ours.keys() & theirs.keys()
    if len(seen) < ENOUGH // 2:
        return f"tracefs was not checked against bpftrace, which saw {len(seen)} of {len(ours)} naps"
    ends = [(ours[number], theirs[number]) for number in seen]
    apart_ns = max(max(abs(a.exec_ns - b.exec_ns), abs(a.end_ns - b.end_ns)) for a, b in ends)
    return f"tracefs and bpftrace date the ends of the same {len(seen)} naps at most {apart_ns / 1000:.0f} µs apart"


def _both(program: Path) -> tuple[dict[int, tracing.Life], dict[int, tracing.Life]]:
    environment = {**os.environ, "BPFTRACE_STRLEN": "200"}
    words = ["bpftrace", "-q", "-B", "none", "-e", _PROGRAM]
    with (
        tracing.Trace() as trace,
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process,
    ):
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        deadline_s, taken, said = time.monotonic() + PATIENCE_S, 0, b""
        while said.count(b"/nap.") < ENOUGH and time.monotonic() < deadline_s:
            subprocess.run([naps.link(program, taken), "0"], check=True)
            taken += 1
            time.sleep(PAUSE_S)
            said += process.stdout.read() or b""
        process.send_signal(signal.SIGINT)
        process.wait()
        said += process.stdout.read() or b""
        return tracing.lives(trace.read()), tracing.lives(said.decode())
