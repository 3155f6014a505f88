"""Asks NVML one question at a time; each fails on its own, and the table of answers says what follows.

Owns which of pynvml's exceptions are errors, the counting of errors, and what is not asked now. What is not told comes
back as None. Refuses to know what the questions mean. Part of the child.
"""

import time
from collections import Counter
from typing import Any

from taximeter.hardware.nvml.answers import Answer, Refusals, answer_to, name_of

#: A function of pynvml and what it is given behind the device's handle.
Call = tuple[Any, ...]
_TRIES = 3
#: Invalid argument, not found: what a handle says when slices were cut anew.
_STALE = (2, 6)


class LostError(Exception):
    """The device does not answer any more."""


class SessionError(Exception):
    """NVML as a whole does not answer: `answer` is RESTART, ABSENT, REPLACE or LATER."""

    def __init__(self, answer: Answer, code: int | None, said: str) -> None:
        super().__init__(said)
        self.answer = answer
        self.code = code


class Asker:
    """One process's conversation with NVML."""

    def __init__(self, nvml: Any) -> None:
        self.nvml = nvml
        self.refusals = Refusals()
        self.errors: Counter[str] = Counter()  #: by name, since they were last taken
        self.said = ""  #: the last error in NVML's words
        self.number = 0  #: of the round
        self.until_ns: int | None = None  #: nothing is asked any more at this CLOCK_MONOTONIC
        self.stale = False  #: a handle may be one of a device that is not there any more
        self.restarted = False  #: in this round, so that what still fails does so for a reason of its own
        self._mismatch = getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError)  # which is no NVMLError
        # pynvml's own, and what it raises over garbage: undecodable names, lists of impossible length.
        self._caught = (
            nvml.NVMLError,
            self._mismatch,
            ValueError,
            TypeError,
            AttributeError,
            LookupError,
            OSError,
            MemoryError,
            ArithmeticError,
        )

    @property
    def is_late(self) -> bool:
        """Whether this round's time is over."""
        return self.until_ns is not None and time.monotonic_ns() >= self.until_ns

    def ask(self, who: str, *variants: Call, handle: object = None, then: Any = (), fine: int | None = None) -> Any:
        """What the first of `variants` tells that this driver has; None where it does not, or is not asked now.

        `who` is the device's UUID, or empty for NVML itself; `handle` and `then` stand around the call's own arguments;
        `fine` is an error that is none here. Raises LostError, and SessionError where all is over.
        """
        for name, *args in variants:
            question = (who, name, *args)
            function = getattr(self.nvml, name, None)
            if function is None or not self._asks(question):
                continue
            given = (*args, *then) if handle is None else (handle, *args, *then)
            told, answer = self._tried(function, given, fine)
            if answer is None:
                self.refusals.well(question)
                return told
            self.refusals.note(question, answer, self.number)
            if answer is Answer.OLDER:
                continue
            if answer is Answer.LOST and who:
                raise LostError
            return None
        return None

    def start(self) -> None:
        """Initialise NVML."""
        try:
            self.nvml.nvmlInit()
        except self._caught as error:
            answer, code = self._note(error)
            raise SessionError(Answer.LATER if answer is Answer.RESTART else answer, code, self.said) from error

    def stop(self) -> None:
        """Let go of NVML, as far as it lets us."""
        try:
            self.nvml.nvmlShutdown()
        except self._caught as error:
            self._note(error)

    def take_errors(self) -> dict[str, int]:
        """Errors by name since the last time."""
        errors, self.errors = dict(self.errors), Counter()
        return errors

    def _asks(self, question: Call) -> bool:
        return not self.is_late and self.refusals.asks(question, self.number)

    def _tried(self, function: Any, given: Any, fine: int | None) -> tuple[Any, Answer | None]:
        answer, code = Answer.LATER, None
        for _ in range(_TRIES):
            try:
                return function(*given), None
            except self._caught as error:
                if fine is not None and getattr(error, "value", None) == fine:
                    return None, None
                answer, code = self._note(error)
            if answer is not Answer.AGAIN:
                break
        if answer in (Answer.RESTART, Answer.ABSENT, Answer.REPLACE):
            # Whether it is true of all of NVML, initialising it again will tell.
            if not self.restarted:
                raise SessionError(Answer.RESTART, code, self.said)
            answer = Answer.LATER
        return None, answer

    def _note(self, error: Exception) -> tuple[Answer, int | None]:
        code = getattr(error, "value", None)
        if isinstance(error, self._mismatch) and not isinstance(error, self.nvml.NVMLError):
            code = 13
        if not isinstance(code, int):
            code = None
        answer = answer_to(code)
        self.stale = self.stale or code in _STALE
        if answer is not Answer.NOTHING:
            self.errors[name_of(code)] += 1
            self.said = _words(error, code)
        return answer, code


def field_of(told: Any, name: str) -> Any:
    """A field of a struct that was told; pynvml decodes texts only now, and some are none."""
    try:
        return getattr(told, name, None)
    except ValueError:
        return None


def _words(error: Exception, code: int | None) -> str:
    """What an error says; asking NVML for a text may fail as well."""
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 -- pynvml looks the text up in the library, which may answer anything
        said = ""
    said = said.strip()[:200] if said.isprintable() else ""
    return said or f"error {code}"
