"""What the agent remembers of an instance between looks, and what of it is news."""

from taximeter.agent.accounts import Account, kept, kept_state, state_of
from taximeter.agent.sights import TOLD_NS, Sight
from taximeter.events import Event, Held, Measured, Observed, Options
from taximeter.hardware.evidence import UNUSED_NS
from taximeter.hardware.inventory import Device, Hardware, Host, Inventory
from taximeter.hardware.samples import DeviceSample, Samples
from taximeter.hardware.tiers import Catalogue, Tier
from taximeter.instance import Instance, Review, Reviewed, Verdict
from taximeter.journal import Position
from taximeter.ledger.marked import is_as_written
from taximeter.ledger.values import JournalState
from taximeter.meter import fold, open_instance
from taximeter.values import replace
from tests.core.stories import SECOND, WORKER, book, finish, opened, ready, spawned, start

A, B = (Device(f"GPU-{name}", "a GPU", None, at) for at, name in enumerate("ab"))
INVENTORY = Inventory(Host(8, 64 << 30), (A, B))
CATALOGUE = Catalogue((Tier("one", "one", 1, ("a GPU",)), Tier("two", "two", 2, ("a GPU",))))
ONE, TWO = Hardware("one", 1, (A,)), Hardware("two", 2, (A, B))


def instance(declared: Hardware = ONE, observed: Observed | None = None, measured: Measured | None = None) -> Instance:
    return replace(open_instance(opened(), book(), declared), observed=observed, measured=measured)


def look(at_s: float, *, lists: bool = True) -> Samples:
    at_ns = int(at_s * SECOND)
    told = tuple(DeviceSample(uuid, at_ns, processes=(), all_lists=lists) for uuid in ("GPU-a", "GPU-b"))
    return Samples(at_ns, told)


def news(sight: Sight, of: Instance, *, last: bool = False) -> Observed | None:
    return sight.observed(INVENTORY, CATALOGUE, of, last=last)


def test_nothing_is_told_of_an_instance_that_was_seen_on_nothing() -> None:
    assert news(Sight(), instance()) is None


def test_what_is_seen_first_is_told_and_the_same_is_told_once() -> None:
    sight = Sight()
    sight.see(["GPU-a"], look(1), ONE)
    told = news(sight, instance())
    assert told is not None
    assert (told.at_ns, told.since_ns, told.hardware and told.hardware.tier) == (SECOND, SECOND, "one")
    sight.see(["GPU-a"], look(2), ONE)
    assert news(sight, instance()) is None


def test_what_was_seen_adds_up() -> None:
    sight = Sight()
    for at_s, uuid in enumerate(["GPU-b", "GPU-a"], 1):
        sight.see([uuid], look(at_s), ONE)
    told = news(sight, instance())
    assert told is not None
    assert told.hardware is not None
    assert (told.hardware.tier, told.hardware.devices) == ("two", (A, B))


def test_a_device_that_stays_unused_is_told_of_after_a_minute() -> None:
    sight, of = Sight(), instance(TWO)
    sight.see(["GPU-a"], look(1), TWO)
    assert news(sight, of) is not None
    sight.see(["GPU-a"], look(UNUSED_NS / SECOND), TWO)
    assert news(sight, of) is None
    sight.see(["GPU-a"], look(1 + UNUSED_NS / SECOND), TWO)
    told = news(sight, of)
    assert told is not None
    assert told.at_ns - told.since_ns == UNUSED_NS


def test_looks_that_cannot_show_everybody_do_not_make_a_device_unused() -> None:
    sight = Sight()
    sight.see(["GPU-a"], look(1), TWO)
    sight.see(["GPU-a"], look(50, lists=False), TWO)
    sight.see(["GPU-a"], look(80), TWO)
    assert sight.since_ns == 50 * SECOND


def test_the_last_words_say_how_long_it_was_seen_without_a_device_that_it_declared() -> None:
    sight = Sight()
    sight.see(["GPU-a"], look(1), TWO)
    before = news(sight, instance(TWO))
    sight.see(["GPU-a"], look(9), TWO)
    last = news(sight, instance(TWO, observed=before), last=True)
    assert last is not None
    assert last.at_ns == 9 * SECOND
    sight = Sight.of(instance(ONE, observed=before))
    sight.see(["GPU-a"], look(9), ONE)
    assert news(sight, instance(ONE, observed=before), last=True) is None


def test_a_shared_device_is_news() -> None:
    sight = Sight()
    sight.shared["GPU-a"] = None
    told = news(sight, instance())
    assert told is not None
    assert (told.hardware, told.shared) == (None, ("GPU-a",))


def test_the_next_agent_goes_on_from_what_was_told() -> None:
    seen = Observed(9 * SECOND, SECOND, TWO, ("GPU-a",))
    used = Measured(9 * SECOND, 5, 6, 7, 8, "counter")
    of = instance(TWO, seen, used)
    sight = Sight.of(of)
    assert news(sight, of) is None
    sight.see(["GPU-a"], look(20), TWO)
    sight.draw(10, "counter")
    assert news(sight, of) is None
    assert sight.measured(10 * SECOND, last=True) == Measured(20 * SECOND, 5, 6, 7, 18, "counter")


def test_what_is_used_is_told_at_once_then_at_times_and_with_the_end() -> None:
    sight = Sight()
    assert sight.measured(0, last=True) is None
    sight.work(SECOND, 4096, SECOND)
    first = sight.measured(SECOND, last=False)
    assert first == Measured(SECOND, SECOND, 4096)
    sight.work(2 * SECOND, None, 2 * SECOND)
    assert sight.measured(2 * SECOND, last=False) is None
    assert sight.measured(SECOND + TOLD_NS, last=False) == Measured(2 * SECOND, 2 * SECOND, 4096)
    sight.work(SECOND, 8192, 3 * SECOND)
    assert sight.measured(3 * SECOND, last=True) == Measured(3 * SECOND, 2 * SECOND, 8192)


def test_what_does_not_change_is_not_told_again() -> None:
    sight = Sight()
    sight.work(SECOND, 4096, SECOND)
    sight.measured(SECOND, last=False)
    sight.work(SECOND, 4096, 900 * SECOND)
    assert sight.measured(900 * SECOND, last=True) is None


def test_memory_on_devices_is_a_peak_and_unknown_where_one_process_does_not_tell() -> None:
    sight = Sight()
    sight.hold([None, 5], SECOND)
    assert sight.memory_peak_bytes is None
    sight.hold([], SECOND)
    sight.hold([3, 5], SECOND)
    sight.hold([1], SECOND)
    assert sight.memory_peak_bytes == 8


def test_a_look_at_memory_is_told_at_once_of_a_worker_whose_prediction_had_not_held_as_much() -> None:
    events: list[Event] = [spawned(0), ready(0), start(0, "a")]
    of = fold(open_instance(opened(WORKER), book(), ONE), events, book()).instance
    sight, told = Sight(), []
    for at_s, size_bytes in ((1, 5), (2, 4), (3, 6)):
        sight.work(SECOND, size_bytes, at_s * SECOND)
        sight.hold([size_bytes], at_s * SECOND)
        looks = sight.held(of)
        told += looks
        of = fold(of, looks, book()).instance
    assert told == [Held(at * SECOND, size, on) for at, size in ((1, 5), (3, 6)) for on in (False, True)]
    sight.work(SECOND, 9, 4 * SECOND)
    assert sight.held(fold(of, [finish(4 * SECOND, "a")], book()).instance) == []


def test_no_look_at_memory_is_told_of_who_has_no_predictions_of_its_own() -> None:
    sight = Sight()
    sight.work(SECOND, 9, SECOND)
    one_shot = open_instance(opened(Options(prediction="p1")), book(), ONE)
    assert sight.held(fold(one_shot, [spawned(0), ready(0)], book()).instance) == []
    assert sight.held(fold(open_instance(opened(WORKER), book(), ONE), [spawned(0)], book()).instance) == []


def test_no_look_from_before_a_prediction_began_is_told() -> None:
    sight = Sight()
    sight.work(SECOND, 9, SECOND)
    events: list[Event] = [spawned(0), ready(0), start(2 * SECOND, "a")]
    assert sight.held(fold(open_instance(opened(WORKER), book(), ONE), events, book()).instance) == []


def test_energy_that_is_partly_integrated_is_said_to_be_so() -> None:
    sight = Sight()
    sight.draw(5, "counter")
    assert (sight.energy_mj, sight.energy_source) == (5, "counter")
    sight.draw(5, "power")
    sight.draw(5, "counter")
    assert (sight.energy_mj, sight.energy_source) == (15, "power")


def test_what_is_known_of_an_instance_is_kept_as_it_is() -> None:
    """As the ledger keeps it: what was observed and measured, and what is to be looked through again."""
    events: list[Event] = [spawned(0), ready(0), start(0, "a"), start(0, "b"), finish(SECOND, "b")]
    events += [Observed(SECOND, SECOND, TWO, ("GPU-a",)), Measured(SECOND), Measured(2 * SECOND, 1, 2, 3, 4, "power")]
    events += [Held(SECOND, 5), Held(2 * SECOND, 6), Held(2 * SECOND, 7, on_devices=True)]
    found = fold(open_instance(opened(WORKER), book(), ONE), events, book()).instance
    verdict = Verdict(found.evidence, found.observed)
    found = replace(found, settled=1, review=Review(verdict, 1, 2), reviewed=Reviewed(verdict, 1))
    assert found.predictions[0].drawn
    assert found.predictions[0].peaks.node
    assert state_of(kept_state("i", Account(Position(0), found))) == found
    unmarked = JournalState("i", 0, 0, kept(found))  # as an older agent kept it
    assert (is_as_written(unmarked), state_of(unmarked)) == (True, found)
