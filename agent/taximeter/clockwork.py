"""What the machine's clocks did between two readings: stepped, slewed, slept.

The kernel keeps its clocks so that three differences tell these apart. A step (somebody set the time, a leap second)
moves REALTIME against BOOTTIME, and nothing else does. A slew moves REALTIME, BOOTTIME and MONOTONIC alike, against
RAW, which nobody steers. Sleep moves REALTIME and BOOTTIME against MONOTONIC. So a leap smear is a slew of 12 ppm, a
time zone is nothing at all, and no size has to be guessed by which a step would be told from a slew.

The clocks are read one after the other, within `took_ns`: what a difference moved by less than that, it may not have
moved. Owns the bounds and the words that records are marked with. Refuses to change a duration: MONOTONIC is what is
billed, whatever happened to it or to the others.
"""

from taximeter.events import Clock, Opened
from taximeter.values import Value

#: Bits, so that an instance keeps a set of them in a number; the words in the order in which a record has them.
STEPPED, SLEWED, SUSPENDED, TIME_NAMESPACE = 1, 2, 4, 8
WORDS = ("stepped", "slewed", "suspended", "time_namespace")
OK = "ok"

#: A calendar that moved by more than this has been set. Nothing but setting moves it, so this need only be more than
#: clocks that are read on two processors may differ by, and less than anybody would care about in a calendar.
STEP_NS = 1_000_000
#: BOOTTIME that gained more than this on MONOTONIC has slept: no machine falls asleep and wakes up faster.
SLEEP_NS = 1_000_000
#: What NTP's own discipline never exceeds; chrony may go to 83,333.
SLEW_PPM = 500
#: Drift that says nothing yet, however short the time in which it came about.
DRIFT_NS = 100_000
#: A slew is measured over this long, so that the noise of reading counts for little, and a short slew is still seen.
WINDOW_NS = 10_000_000_000
_MILLION = 1_000_000

_TEXTS = tuple("+".join(word for at, word in enumerate(WORDS) if faults >> at & 1) or OK for faults in range(16))


class Reading(Value):
    """As much of a look at the clocks as the next look is compared with."""

    monotonic: int
    raw: int
    calendar: int  #: REALTIME - BOOTTIME
    took: int


def reading(clock: Clock) -> Reading:
    """What is kept of a look at the clocks."""
    return Reading(clock.monotonic, clock.raw, clock.realtime - clock.boottime, clock.took_ns)


def moved(before: Reading, now: Reading) -> int:
    """What happened between two readings: STEPPED, SLEWED, both or none."""
    noise_ns = before.took + now.took
    passed_ns = now.monotonic - before.monotonic
    drift_ns = abs(passed_ns - (now.raw - before.raw)) - noise_ns - DRIFT_NS
    faults = STEPPED if abs(now.calendar - before.calendar) > STEP_NS + noise_ns else 0
    return faults | SLEWED if drift_ns * _MILLION > abs(passed_ns) * SLEW_PPM else faults


def outdates(before: Reading, now: Reading) -> bool:
    """Whether to measure from `now` on: it is far enough, and was itself taken quickly enough to be measured from."""
    return now.monotonic - before.monotonic >= WINDOW_NS and now.took <= max(before.took, DRIFT_NS)


def slept_ns(offset_ns: int, clock: Clock) -> int:
    """How long the machine slept since BOOTTIME was `offset_ns` ahead of MONOTONIC.

    BOOTTIME is read second, so a slow reading can only exaggerate: by what it took, at most.
    """
    grown_ns = clock.boottime - clock.monotonic - offset_ns
    return grown_ns if grown_ns > SLEEP_NS + clock.took_ns else 0


def text(faults: int) -> str:
    """What a record says of its clocks: `ok`, or the words joined by `+`."""
    return _TEXTS[faults]


def words(faults: int) -> tuple[str, ...]:
    """The words of a set of faults."""
    return tuple(word for at, word in enumerate(WORDS) if faults >> at & 1)


def utc_ns(opened: Opened, at_ns: int, slept_ns: int = 0) -> int:
    """The UTC label of a monotonic instant, `slept_ns` of sleep into a life, by the calendar of the opening."""
    return opened.clock.realtime + (at_ns - opened.clock.monotonic) + slept_ns


def at_utc(opened: Opened, utc: int, slept_ns: int = 0) -> int:
    """The inverse of `utc_ns`: when, by MONOTONIC, the label was `utc`."""
    return opened.clock.monotonic + (utc - opened.clock.realtime) - slept_ns


def utc_error_ns(opened: Opened, now: Clock) -> int | None:
    """How far off an instance's UTC labels may be; None where nobody knows.

    All of them are told by the calendar of the opening, so they are off by what that one was: by what it differs from
    the calendar now, and by what the kernel says that this one may be off.
    """
    then = opened.clock
    if now.utc_error_ns is None or now.boot_id != then.boot_id:
        return None
    apart_ns = abs((now.realtime - now.boottime) - (then.realtime - then.boottime))
    return now.utc_error_ns + apart_ns + then.took_ns + now.took_ns
