"""Watches the processes that start predictions, where these are not the command itself, and tells their ends.

Owns who is held, and when an end may be told: not before all that the process can have said was read, for its own
`finish` counts. Refuses to know whom a pid means (seeker), and what an end means for a bill (the core's owners).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from taximeter import kernel
from taximeter.agent.accounts import Account
from taximeter.agent.eyewitness import Eyewitness
from taximeter.agent.lifelines import Lifelines
from taximeter.agent.seeker import LOOSE_NS, Found, Seeker
from taximeter.errors import TaximeterError
from taximeter.events import Exited, Lost, OwnerEnded, OwnersHeld, Source
from taximeter.instance import Instance

#: So many are held by a pidfd. Of others only the kernel's events tell when they ended; a look each second, that.
MOST_HELD = 4096
#: What was read out of the FIFO is in the journal so soon: before that, no end is told of whoever may have said it.
SAID_WITHIN_NS = 50_000_000

#: Marks can name any pid, any number of them: after a search that was not short, so many times as long goes to others.
_SHORT_NS, _RESTS = 20_000_000, 20

#: How an end is known, for the metric.
SEEN, UNSEEN, ANOTHERS = "seen", "unseen", "not_of_the_instance"


@dataclass(slots=True)
class _Owner:
    """One process that has started predictions, or that is nowhere to be found."""

    pid: int  #: as its start marks have it
    since_ns: int  #: a moment of its life
    process: Found | None = None  #: None: it is not there any more
    is_held: bool = False
    is_over: bool = False
    shown_ns: int | None = None  #: when its end was shown
    ended: kernel.End | None = None  #: of one that was never held, as the kernel told it
    until_ns: int = 0  #: whatever that pid started later is another process's; 0: nothing is
    silent_ns: int = 0  #: since when nothing that it can have said waits to be read; 0: it does
    how: str = UNSEEN


class Owners:
    """The processes of all open instances that own predictions."""

    def __init__(
        self, eyes: Eyewitness, seeker: Seeker, is_silent: Callable[[str], bool], count: Callable[[str], None]
    ) -> None:
        """`is_silent` says whether nothing waits in an instance's FIFO; `count` counts the ends that are told."""
        self._eyes = eyes
        self._seeker = seeker
        self._is_silent = is_silent
        self._count = count
        self._lifelines = Lifelines()
        self._owners: dict[str, dict[int, _Owner]] = {}
        self._resting: dict[
            str, int
        ] = {}  #: instances with pids that were not found yet: not to be looked through before that
        self.fd = self._lifelines.fd  #: readable when there is news

    def close(self) -> None:
        """Let go of everything."""
        self._lifelines.close()

    def forget(self, name: str) -> None:
        """Let go of an instance's."""
        self._resting.pop(name, None)
        for pid in self._owners.pop(name, ()):
            self._lifelines.release((name, pid))

    def follow_anew(self) -> None:
        """Once the kernel's words were lost: learn of those who are held again, or their ends would have no stamp."""
        for owners in self._owners.values():
            for owner in owners.values():
                if owner.process is not None and owner.is_held and not owner.is_over:
                    self._eyes.follow(owner.process.pid, owner.since_ns)

    def take(self) -> set[str]:
        """The instances whose journals are to be read on: one of their processes was shown to have ended."""
        names: set[str] = set()
        for (name, pid), at_ns in self._lifelines.take():
            owner = self._owners.get(name, {}).get(pid)
            if owner is not None and not owner.is_over:
                owner.is_over, owner.shown_ns = True, at_ns
                names.add(name)
        return names

    def waiting(self) -> set[str]:
        """The instances with ends to be told, or pids to be looked for; who is not held is looked at for that."""
        now_ns = time.monotonic_ns()
        rested = {name for name, until_ns in self._resting.items() if until_ns <= now_ns}
        for name in rested:
            del self._resting[name]
        return rested | {name for name, owners in self._owners.items() for owner in owners.values() if _is_over(owner)}

    def concerns(self, name: str, instance: Instance) -> bool:
        """Whether anything of an instance is to be looked after."""
        return name in self._owners or any(open_.owner is not None for open_ in instance.predictions)

    def look_after(self, name: str, account: Account, instance: Instance) -> tuple[list[OwnerEnded], bool]:
        """What is to be told of an instance whose journal was read to its end, and whether to come back soon for more.

        Its command must live: who ends with it is told as last words.
        """
        claims: dict[int, list[int]] = {}
        for prediction in instance.predictions:
            if prediction.owner is not None:
                claims.setdefault(prediction.owner, []).append(prediction.start_ns)
        owners = self._owners.setdefault(name, {})
        if claims.keys() - owners.keys():
            self._meet(name, account, instance, claims)
        told: list[OwnerEnded] = []
        for owner in [owner for owner in owners.values() if owner.is_over]:
            if self._has_said_all(name, owner) and self._is_certain(owner):
                if owner.pid in claims:
                    told.append(self._ended(owner))
                    self._count(owner.how)
                del owners[owner.pid]
                self._lifelines.release((name, owner.pid))
        if not owners:
            del self._owners[name]
        return told, any(owner.is_over and owner.silent_ns for owner in owners.values())

    def last_words(self, name: str, end: Exited | Lost) -> Sequence[OwnerEnded | OwnersHeld]:
        """Who of the owners had ended before the command's `end`, and who lived until then."""
        self.take()
        ended_ns = _when(end)
        told: list[OwnerEnded | OwnersHeld] = []
        held: list[int] = []
        for owner in self._owners.get(name, {}).values():
            word = self._ended(owner) if _is_over(owner) else None
            if word is None or (word.ended_ns is not None and word.ended_ns >= ended_ns):
                held.append(owner.pid)
            elif word.ended_ns is not None:
                told.append(word)
        return [*told, OwnersHeld(time.monotonic_ns(), tuple(held))] if held else told

    # --- Who it is ---

    def _meet(self, name: str, account: Account, instance: Instance, claims: Mapping[int, Sequence[int]]) -> None:
        """Look for the processes that start marks name, all at once; after a long search, not soon again."""
        began_ns = time.monotonic_ns()
        if began_ns < self._resting.get(name, 0):
            return
        unmet = claims.keys() - self._owners[name].keys()
        found = self._seeker.find(name, account, instance, unmet)
        for pid in unmet:
            self._know(name, instance, _Owner(pid, min(claims[pid]), found.get(pid)))
        done_ns = time.monotonic_ns()
        if done_ns - began_ns > _SHORT_NS:
            self._resting[name] = done_ns + _RESTS * (done_ns - began_ns)
        elif unmet - self._owners[name].keys():
            self._resting[name] = done_ns

    def _know(self, name: str, instance: Instance, owner: _Owner) -> None:
        """Hold whom was found, or know how he ended; later, where not everybody could be looked at."""
        found = owner.process
        if found is not None and found.began_ns > owner.since_ns + LOOSE_NS:
            # Who is meant has ended, and its pid was given to another: that one may have started the younger ones.
            owner.process, owner.until_ns = None, found.began_ns - LOOSE_NS - 1
        if owner.process is not None:
            self._hold((name, owner.pid), owner, owner.process)
        elif (end := self._eyes.descendants_end(instance, owner.pid, owner.since_ns)) is not None:
            owner.is_over, owner.ended = True, end
        elif found is None and not self._seeker.is_sure:
            return
        else:
            owner.is_over, owner.how = True, ANOTHERS if owner.pid in self._seeker.anothers else UNSEEN
        self._owners[name][owner.pid] = owner

    def _hold(self, key: tuple[str, int], owner: _Owner, process: Found) -> None:
        if len(self._lifelines) >= MOST_HELD:
            return
        try:
            pidfd = kernel.open_process(process.pid, process.ticks)
        except TaximeterError:  # no descriptor left
            return
        owner.is_held = pidfd is not None and self._lifelines.hold(key, pidfd)
        owner.is_over = not owner.is_held
        if owner.is_held:
            self._eyes.follow(process.pid, owner.since_ns)

    # --- How it ended ---

    def _has_said_all(self, name: str, owner: _Owner) -> bool:
        now_ns = time.monotonic_ns()
        if not self._is_silent(name):
            owner.silent_ns = 0
        elif not owner.silent_ns:
            owner.silent_ns = now_ns
        return bool(owner.silent_ns) and now_ns - owner.silent_ns >= SAID_WITHIN_NS

    def _is_certain(self, owner: _Owner) -> bool:
        """Whether the kernel is not about to stamp that end."""
        if owner.process is None or owner.shown_ns is None:
            return True
        return not self._eyes.is_to_come(owner.process.pid, owner.since_ns, owner.shown_ns)

    def _ended(self, owner: _Owner) -> OwnerEnded:
        now_ns, shown_ns = time.monotonic_ns(), owner.shown_ns
        end = owner.ended
        if owner.process is not None:
            end = self._eyes.ended(owner.process.pid, owner.since_ns)
        if end is None and shown_ns is None:
            return OwnerEnded(now_ns, owner.pid, None, owner.until_ns or now_ns)
        owner.how = SEEN
        if end is None:
            ended_ns, source = shown_ns or now_ns, Source.AGENT
        else:
            ended_ns, source = min(end.at_ns, shown_ns or now_ns), Source.KERNEL
        return OwnerEnded(now_ns, owner.pid, ended_ns, ended_ns + LOOSE_NS, source)


def _is_over(owner: _Owner) -> bool:
    if owner.process is not None and not owner.is_held and not owner.is_over:
        owner.is_over = kernel.start_ticks(owner.process.pid) != owner.process.ticks
    return owner.is_over


def _when(end: Exited | Lost) -> int:
    at_ns = time.monotonic_ns() if end.at_ns is None else end.at_ns
    kernel_ns = end.kernel_ns if isinstance(end, Exited) else None
    return at_ns if kernel_ns is None else min(kernel_ns, at_ns)
