"""Processes that own predictions: whom a pid means, who is held, and that no end is told before the last word."""

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from taximeter import kernel
from taximeter.agent import owners as room
from taximeter.agent.accounts import Account
from taximeter.agent.eyewitness import Eyewitness
from taximeter.agent.lifelines import Lifelines
from taximeter.agent.owners import Owners
from taximeter.agent.seeker import Found, Seeker
from taximeter.events import Exited, Lost, OwnerEnded, OwnersHeld, Source
from taximeter.instance import Instance
from taximeter.journal import Position, open_directory
from taximeter.kernel.groups import ThreadGroups
from taximeter.meter import fold, open_instance
from tests.core.stories import INSTANCE, WORKER, book, opened, ready, spawned, start
from tests.system.agents import wait_until

MS = 1_000_000
PID = 77  #: of a child, as the worker has it


@contextlib.contextmanager
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass
class Sought(Seeker):
    """Finds what it is told to find."""

    found: Found | None = None
    sure: bool = True
    strange: bool = False

    def __post_init__(self) -> None:
        super().__init__(-1)

    def find(self, name: str, account: Account, instance: Instance, pids: Iterable[int]) -> dict[int, Found]:
        self.is_sure, self.anothers = self.sure, set(pids) if self.strange else set()
        return {pid: self.found for pid in pids if self.found is not None}


@dataclass
class Scene:
    """Owners without a kernel's witness."""

    seeker: Sought = field(default_factory=Sought)
    silent: bool = True
    counted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        fd = open_directory(Path("/tmp"))
        self.owners = Owners(Eyewitness(fd, None), self.seeker, lambda _: self.silent, self.counted.append)
        os.close(fd)

    def look(self, instance: Instance) -> tuple[list[OwnerEnded], bool]:
        return self.owners.look_after(INSTANCE, Account(Position(), instance), instance)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(room, "SAID_WITHIN_NS", 0)
    made = Scene()
    yield made
    made.owners.close()


def at_work(pid: int = PID, at_ns: int | None = None) -> Instance:
    """A worker whose child has begun something."""
    now_ns = time.monotonic_ns() if at_ns is None else at_ns
    rules = book()
    events = [spawned(now_ns - 2), ready(now_ns - 1), start(now_ns, "a", pid=pid)]
    return fold(open_instance(opened(WORKER, now_ns - 3), rules), events, rules).instance


def here(process: "subprocess.Popen[bytes]") -> Found:
    ticks = kernel.start_ticks(process.pid)
    assert ticks is not None
    return Found(process.pid, ticks, 0)


def shown(scene: Scene) -> set[str]:
    assert select.select([scene.owners.fd], [], [], 20)[0], "no end was shown"
    return scene.owners.take()


# --- lifelines ---


def test_an_end_is_stamped_once_and_whoever_was_let_go_is_not_heard_of() -> None:
    lines = Lifelines()
    with sleeper() as one, sleeper() as other:
        assert lines.hold(("i", 1), os.pidfd_open(one.pid))
        assert lines.hold(("i", 2), os.pidfd_open(other.pid))
        lines.release(("i", 2))
        other.kill()
        before_ns = time.monotonic_ns()
        one.kill()
        assert select.select([lines.fd], [], [], 20)[0]
        (end,) = lines.take()
        assert (end.key, before_ns < end.at_ns < time.monotonic_ns()) == (("i", 1), True)
        assert lines.take() == []
    lines.close()


def test_what_has_ended_is_not_held() -> None:
    lines = Lifelines()
    with sleeper() as process:
        pidfd = os.pidfd_open(process.pid)
        process.kill()
        wait_until(lambda: select.select([pidfd], [], [], 0)[0], "its end")
        assert not lines.hold(("i", 1), pidfd)
    assert len(lines) == 0
    lines.close()


# --- what is told ---


def test_the_end_of_a_process_that_was_held_is_told_with_its_time(scene: Scene) -> None:
    with sleeper() as process:
        scene.seeker.found = here(process)
        instance = at_work()
        assert scene.look(instance) == ([], False)
        before_ns = time.monotonic_ns()
        process.kill()
        assert shown(scene) == {INSTANCE}
        (end,) = scene.look(instance)[0]
    assert end.ended_ns is not None
    assert (end.pid, end.source, before_ns < end.ended_ns < time.monotonic_ns()) == (PID, Source.AGENT, True)
    assert scene.counted == ["seen"]


def test_no_end_is_told_while_something_that_was_said_is_unread(scene: Scene) -> None:
    with sleeper() as process:
        scene.seeker.found, scene.silent = here(process), False
        instance = at_work()
        scene.look(instance)
        process.kill()
        shown(scene)
        assert scene.look(instance) == ([], False)
        assert scene.owners.waiting() == {INSTANCE}
        scene.silent = True
        assert len(scene.look(instance)[0]) == 1
        assert scene.owners.waiting() == set()


def test_between_the_fifo_and_the_journal_a_last_word_has_its_time(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SAID_WITHIN_NS", 10**15)
    assert scene.look(at_work()) == ([], True)


def test_the_end_of_a_process_that_has_finished_all_it_began_is_not_told(scene: Scene) -> None:
    with sleeper() as process:
        scene.seeker.found = here(process)
        scene.look(at_work())
        process.kill()
        shown(scene)
        assert scene.look(at_work(pid=4711))[0] == []
    assert scene.counted == []
    assert not scene.owners.concerns(INSTANCE, at_work(pid=4711))


@pytest.mark.parametrize(("strange", "how"), [(False, "unseen"), (True, "not_of_the_instance")])
def test_a_process_that_is_not_there_was_not_seen_to_end(scene: Scene, strange: bool, how: str) -> None:
    scene.seeker.strange = strange
    (end,) = scene.look(at_work())[0]
    assert (end.ended_ns, scene.counted) == (None, [how])


def test_where_not_everybody_could_be_looked_at_nothing_is_told_yet(scene: Scene) -> None:
    scene.seeker.sure = False
    assert scene.look(at_work()) == ([], False)
    scene.seeker.sure = True
    assert len(scene.look(at_work())[0]) == 1


def test_a_pid_that_was_not_found_yet_is_looked_for_again_though_nobody_says_anything(scene: Scene) -> None:
    scene.seeker.sure = False
    scene.look(at_work())
    assert (scene.owners.waiting(), scene.owners.waiting()) == ({INSTANCE}, set())


def test_a_pid_that_was_given_to_another_ends_only_what_is_older(scene: Scene) -> None:
    with sleeper() as process:
        instance = at_work()
        began_ns = instance.predictions[0].start_ns + 500 * MS
        scene.seeker.found = here(process)._replace(began_ns=began_ns)
        (end,) = scene.look(instance)[0]
        assert end.ended_ns is None
        assert instance.predictions[0].start_ns <= end.until_ns < began_ns


def test_of_more_than_are_held_a_look_tells_that_they_are_gone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_HELD", 0)
    with sleeper() as process:
        scene.seeker.found = here(process)
        instance = at_work()
        scene.look(instance)
        assert scene.owners.waiting() == set()
        process.kill()
        process.wait()
        assert scene.owners.waiting() == {INSTANCE}
        (end,) = scene.look(instance)[0]
    assert end.ended_ns is None


# --- last words ---


def words(scene: Scene, end: Exited | Lost) -> list[OwnerEnded | OwnersHeld]:
    return list(scene.owners.last_words(INSTANCE, end))


def exit_at(at_ns: int) -> Exited:
    return Exited(at_ns, 0, None, False, None)


def test_who_lives_when_the_command_ends_is_said_to_be_held(scene: Scene) -> None:
    with sleeper() as process:
        scene.seeker.found = here(process)
        scene.look(at_work())
        (word,) = words(scene, exit_at(time.monotonic_ns()))
    assert isinstance(word, OwnersHeld)
    assert word.pids == (PID,)


def test_who_ended_after_the_command_was_held_until_then_and_who_ended_before_is_told(scene: Scene) -> None:
    with sleeper() as process:
        scene.seeker.found = here(process)
        scene.look(at_work())
        exited_ns = time.monotonic_ns()
        process.kill()
        assert select.select([scene.owners.fd], [], [], 20)[0]
        assert isinstance(words(scene, exit_at(exited_ns))[0], OwnersHeld)
        assert isinstance(words(scene, Lost(None, "rebooted"))[0], OwnerEnded)
    scene.owners.forget(INSTANCE)
    assert words(scene, exit_at(exited_ns)) == []


def test_of_who_was_never_found_there_is_no_last_word(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SAID_WITHIN_NS", 10**15)
    scene.look(at_work())
    assert words(scene, exit_at(time.monotonic_ns())) == []


# --- who descends from whom, as the kernel tells it ---


def test_a_process_descends_from_who_forked_it_and_from_who_forked_that_one() -> None:
    groups = ThreadGroups()
    for at_ns, parent, pid in ((1, 10, 11), (2, 11, 12)):
        groups.forked(at_ns, parent, pid, pid)
    groups.exited(3, 11, 11, 0)
    groups.exited(4, 12, 12, 0)
    assert groups.descends(12, 5, 10)
    assert not groups.descends(12, 5, 9)
    assert not groups.descends(12, 1, 10)


def test_behind_a_loss_nobody_is_known_to_descend() -> None:
    groups = ThreadGroups()
    groups.forked(1_000_000_000, 10, 11, 11)
    groups.lost(1_500_000_000, 1_600_000_000)
    assert groups.descends(11, 1_100_000_000, 10)
    assert not groups.descends(11, 2_000_000_000, 10)
