"""A node's ledger for the command line to read, written by the real meter and the real ledger; and running a verb."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from unittest.mock import patch

import msgspec

from taximeter.cli import main
from taximeter.ledger.store import Ledger
from taximeter.ledger.values import Batch, JournalState, NodeInfo
from taximeter.observe.experience import Experience
from taximeter.records import UsageRecord
from taximeter.values import replace
from tests.core.stories import INSTANCE
from tests.observe.histories import read_back

NODE = NodeInfo("gpu-node-7", "eu-west", "taximeter 0.1.0", f"sha256:{'c0' * 32}")


@dataclass(frozen=True)
class Answer:
    """What a verb printed, and its exit status."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def instance(number: int) -> str:
    """The id of the nth run."""
    return INSTANCE[:-1] + str(number)


def renamed(records: Iterable[UsageRecord], number: int, prediction: str | None = None) -> tuple[UsageRecord, ...]:
    """The same records of another instance, and of another prediction than `p1`."""

    def other(text: str | None) -> str | None:
        changed = text.replace(INSTANCE, instance(number)) if text else text
        return prediction if prediction and changed == "p1" else changed

    def data(record: UsageRecord) -> dict[str, object]:
        written = msgspec.json.encode(record.data).decode().replace(INSTANCE, instance(number))
        if prediction:
            written = written.replace('"p1"', msgspec.json.encode(prediction).decode())
        return read_back(written.encode())

    return tuple(
        replace(
            record,
            id=record.id.replace(INSTANCE, instance(number)),
            data=data(record),
            instance=other(record.instance),
            prediction=other(record.prediction),
            root=other(record.root),
        )
        for record in records
    )


def write(state: Path, *runs: tuple[UsageRecord, ...], learnt: Iterable[UsageRecord] = ()) -> Path:
    """Book runs into the ledger of a state directory, with a sink that has taken none of them.

    What models take is learnt from `learnt`, records as the meter makes them.
    """
    (state / "journal").mkdir(parents=True, exist_ok=True)
    ledger = Ledger.open(state / "ledger.db", NODE)
    ledger.node_id_kept(NODE.id)
    ledger.register_sink("usage")
    for records in runs:
        journals = tuple({JournalState(record.instance, 0, 100, None) for record in records if record.instance})
        ledger.commit(Batch(records, journals))
    learnt_runs, calls = Experience().of(learnt)
    ledger.commit(Batch((), (), runs=learnt_runs, calls=calls))
    ledger.close()
    return state


def taximeter(*words: str, columns: int = 80) -> Answer:
    """Run a verb in this process, without a terminal, `columns` wide: quick, for what is not about processes."""
    out, err = _stream(), _stream()
    with patch.dict(os.environ, COLUMNS=str(columns)), redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    return Answer(code, _printed(out), _printed(err))


def program(*words: str, columns: int = 80, **environ: str) -> Answer:
    """Run a verb as a program of its own."""
    env = {**os.environ, "COLUMNS": str(columns), **environ}
    command = [sys.executable, "-m", "taximeter.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)


def on_a_terminal(*words: str, columns: int = 80) -> str:
    """Run a verb on a terminal of its own; what came out there."""
    leader, follower = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    env.pop("NO_COLOR", None)
    printed = b""
    with subprocess.Popen([sys.executable, "-m", "taximeter.cli", *words], stdout=follower, env=env) as running:
        os.close(follower)
        while chunk := _read(leader):
            printed += chunk
    os.close(leader)
    assert running.returncode == 0
    return printed.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says EIO once nobody writes
        return b""


def _stream() -> TextIOWrapper:
    return TextIOWrapper(BytesIO(), encoding="utf-8", newline="")


def _printed(stream: TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
