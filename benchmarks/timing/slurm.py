"""Slurm's accounting: a cluster of one node, on sockets and ports of its own, and what `sacct` says of its jobs.

`srun` runs a nap as a job; jobs are accounted in Slurm's own file of completed jobs (jobcomp/filetxt), which `sacct -c`
reads and for which no database is needed. Owns the daemons: they are up for the run and leave nothing behind.
"""

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from timing.timers import Missing, Reading

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sacct", "sinfo")
PATIENCE_S = 20.0
_CONFIG = """
ClusterName=truth
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName={host} NodeAddr=127.0.0.1 CPUs=64
PartitionName=all Nodes={host} Default=YES State=UP
"""


@dataclass(frozen=True, slots=True)
class Slurm:
    """`srun`, and `sacct` once the jobs are over."""

    folder: Path
    name: str = "Slurm sacct"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        missing = [name for name in PROGRAMS if shutil.which(name) is None]
        if missing:
            raise Missing(f"no {missing[0]}: apt-get install munge slurmctld slurmd slurm-client")
        self._write_config()
        places = {"key-file": "key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
        options = [f"--{option}={self.folder / name}" for option, name in (places | {"seed-file": "seed"}).items()]
        commands = (["munged", "--foreground", "--force", *options], ["slurmctld", "-D"], ["slurmd", "-D"])
        with contextlib.ExitStack() as stack:
            log = stack.enter_context((self.folder / "log").open("w"))
            for words in commands:
                process = subprocess.Popen(words, env=self.environment, stdout=log, stderr=log)
                stack.callback(process.wait)
                stack.callback(process.terminate)
            self._wait_until_idle()
            yield

    def words(self, nap: Path, ms: int) -> list[str]:
        return ["srun", "--quiet", f"--job-name={nap.name}", str(nap), str(ms)]

    def readings(self, naps: Sequence[Path]) -> Mapping[str, Reading]:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            found = parse(self._ask("sacct", "-c", "--noheader", "--parsable2", "--format=jobname,elapsed"))
            if len(found) >= len(naps):
                return found
            if time.monotonic() > deadline_s:
                raise SystemExit(f"cannot read Slurm's accounts: expected {len(naps)} jobs, got {len(found)}")
            time.sleep(0.5)

    def _write_config(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o711)
        key = self.folder / "key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        ports = {"controller": _free_port(), "node": _free_port()}
        (self.folder / "slurm.conf").write_text(_CONFIG.format(host=host, folder=self.folder, **ports))

    def _wait_until_idle(self) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while self._ask("sinfo", "--noheader", "--format=%t").strip() != "idle":
            if time.monotonic() > deadline_s:
                raise Missing(f"it does not start: {(self.folder / 'log').read_text()[-300:]}")
            time.sleep(0.2)

    def _ask(self, *words: str) -> str:
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False).stdout


def parse(text: str) -> dict[str, Reading]:
    """What `sacct` says of each job: whole seconds, as days, hours, minutes and seconds."""
    found: dict[str, Reading] = {}
    for line in text.splitlines():
        job, _, elapsed = line.partition("|")
        match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", elapsed)
        if match is None:
            raise ValueError(f"cannot read {line!r}: expected a job's name and its elapsed time")
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        found[job] = Reading((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 10**9)
    return found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
