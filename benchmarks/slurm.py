"""One node's Slurm for the time of a benchmark: munged, slurmctld and slurmd in a directory of their own.

Owns their configuration, their start and their end. There is one allocation, for steps of it: the least that srun can
cost. It leaves a processor free (of two, whatever the machine has), so that a job beside it begins at once, too, and
waits for no scheduler.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "salloc", "sinfo")
PATIENCE_S = 20
CONFIGURATION = """\
ClusterName=benchmark
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={state}/munge.socket
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={state}/controller
SlurmdSpoolDir={state}/daemon
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class NoSlurm(Exception):
    """Why there is none."""


@contextmanager
def allocation(state: Path) -> Iterator[tuple[list[str], list[str]]]:
    """The words that run a command as a job, and as a step of an allocation that is there. Raises NoSlurm."""
    missing = [name for name in PROGRAMS if _find(name) is None]
    if missing:
        raise NoSlurm(f"needs {', '.join(missing)}: apt-get install slurmctld slurmd slurm-client munge")
    if os.geteuid() != 0:
        raise NoSlurm("needs root: slurmd starts jobs of any user")
    with ExitStack() as stack:
        configuration = _configure(state)
        os.environ["SLURM_CONF"] = str(configuration)
        stack.callback(os.environ.pop, "SLURM_CONF")
        for words in _daemons(state, configuration):
            _start(stack, words, state)
        _await(_is_idle, "an idle node")
        said = subprocess.run(
            ["salloc", "--ntasks=1", "--no-shell"], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        job = said.stderr.partition("allocation ")[2].split()
        if said.returncode != 0 or not job:
            raise NoSlurm(f"salloc failed: {said.stderr.strip()[-200:]}")
        srun = [str(_find("srun")), "--quiet"]
        yield [*srun, "--ntasks=1"], [*srun, f"--jobid={job[0]}", "--overlap"]


def _configure(state: Path) -> Path:
    for name in ("controller", "daemon"):
        (state / name).mkdir(parents=True)
    key = state / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        ports = first.getsockname()[1], second.getsockname()[1]
    configuration = state / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    configuration.write_text(
        CONFIGURATION.format(state=state, host=host, ports=ports, cpus=max(2, os.cpu_count() or 0))
    )
    return configuration


def _daemons(state: Path, configuration: Path) -> list[list[str]]:
    own = [f"--{what}-file={state}/munge.{what}" for what in ("key", "pid", "log", "seed")]
    return [
        ["munged", "--foreground", "--force", f"--socket={state}/munge.socket", *own],
        ["slurmctld", "-D", "-f", str(configuration)],
        ["slurmd", "-D", "-f", str(configuration)],
    ]


def _start(stack: ExitStack, words: list[str], state: Path) -> None:
    log = stack.enter_context((state / f"{words[0]}.out").open("wb"))
    process = subprocess.Popen([str(_find(words[0])), *words[1:]], stdout=log, stderr=log)
    stack.callback(_end, process)
    if words[0] == "munged":
        _await((state / "munge.socket").exists, "munged's socket")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _is_idle() -> bool:
    said = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False)
    return said.stdout.strip() == "idle"


def _await(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise NoSlurm(f"waited {PATIENCE_S} s in vain for {what}")
        time.sleep(0.05)


def _find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
