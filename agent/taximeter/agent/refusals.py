"""Marks that had no effect: counted in the metric, and said to who can put it right.

Owns who is told, and how often: the log once for an instance and a reason, where something is not billed for it;
`taximeter status` within the hour; the summary of the run, whatever the reason. A worker may say what it likes as often
as it likes, so all of that is bounded. Refuses to judge marks.
"""

import time
from collections.abc import Mapping

from taximeter.agent.complaints import Warnings
from taximeter.events import Options
from taximeter.observe.tally import Tally
from taximeter.observe.words import plural, refused

#: Instances of which it is remembered, the latest to be refused anything last.
MOST_REMEMBERED = 1000
#: Of so many `taximeter status` tells, and for so long.
_MOST_TOLD, _TOLD_S = 3, 3600.0
#: Reasons for which nothing goes unbilled: what a one-shot says of predictions, or anybody of one that is not there.
_HARMLESS = frozenset({"not_a_worker", "not_yours", "no_such_prediction", "active_without_load", "after_the_end"})
_CONTRADICTS = "fixed_by_run"


class Refusals:
    """The refused marks of one journal directory, as far as they are remembered."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._warnings = Warnings("marks.refused")
        self._counts: dict[str, Mapping[str, int]] = {}
        self._told: dict[str, tuple[float, str]] = {}  #: by instance, when to stop (CLOCK_MONOTONIC), and what

    def count(self, name: str, reason: str, options: Options) -> None:
        """Count a mark of an instance, which was told that by `taximeter run`; and say so, the first time."""
        self._tally.rejected_mark(reason)
        before = self._counts.pop(name, {})
        if len(self._counts) >= MOST_REMEMBERED:
            forgotten = next(iter(self._counts))
            del self._counts[forgotten]
            self._told.pop(forgotten, None)
        self._counts[name] = {**before, reason: before.get(reason, 0) + 1}
        if reason in _HARMLESS:
            return
        why = _why(reason, options)
        self._told.pop(name, None)
        self._told[name] = time.monotonic() + _TOLD_S, why
        if reason not in before:
            self._warnings.say("mark.refused instance=%s reason=%s: %s", name, reason, why)

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """How many marks of which instance were refused, by reason."""
        return dict(self._counts)

    def problems(self) -> list[str]:
        """Sentences of those that were refused something last, and within the hour."""
        now_s = time.monotonic()
        lately = [(name, why) for name, (until_s, why) in self._told.items() if now_s < until_s]
        latest = lately[-_MOST_TOLD:]
        said = [f"{refused(self._counts[name])} of instance {name}: {why}" for name, why in latest]
        if len(lately) > len(latest):
            said.append(f"marks of {plural(len(lately) - len(latest), 'more instance')} refused: see the agent's log")
        return said


def _why(reason: str, options: Options) -> str:
    if reason != _CONTRADICTS:
        return "what it says has no effect, and is not billed (docs/contracts.md, Marks)"
    told = {
        "--account": options.account,
        "--model": options.model,
        "--version": options.version,
        "--class": options.service_class,
        "--pool": options.pool,
    }
    given = ", ".join(f"{option} {str(value)!a}" for option, value in told.items() if value is not None)
    return (
        f"what contradicts its `taximeter run` begins no prediction, and bills none: expected {given}, or no word of it"
    )
