"""How many open instances one user may have, and who waits for them: for each user alone, and never for long."""

from pathlib import Path

import pytest

from taximeter.agent.quota import Quota
from tests.agent.desks import start, write
from tests.agent.test_watcher import until, watching
from tests.journal_samples import INSTANCE, OTHER, held, sample_lines


def test_one_users_instances_wait_and_anothers_do_not() -> None:
    quota = Quota(2)
    assert [quota.admit(name, 7, at_once=False) for name in "abc"] == [True, True, False]
    assert quota.admit("d", 8, at_once=False)
    assert [name in quota.waiting for name in "abcd"] == [False, False, True, False]


def test_what_is_counted_is_not_counted_again() -> None:
    quota = Quota(1)
    assert all(quota.admit("a", 7, at_once=False) for _ in range(3))
    quota.release("a")
    quota.release("a")
    assert quota.admit("b", 7, at_once=False)
    assert not quota.admit("c", 7, at_once=False)


def test_what_is_over_already_never_waits() -> None:
    quota = Quota(1)
    quota.admit("a", 7, at_once=False)
    assert quota.admit("b", 7, at_once=True)


def test_as_many_go_on_as_there_is_room_for() -> None:
    quota = Quota(2)
    for name in "abcde":
        quota.admit(name, 7, at_once=False)
    assert quota.take() == set()
    quota.release("a")
    assert len(quota.take()) == 1


@pytest.mark.anyio
async def test_who_waited_is_booked_once_another_is_over(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    node.books.quota = Quota(1)
    write(node.journal, sample_lines()[:3])
    second = [line.replace(INSTANCE.encode(), OTHER.encode()) for line in sample_lines()[:3]]
    with held(node.path / f"{OTHER}.0.ndjson"):
        write(node.path / f"{OTHER}.0.ndjson", second)
        with held(node.journal):
            async with watching(node):
                assert len(node.books.accounts) == 1
                await until(lambda: bool(node.books.tally.counters().journal_faults), "a complaint")
                write_more = {INSTANCE: node.journal, OTHER: node.path / f"{OTHER}.0.ndjson"}
                (first,) = node.books.accounts
                with write_more.pop(first).open("ab") as journal:
                    end = b"".join(line + b"\n" for line in sample_lines()[3:])
                    journal.write(end.replace(INSTANCE.encode(), first.encode()))
                await until(lambda: set(node.books.accounts) == set(write_more), "the other one")
