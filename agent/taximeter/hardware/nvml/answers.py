"""What is done about which of NVML's error codes: a table. Pure.

Owns the codes' names, which are the words of the metric, and what is not asked again for how long. Refuses to know
who asks, and what.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Answer(StrEnum):
    """What to do after an error."""

    NOTHING = "nothing"  #: it is no trouble: nothing happened, or nothing is there
    NEVER = "never"  #: the device cannot: not asked again until devices are looked at anew
    LATER = "later"  #: counted, and asked more and more seldom
    AGAIN = "again"  #: asked again at once, twice at most
    OLDER = "older"  #: an older driver: the call's predecessor, if it has one, from now on
    LOST = "lost"  #: the device is marked lost and its handle dropped; it is looked for again
    RESTART = "restart"  #: NVML is initialised once more
    ABSENT = "absent"  #: no GPU can be used now; initialised again until there is one
    REPLACE = "replace"  #: only a new process sees the driver that is there now


#: By code of nvmlReturn_t: its name, which is a label's value, and what is done.
CODES: Mapping[int, tuple[str, Answer]] = {
    1: ("uninitialized", Answer.RESTART),
    2: ("invalid_argument", Answer.LATER),
    3: ("not_supported", Answer.NEVER),
    4: ("no_permission", Answer.NEVER),
    5: ("already_initialized", Answer.LATER),
    6: ("not_found", Answer.NOTHING),
    7: ("insufficient_size", Answer.AGAIN),
    8: ("insufficient_power", Answer.LATER),
    9: ("driver_not_loaded", Answer.ABSENT),
    10: ("timeout", Answer.LATER),
    11: ("irq_issue", Answer.LATER),
    12: ("library_not_found", Answer.ABSENT),
    13: ("function_not_found", Answer.OLDER),
    14: ("corrupted_inforom", Answer.LATER),
    15: ("gpu_is_lost", Answer.LOST),
    16: ("reset_required", Answer.LOST),
    17: ("operating_system", Answer.LATER),
    18: ("lib_rm_version_mismatch", Answer.REPLACE),
    19: ("in_use", Answer.LATER),
    20: ("memory", Answer.LATER),
    21: ("no_data", Answer.NOTHING),
    22: ("vgpu_ecc_not_supported", Answer.NEVER),
    23: ("insufficient_resources", Answer.LATER),
    24: ("freq_not_supported", Answer.NEVER),
    25: ("argument_version_mismatch", Answer.OLDER),
    26: ("deprecated", Answer.OLDER),
    27: ("not_ready", Answer.LATER),
    28: ("gpu_not_found", Answer.LOST),
    29: ("invalid_state", Answer.LATER),
    30: ("reset_type_not_supported", Answer.NEVER),
    999: ("unknown", Answer.LATER),
}

#: What pynvml raises without a code: undecodable text, lists of impossible length, libraries that do not fit it.
GARBAGE = "garbage"
#: A code that nobody knows (yet).
OTHER = "other"
#: Every name that an error may be counted under.
NAMES = (*(name for name, _ in CODES.values()), GARBAGE, OTHER)


def name_of(code: int | None) -> str:
    """The word that an error is counted under."""
    return GARBAGE if code is None else CODES.get(code, (OTHER, Answer.LATER))[0]


def answer_to(code: int | None) -> Answer:
    """What to do about an error; one without a code, or with a code that nobody knows, is asked again later."""
    return Answer.LATER if code is None else CODES.get(code, (OTHER, Answer.LATER))[1]


#: Applications cause these by themselves: faults of what ran, not of the device.
APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})


@dataclass(slots=True)
class Pause:
    """Doubles the rounds between two attempts at what keeps failing."""

    most: int = 64
    length: int = 1
    until: int = 0

    def fail(self, number: int) -> None:
        """Note that it failed in round `number`."""
        self.until = number + self.length
        self.length = min(2 * self.length, self.most)

    def well(self) -> None:
        """Note that it did not fail."""
        self.length = 1

    def over(self, number: int) -> bool:
        """Whether round `number` may try again."""
        return number >= self.until


@dataclass(slots=True)
class Refusals:
    """What is not asked now: never again, or not before a later round."""

    never: set[Hashable] = field(default_factory=set)
    pauses: dict[Hashable, Pause] = field(default_factory=dict)

    def asks(self, question: Hashable, number: int) -> bool:
        """Whether a question is asked in round `number`."""
        if question in self.never:
            return False
        pause = self.pauses.get(question)
        return pause is None or pause.over(number)

    def note(self, question: Hashable, answer: Answer, number: int) -> None:
        """Remember how a question failed in round `number`."""
        if answer in (Answer.NEVER, Answer.OLDER):
            self.never.add(question)
        elif answer in (Answer.LATER, Answer.AGAIN):
            self.pauses.setdefault(question, Pause()).fail(number)

    def well(self, question: Hashable) -> None:
        """Note that a question was answered."""
        self.pauses.pop(question, None)

    def forget(self) -> None:
        """Ask everything again."""
        self.never.clear()
        self.pauses.clear()
