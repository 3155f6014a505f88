"""How far a verb that takes a while has come: a bar on standard error, where somebody looks.

Owns the bar. Refuses to know what goes on: it is told numbers of the ledger.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(doing: str, newest: Callable[[], int | None]) -> Iterator[Callable[[int], object]]:
    """Draw how far it is to the ledger's newest number; gives what is to be told each number that is reached."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - rich, only where something is shown
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task(doing, total=newest() or None)
        yield lambda seq: drawn.update(task, completed=seq)
