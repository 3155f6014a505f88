"""Whose want of memory it was, by counts as kernels give them; what a real kernel does is in system/test_run_ends."""

import os
from pathlib import Path

import pytest

from taximeter import wire
from taximeter.wrap import oom, proc
from taximeter.wrap.oom import LIMIT, NODE, NONE, Node, Oom, Unified

SECOND = 1_000_000_000


class Tree:
    """Cgroups of version 2, /slice/job, as files; `at` counts as a kernel 6.1 was seen to."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount
        (mount / "slice" / "job").mkdir(parents=True)
        for place in ("slice", "slice/job"):
            self.at(place)

    def at(self, place: str, limits: int = 0, kills: int = 0) -> None:
        text = f"low 0\nhigh 0\nmax 35\noom {limits}\noom_kill {kills}\noom_group_kill 0\n"
        (self.mount / place / "memory.events.local").write_text(text)

    def groups(self) -> Unified:
        return Unified(str(self.mount), "/slice/job")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def command(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Oom:
    """What is known of this very process, were it in that tree."""
    monkeypatch.setattr(oom, "find", lambda *_: tree.groups())
    return Oom(os.getpid())


def test_the_words_are_those_of_the_wire() -> None:
    assert (LIMIT, NODE, NONE) == wire.OOM


def test_a_kill_beside_a_limit_of_its_own_group_is_the_limit_s(tree: Tree, command: Oom) -> None:
    tree.at("slice/job", limits=1, kills=1)
    assert command.whose() == LIMIT


def test_a_kill_beside_a_limit_of_a_group_above_is_the_limit_s(tree: Tree, command: Oom) -> None:
    tree.at("slice", limits=1)
    tree.at("slice/job", kills=1)
    assert command.whose() == LIMIT


def test_a_kill_without_a_limit_up_to_the_root_is_the_node_s(tree: Tree, command: Oom) -> None:
    tree.at("slice/job", kills=1)
    assert command.whose() == NODE


def test_a_kill_without_a_limit_is_nobody_knows_whose_where_groups_above_are_hidden(tree: Tree) -> None:
    (tree.mount / "cgroup.events").touch()  # the root has none
    assert not tree.groups().to_the_top
    assert Unified(str(tree.mount / "slice"), "/job").counts() == (0, 0)


def test_no_kill_in_its_group_is_something_else(tree: Tree, command: Oom) -> None:
    tree.at("slice", limits=1)
    assert command.whose() == NONE


def test_hidden_groups_leave_the_question_open(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree.mount / "cgroup.events").touch()
    monkeypatch.setattr(oom, "find", lambda *_: tree.groups())
    command = Oom(os.getpid())
    tree.at("slice/job", kills=1)
    assert command.whose() is None
    tree.at("slice/job", limits=1, kills=1)
    assert command.whose() == LIMIT


def test_what_was_counted_two_heartbeats_ago_explains_nothing_any_more(tree: Tree, command: Oom) -> None:
    tree.at("slice/job", limits=1, kills=1)  # a descendant
    command.look(SECOND)
    command.look(SECOND + 1)  # the calendar was set: a heartbeat out of turn
    assert command.whose() == LIMIT
    command.look(2 * SECOND)
    assert command.whose() == NONE


def test_a_limit_that_a_heartbeat_saw_before_its_victim_was_killed_is_remembered(tree: Tree, command: Oom) -> None:
    tree.at("slice/job", limits=1)
    command.look(SECOND)
    tree.at("slice/job", limits=1, kills=1)
    assert command.whose() == LIMIT


def test_a_victim_that_takes_long_to_die_is_waited_for(
    tree: Tree, command: Oom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proc, "is_ending", lambda _: True)
    tree.at("slice/job", kills=1)
    for beat in range(1, 6):
        command.look(beat * SECOND)
    assert command.whose() == NODE


def test_counts_that_are_first_read_of_a_dying_command_say_nothing(
    tree: Tree, command: Oom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proc, "is_ending", lambda _: True)
    assert Oom(os.getpid()).whose() is None


def test_a_command_that_went_to_another_group_is_looked_for_there(
    tree: Tree, command: Oom, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.at("slice/job", kills=1)
    monkeypatch.setattr(oom, "groups_of", lambda _: "0::/elsewhere\n")
    assert command.whose() is None
    command.look(SECOND)
    assert command.whose() == NONE


def test_counts_that_go_away_are_no_counts(tree: Tree, command: Oom) -> None:
    (tree.mount / "slice/job/memory.events.local").unlink()
    command.look(SECOND)
    assert command.whose() is None


def test_a_group_without_a_controller_is_counted_by_the_one_above(tree: Tree) -> None:
    (tree.mount / "slice/job/memory.events.local").unlink()
    tree.at("slice", limits=2, kills=3)
    assert tree.groups().counts() == (3, 2)


def test_without_any_group_only_that_nobody_was_killed_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        Unified(str(tmp_path), "/")
    monkeypatch.setattr(oom, "find", lambda *_: Node())
    kills = [4]
    monkeypatch.setattr(Node, "counts", lambda _: (kills[0], 0))
    command = Oom(os.getpid())
    assert command.whose() == NONE
    kills[0] += 1
    assert command.whose() is None


def test_a_process_that_is_gone_is_ending() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert proc.is_ending(pid)
    os.waitpid(pid, 0)
    assert proc.is_ending(pid)
    assert not proc.is_ending(os.getpid())


def test_this_process_is_found_in_the_groups_that_it_says() -> None:
    said = oom.groups_of(os.getpid())
    group = oom.find(os.getpid(), said)
    assert group.counts() == group.counts()
    group.close()
