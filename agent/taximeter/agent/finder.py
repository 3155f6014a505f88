"""Finds the command of a wrapper that was killed before its word of one.

The kernel may have seen it start, or it says itself whose it is. What has neither witness is not guessed at: who looks
like it may be anybody's. As long as such a one lives, the instance is not over. Refuses to book anything.
"""

import logging
from collections.abc import Sequence

from taximeter.agent.accounts import Account
from taximeter.agent.books import Books
from taximeter.agent.eyewitness import Eyewitness
from taximeter.agent.suspects import Suspects
from taximeter.events import Opened, Spawned

logger = logging.getLogger(__name__)


class Finder:
    """Looks for the commands of one journal directory's instances."""

    def __init__(self, directory_fd: int, eyes: Eyewitness, books: Books) -> None:
        self._eyes = eyes
        self._books = books
        self._suspects = Suspects(directory_fd)

    def find(self, name: str, account: Account, opened: Opened, until_ns: int) -> tuple[Sequence[Spawned], bool]:
        """Its start, if there is a witness of one; else whether anybody lives who may be it."""
        if name not in self._suspects:
            spawned = self._eyes.found(opened, until_ns)
            if spawned is not None:
                return (spawned,), False
            text = "instance.unfound instance=%s: its wrapper was killed before it said whether its command runs"
            logger.warning(text, name)
            self._suspects.look_for(name, opened, account.position.segment, self._others(name))
        return (), self._suspects.live(name)

    def forget(self, name: str) -> None:
        """It is closed."""
        self._suspects.forget(name)

    def _others(self, name: str) -> set[int]:
        """Commands of other instances, and their wrappers, as far as these have their pids here."""
        others = [account.instance for other, account in self._books.accounts.items() if other != name]
        known = [instance for instance in others if instance is not None]
        wrappers = [one.opened.wrapper_pid for one in known if one.opened.pid_namespace is None]
        return {pid for pid in (*wrappers, *(one.host_pid for one in known)) if pid}
