"""What counts as start, end and status of a process, told by its events; what may be hidden is not known."""

from taximeter.kernel.group import End, Start
from taximeter.kernel.groups import NEVER_NS, REORDERED_NS, ThreadGroups

MS = 1_000_000
KILLED, DUMPED, BAD_CALL = 9, 11 | 0x80, 31


def forked(groups: ThreadGroups, at_ns: int, pid: int = 20, parent: int = 10) -> None:
    groups.forked(at_ns, parent, pid, pid)


def lived(groups: ThreadGroups, from_ns: int, to_ns: int, pid: int = 20, parent: int = 10) -> None:
    forked(groups, from_ns, pid, parent)
    groups.execed(from_ns + 1, pid)
    groups.exited(to_ns, pid, pid, 0)


def test_a_process_starts_with_its_exec_and_ends_with_its_exit() -> None:
    groups = ThreadGroups()
    forked(groups, 100)
    groups.execed(110, 20)
    groups.exited(200, 20, 20, 3 << 8)
    assert groups.started(10, 90, 120) == Start(20, 100, 110)
    assert groups.ended(20, 120) == End(200, 3 << 8)


def test_of_two_execs_the_first_counts() -> None:
    groups = ThreadGroups()
    forked(groups, 100)
    groups.execed(110, 20)
    groups.execed(150, 20)
    assert groups.started(10, 90, 120) == Start(20, 100, 110)


def test_a_process_that_runs_no_program_has_no_exec_but_an_end() -> None:
    groups = ThreadGroups()
    forked(groups, 100)
    groups.exited(200, 20, 20, 0)
    assert groups.started(10, 90, 120) == Start(20, 100, None)
    assert groups.ended(20, 100) == End(200, 0)


def test_a_process_of_another_parent_or_another_time_is_not_the_one() -> None:
    groups = ThreadGroups()
    forked(groups, 100)
    assert groups.started(11, 90, 120) is None
    assert groups.started(10, 101, 120) is None
    assert groups.started(10, 90, 99) is None


def test_a_child_of_the_next_process_with_that_pid_is_not_the_one() -> None:
    groups = ThreadGroups()
    forked(groups, 10, pid=10, parent=1)
    groups.exited(80, 10, 10, 9)
    forked(groups, 90, pid=10, parent=1)
    forked(groups, 100, pid=20, parent=10)
    groups.execed(110, 20)
    assert groups.started(10, 70, 120) is None
    assert groups.started(10, 95, 120) == Start(20, 100, 110)


def test_of_several_children_the_one_that_ran_a_program_is_meant() -> None:
    groups = ThreadGroups()
    forked(groups, 100, pid=20)
    groups.exited(105, 20, 20, 127 << 8)
    forked(groups, 110, pid=21)
    assert groups.started(10, 90, 120) is None
    groups.execed(115, 21)
    assert groups.started(10, 90, 120) == Start(21, 110, 115)


def test_two_children_that_ran_programs_are_not_told_apart() -> None:
    groups = ThreadGroups()
    for pid in (20, 21):
        forked(groups, 100, pid)
        groups.execed(110, pid)
    assert groups.started(10, 90, 120) is None


def test_a_thread_that_ends_is_not_the_end() -> None:
    groups = ThreadGroups()
    forked(groups, 100)
    groups.forked(110, 10, 21, 20)
    groups.exited(120, 21, 20, 0)
    assert groups.ended(20, 100) is None
    groups.exited(130, 20, 20, 0)
    assert groups.ended(20, 100) == End(130, 0)


def test_a_leader_that_ends_first_is_not_the_end_and_hides_the_status() -> None:
    groups = ThreadGroups()
    forked(groups, 100)
    groups.forked(110, 10, 21, 20)
    groups.exited(120, 20, 20, 0)
    assert groups.ended(20, 100) is None
    assert groups.pending(20, 100)
    groups.exited(300, 21, 20, 7 << 8)
    assert groups.ended(20, 100) == End(300, None)


def test_a_thread_that_runs_a_program_ends_nothing() -> None:
    """The kernel tells of the end of the leader, whose place and pid the thread takes."""
    groups = ThreadGroups()
    forked(groups, 100)
    groups.forked(110, 10, 21, 20)
    groups.forked(111, 10, 22, 20)
    groups.exited(120, 22, 20, 0)
    groups.exited(121, 20, 20, 0)
    groups.execed(130, 20)
    groups.exited(131, 21, 20, 0)  # late
    assert groups.ended(20, 100) is None
    groups.exited(200, 20, 20, 5 << 8)
    assert groups.ended(20, 100) == End(200, 5 << 8)


def test_threads_that_end_alike_leave_no_doubt_about_the_status() -> None:
    groups = ThreadGroups()
    forked(groups, 100)
    groups.forked(110, 10, 21, 20)
    groups.exited(120, 20, 20, 7 << 8)
    groups.exited(121, 21, 20, 7 << 8)
    assert groups.ended(20, 100) == End(121, 7 << 8)


def test_a_leader_that_ends_with_a_code_ends_all_whatever_threads_ended_with_before() -> None:
    groups = ThreadGroups()
    forked(groups, 100)
    groups.forked(110, 10, 21, 20)
    groups.forked(110, 10, 22, 20)
    groups.exited(120, 21, 20, 0)
    groups.exited(130, 20, 20, 3 << 8)
    groups.exited(131, 22, 20, 3 << 8)
    assert groups.ended(20, 100) == End(131, 3 << 8)


def test_a_signal_ends_all_threads_whatever_one_ended_with_before() -> None:
    for signal in (KILLED, DUMPED):
        for codes in ((0, 1 << 8, signal), (signal, 0, 1 << 8)):
            groups = ThreadGroups()
            forked(groups, 100)
            groups.forked(110, 10, 21, 20)
            groups.forked(110, 10, 22, 20)
            for pid, code in zip((21, 22, 20), codes, strict=True):
                groups.exited(120, pid, 20, code)
            assert groups.ended(20, 100) == End(120, signal)


def test_a_forbidden_call_may_end_one_thread_only() -> None:
    groups = ThreadGroups()
    forked(groups, 100)
    groups.forked(110, 10, 21, 20)
    groups.exited(120, 21, 20, BAD_CALL)
    groups.exited(130, 20, 20, 0)
    assert groups.ended(20, 100) == End(130, None)


def test_the_last_stamp_counts_in_whatever_order_they_come() -> None:
    groups = ThreadGroups()
    forked(groups, 100)
    groups.forked(110, 10, 21, 20)
    groups.exited(131, 21, 20, 0)
    groups.exited(130, 20, 20, 0)
    assert groups.ended(20, 100) == End(131, 0)


# --- One pid after the other ---


def test_a_pid_that_is_used_again_is_another_process() -> None:
    groups = ThreadGroups()
    lived(groups, 100, 200)
    lived(groups, 300, 400)
    forked(groups, 500)
    assert groups.ended(20, 150) == End(200, 0)
    assert groups.ended(20, 250) == End(200, 0)  # ended before its parent had the time to say so
    assert groups.ended(20, 350) == End(400, 0)
    assert groups.ended(20, 500) is None
    assert groups.ended(20, 99) is None


def test_a_pid_that_is_used_again_before_its_end_was_told_leaves_both_uncertain() -> None:
    groups = ThreadGroups()
    forked(groups, 100)
    forked(groups, 300)
    groups.exited(310, 20, 20, 0)
    assert groups.ended(20, 100) is None
    assert groups.ended(20, 300) is None
    assert not groups.pending(20, 300)


# --- What was lost ---


def after(losses: list[tuple[int, int]], groups: ThreadGroups | None = None) -> ThreadGroups:
    groups = groups or ThreadGroups()
    forked(groups, 1000 * MS)
    groups.execed(1001 * MS, 20)
    for loss in losses:
        groups.lost(*loss)
    groups.exited(2000 * MS, 20, 20, 0)
    return groups


def test_a_loss_before_or_after_a_life_hides_nothing_of_it() -> None:
    groups = after([(100 * MS, 999 * MS)])
    groups.lost(2101 * MS, 2200 * MS)
    assert groups.started(10, 1000 * MS, 1000 * MS) == Start(20, 1000 * MS, 1001 * MS)
    assert groups.ended(20, 1001 * MS) == End(2000 * MS, 0)


def test_a_loss_in_mid_life_hides_the_end_but_not_the_start() -> None:
    groups = after([(1500 * MS, 1600 * MS)])
    assert groups.started(10, 1000 * MS, 1000 * MS) == Start(20, 1000 * MS, 1001 * MS)
    assert groups.ended(20, 1001 * MS) is None


def test_a_loss_hides_what_was_stamped_a_little_before_it() -> None:
    assert after([(2000 * MS + REORDERED_NS, NEVER_NS)]).ended(20, 1001 * MS) is None
    assert after([(2001 * MS + REORDERED_NS, NEVER_NS)]).ended(20, 1001 * MS) is not None


def test_a_loss_between_fork_and_exec_hides_the_first_exec_only() -> None:
    groups = ThreadGroups()
    forked(groups, 1000 * MS)
    groups.lost(1200 * MS, 1300 * MS)
    groups.execed(1400 * MS, 20)
    assert groups.started(10, 1000 * MS, 1000 * MS) == Start(20, 1000 * MS, None)


def test_a_loss_around_a_fork_hides_which_child_is_meant() -> None:
    groups = ThreadGroups()
    groups.lost(900 * MS, 999 * MS)
    forked(groups, 1000 * MS)
    assert groups.started(10, 990 * MS, 1010 * MS) is None


def test_a_fork_that_was_lost_is_not_answered_with_an_earlier_process() -> None:
    groups = ThreadGroups()
    lived(groups, 100 * MS, 200 * MS)
    groups.lost(400 * MS, 500 * MS)
    assert groups.ended(20, 250 * MS) == End(200 * MS, 0)
    assert groups.ended(20, 600 * MS) is None


def test_a_loss_that_goes_on_hides_all_that_comes() -> None:
    groups = after([(1500 * MS, NEVER_NS)])
    assert groups.ended(20, 1001 * MS) is None
    groups.lost(1800 * MS, 1900 * MS)
    lived(groups, 1950 * MS, 1960 * MS, pid=21)
    assert groups.ended(21, 1950 * MS) == End(1960 * MS, 0)
    assert groups.ended(20, 1001 * MS) is None


def test_many_losses_are_joined_from_the_oldest() -> None:
    groups = ThreadGroups()
    forked(groups, 0, pid=19)
    for number in range(1, 101):
        groups.lost(number * 1000 * MS, number * 1000 * MS + 1)
        lived(groups, number * 1000 * MS + 200 * MS, number * 1000 * MS + 300 * MS, pid=100 + number)
    assert groups.ended(101, 1200 * MS) is None  # it lies between two that became one
    assert groups.ended(199, 99200 * MS) == End(99300 * MS, 0)
    groups.exited(101_000 * MS, 19, 19, 0)
    assert groups.ended(19, 0) is None


# --- Who lived before ---


def test_of_a_process_that_nobody_saw_begin_nothing_is_known() -> None:
    groups = ThreadGroups()
    groups.execed(90, 20)
    groups.exited(100, 20, 20, 0)
    assert groups.ended(20, 50) is None
    assert not groups.pending(20, 50)


def test_a_process_that_is_followed_ends_with_the_last_thread_that_it_had() -> None:
    groups = ThreadGroups()
    groups.follow(100, 20, 50, [20, 21])
    groups.forked(110, 10, 22, 20)
    groups.exited(120, 20, 20, 0)
    groups.exited(130, 21, 20, 0)
    assert groups.ended(20, 50) is None
    assert groups.pending(20, 50)
    groups.exited(140, 22, 20, 0)
    assert groups.ended(20, 50) == End(140, 0)


def test_a_process_whose_leader_is_gone_can_be_followed() -> None:
    groups = ThreadGroups()
    groups.follow(100, 20, 50, [21])
    groups.exited(110, 20, 20, 0)  # was under way
    assert groups.ended(20, 50) is None
    groups.exited(120, 21, 20, 0)
    assert groups.ended(20, 50) == End(120, None)


def test_to_follow_anew_heals_what_a_loss_made_uncertain() -> None:
    groups = ThreadGroups()
    forked(groups, 1000 * MS)
    groups.execed(1001 * MS, 20)
    groups.forked(1002 * MS, 10, 21, 20)
    groups.lost(1200 * MS, 1300 * MS)
    assert not groups.pending(20, 1001 * MS)
    groups.follow(1301 * MS, 20, 1001 * MS, [20])
    assert groups.pending(20, 1001 * MS)
    groups.exited(1400 * MS, 20, 20, 0)
    assert groups.ended(20, 1001 * MS) == End(1400 * MS, 0)
    assert groups.started(10, 1000 * MS, 1000 * MS) == Start(20, 1000 * MS, 1001 * MS)


def test_an_earlier_process_with_its_pid_is_not_the_one_that_is_followed() -> None:
    groups = ThreadGroups()
    groups.follow(100, 20, 50, [20])
    groups.exited(110, 20, 20, 0)
    assert groups.ended(20, 49) is None


def test_who_is_followed_after_a_loss_need_not_be_who_had_its_pid_before() -> None:
    groups = ThreadGroups()
    forked(groups, 1000 * MS)
    groups.lost(1200 * MS, 1300 * MS)
    groups.follow(1401 * MS, 20, 1400 * MS, [20])
    groups.exited(1500 * MS, 20, 20, 0)
    assert groups.ended(20, 1000 * MS) is None
    assert groups.ended(20, 1400 * MS) == End(1500 * MS, 0)


# --- Bounds ---


def test_the_oldest_that_ended_is_forgotten_first() -> None:
    groups = ThreadGroups(most=3)
    forked(groups, 1, pid=1)
    lived(groups, 10, 40, pid=2)
    lived(groups, 20, 30, pid=3)
    forked(groups, 50, pid=4)
    assert len(groups) == 3
    assert groups.ended(2, 10) is None
    assert groups.ended(3, 20) == End(30, 0)
    assert groups.started(10, 1, 1) == Start(1, 1, None)
    assert groups.started(10, 10, 10) is None
    assert groups.started(10, 20, 20) == Start(3, 20, 21)


def test_with_all_alive_the_newest_has_no_witness() -> None:
    groups = ThreadGroups(most=2)
    for pid in (1, 2, 3):
        forked(groups, pid, pid)
    groups.exited(10, 3, 3, 0)
    groups.exited(11, 2, 2, 0)
    assert groups.ended(3, 3) is None
    assert groups.ended(2, 2) == End(11, 0)


def test_what_lived_through_a_loss_may_be_forgotten_but_not_once_it_is_followed_anew() -> None:
    groups = ThreadGroups(most=2)
    forked(groups, 1000 * MS, pid=1)
    forked(groups, 1000 * MS, pid=2)
    groups.lost(1200 * MS, 1300 * MS)
    groups.follow(1301 * MS, 1, 1000 * MS, [1])
    lived(groups, 1400 * MS, 1500 * MS, pid=3)
    lived(groups, 1600 * MS, 1700 * MS, pid=4)
    groups.exited(1800 * MS, 1, 1, 0)
    assert groups.ended(1, 1000 * MS) == End(1800 * MS, 0)
    assert groups.ended(3, 1400 * MS) is None
    assert groups.ended(4, 1600 * MS) == End(1700 * MS, 0)


def test_threads_beyond_the_bound_make_their_process_uncertain_and_no_other() -> None:
    groups = ThreadGroups(most_threads=1)
    forked(groups, 1)
    groups.forked(2, 10, 21, 20)
    groups.forked(3, 10, 22, 20)
    for pid in (22, 21, 20):
        groups.exited(10, pid, 20, 0)
    assert groups.ended(20, 1) is None
    forked(groups, 20, pid=30)
    groups.forked(21, 10, 31, 30)
    groups.exited(22, 31, 30, 0)
    groups.exited(23, 30, 30, 0)
    assert groups.ended(30, 20) == End(23, 0)
