"""Several processes that look at stretches of one ledger, each at those whose turn it is, for the audit to go on with.

Owns their start and their end: none outlives whoever asked, and one that ends early is an error, never a verdict. A
process begins anew instead of as a copy, so that nothing is shared but the file. Refuses to know what is looked at.
"""

import contextlib
import fcntl
import itertools
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from taximeter.errors import LedgerError, TaximeterError
from taximeter.ledger.outline import Outline, decode, encode
from taximeter.ledger.outliner import outline_of
from taximeter.ledger.reader import LedgerReader

#: So many records are looked at in one go.
STRETCH = 4_000
#: For each process at least, or it takes longer to start than it saves.
LEAST = 3 * STRETCH
COMMAND = (sys.executable, "-I", "-m", "taximeter.ledger.crew")
_LENGTH_BYTES = 4
#: What a pipe may hold for most users; an outline of the usual kind fits, so that nobody waits for its reader.
_PIPE_BYTES = 1 << 20


@contextlib.contextmanager
def outlines_of(reader: LedgerReader, jobs: int) -> Iterator[Iterable[Outline]]:
    """Outlines of a ledger's records, in order, by so many processes; none where one has as much to do alone.

    To go through them raises TaximeterError where a process fails.
    """
    try:
        after_seq, until_seq = reader.base.seq, reader.head.seq
    except LedgerError:  # which the audit names
        after_seq = until_seq = 0
    jobs = min(jobs, (until_seq - after_seq) // LEAST)
    with contextlib.ExitStack() as stack:
        begins = range(after_seq, after_seq + jobs * STRETCH, STRETCH) if jobs > 1 else ()
        crew = [stack.enter_context(_member(reader.path, begin, until_seq, jobs * STRETCH)) for begin in begins]
        stretches = range(after_seq, until_seq, STRETCH) if crew else ()
        yield (_received(*turn, until_seq) for turn in zip(itertools.cycle(crew), stretches, strict=False))


@contextlib.contextmanager
def _member(path: Path, after_seq: int, until_seq: int, step: int) -> Iterator[subprocess.Popen[bytes]]:
    words = (*COMMAND, os.fspath(path.absolute()), str(after_seq), str(until_seq), str(step))
    silent = subprocess.DEVNULL
    # Ctrl-C is ours: they end with us.
    with subprocess.Popen(words, stdin=silent, stdout=subprocess.PIPE, stderr=silent, process_group=0) as process:
        try:
            with contextlib.suppress(OSError):
                fcntl.fcntl(_pipe(process), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            yield process
        finally:
            process.kill()


def _received(process: subprocess.Popen[bytes], after_seq: int, until_seq: int) -> Outline:
    pipe = _pipe(process)
    length = int.from_bytes(pipe.read(_LENGTH_BYTES), "little")
    said = pipe.read(length)
    if not length or len(said) != length:
        raise TaximeterError(
            f"cannot verify with several processes: expected process {process.pid} to go on, it ended with status "
            f"{process.wait()}; try --jobs 1"
        )
    return decoded(said, after_seq, min(after_seq + STRETCH, until_seq))


def _pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None  # noqa: S101 -- it was asked for
    return process.stdout


def main() -> None:
    """Be one of the processes: an outline of each stretch of ours goes out, its length before it."""
    path, *numbers = sys.argv[1:]
    after_seq, until_seq, step = map(int, numbers)
    reader = LedgerReader(Path(path))
    for begin in range(after_seq, until_seq, step):
        said = encoded(outline_of(reader, begin, min(begin + STRETCH, until_seq)))
        sys.stdout.buffer.write(len(said).to_bytes(_LENGTH_BYTES, "little") + said)
        sys.stdout.buffer.flush()


def encoded(outline: Outline) -> bytes:
    """An outline as it is handed on; one that says what cannot be said is of no use."""
    try:
        return encode(outline)
    except (OverflowError, ValueError, RecursionError):
        return encode(Outline(outline.after_seq, outline.until_seq))


def decoded(said: bytes, after_seq: int, until_seq: int) -> Outline:
    """The outline of some records that was handed on; of what cannot be understood, none that is of use."""
    try:
        return decode(said)
    except (msgspec.DecodeError, RecursionError):
        return Outline(after_seq, until_seq)


if __name__ == "__main__":
    main()
