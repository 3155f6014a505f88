"""Who is looked for when marks name pids, how often, and for how long that may hold up everybody else."""

import os
import subprocess
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taximeter import kernel
from taximeter.agent import owners
from taximeter.agent.owners import Owners
from taximeter.agent.seeker import Found, Seeker

NAME = "0198c2aa-0000-7000-8000-000000000001"
#: No process has such a pid: it is beyond the kernel's limit.
NOBODY = range(2**30, 2**30 + 1000)


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each time that all processes of an instance were looked through."""
    made: list[int] = []
    below = kernel.below

    def counted(roots: Iterable[int]) -> Iterator[int]:
        made.append(len(made))
        return below(roots)

    monkeypatch.setattr(kernel, "below", counted)
    monkeypatch.setattr(Seeker, "_wrapper", lambda *_: None)
    return made


def find(pids: Iterable[int]) -> tuple[dict[int, Found], Seeker]:
    """What is found below this process, as if that were a worker's command."""
    looks = Seeker(-1)
    return looks.find(NAME, cast(Any, None), cast(Any, SimpleNamespace(host_pid=os.getpid())), pids), looks


def test_a_thousand_pids_that_nobody_has_are_looked_for_in_one_walk(walks: list[int], child: int) -> None:
    found, looks = find([*NOBODY, child])
    assert (list(found), len(walks), looks.anothers) == ([child], 1, set())


def test_a_pid_that_is_anothers_is_told_from_one_that_is_nobodys(walks: list[int]) -> None:
    found, looks = find([os.getppid(), NOBODY[0]])
    assert (found, looks.anothers) == ({}, {os.getppid()})


def test_who_has_the_pid_here_is_found_without_a_walk(walks: list[int], child: int) -> None:
    found, looks = find([child])
    assert (found[child].pid, walks, looks.is_sure) == (child, [], True)


class Slow:
    """Looks for nobody, and takes a tenth of a second for it."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.is_sure, self.anothers = True, set[int]()
        self.asked: list[set[int]] = []

    def monotonic_ns(self) -> int:
        return self.now_ns

    def find(self, name: str, account: Any, instance: Any, pids: Iterable[int]) -> dict[int, Found]:
        self.asked.append(set(pids))
        self.now_ns += 100_000_000
        return {}


def test_after_a_long_search_the_next_waits_twenty_times_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    monkeypatch.setattr(owners, "time", slow)
    eyes = SimpleNamespace(descendants_end=lambda *_: None)
    children = Owners(cast(Any, eyes), cast(Any, slow), lambda _: True, lambda _: None)

    def look_after(*pids: int) -> None:
        predictions = [SimpleNamespace(owner=pid, start_ns=0) for pid in pids]
        children.look_after(NAME, cast(Any, None), cast(Any, SimpleNamespace(predictions=predictions)))

    look_after(11, 12)
    look_after(11, 12, 13)
    slow.now_ns += 20 * 100_000_000
    look_after(11, 12, 13)
    children.close()
    assert slow.asked == [{11, 12}, {13}]
