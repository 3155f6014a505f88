"""The doors: says in files which accounts this node refuses; whoever asks pays an access(2), and parses nothing.

Owns `<run>/denied`, a file for each refusal, `<run>/refuse-without-agent` and `<run>/refuse-when-full`. They follow
from the ledger and the rules: made anew at each start, and changed right behind the commit that crossed something, on
the ledger's thread. What an agent leaves behind when it is killed or stopped stays in force until the next one. Refuses
to know why anybody is refused.
"""

import contextlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from taximeter import wire
from taximeter.billing.admission import Credit, denials
from taximeter.billing.thresholds import period_of
from taximeter.errors import LedgerError, TaximeterError
from taximeter.ledger.store import Ledger
from taximeter.wrap.places import denied_name

logger = logging.getLogger(__name__)

#: Whoever knows a name may ask for it, and nobody may list them: they are accounts.
_DIRECTORY_MODE = 0o711
#: Why, for people: as private as the ledger.
_FILE_MODE = 0o640
#: That there is one, is for everybody.
_REFUSE_MODE = 0o644
_FRESH = ".new"


class Doors:
    """What is published of one ledger's accounts; all but `count` and `trouble` are for the ledger's thread."""

    def __init__(self, run: Path, ledger: Ledger, credit: Credit, now_utc_ns: Callable[[], int] = time.time_ns) -> None:
        self._run = run
        self._ledger = ledger
        self._credit = credit
        self._now_utc_ns = now_utc_ns
        self._directory_fd = -1
        self._looked_utc_ns = 0
        self._published: dict[str, Mapping[str, str]] = {}  # account -> name -> why
        self._due: set[str] = set()  # whose files could not be changed
        self.count = 0  #: how many refusals there are
        self.trouble: str | None = None  #: why they are not as they should be

    def open(self, *, refuse_without_agent: bool = False, refuse_when_full: bool = False) -> None:
        """Publish what holds now, and nothing else; what held before and still does is never away in between."""
        self._directory_fd = _own_directory(self._run / wire.DENIED_DIR)
        found = frozenset(os.listdir(self._directory_fd))
        self._look_at_all()
        for name in found.difference(*self._published.values()):
            self._remove(name)
        _tell(self._run / wire.REFUSE_FILE, refuse_without_agent)
        _tell(self._run / wire.FULL_FILE, refuse_when_full)

    def close(self) -> None:
        """Let go of the directory; what it says stays."""
        if self._directory_fd >= 0:
            os.close(self._directory_fd)
            self._directory_fd = -1

    @property
    def is_idle(self) -> bool:
        """Whether no rule refuses anybody."""
        return self._credit.prepaid == frozenset() and not self._credit.named

    def committed(self) -> None:
        """Look at the accounts that the last commit touched."""
        self._look_at(self._ledger.take_touched())

    def passed(self) -> None:
        """Look at what time alone changes: grants that expired, a month that began; and at what failed before."""
        now_utc_ns, before_utc_ns = self._now_utc_ns(), self._looked_utc_ns
        try:
            if now_utc_ns < before_utc_ns or period_of(now_utc_ns) != period_of(before_utc_ns):
                self._look_at_all()
            else:
                expired = self._ledger.expired(before_utc_ns, now_utc_ns)
                self._looked_utc_ns = now_utc_ns
                due, self._due = self._due, set()
                self._look_at(due.union(expired))
        except LedgerError as error:
            self._say(str(error))

    def _look_at_all(self) -> None:
        now_utc_ns, credit = self._now_utc_ns(), self._credit
        known = self._ledger.accounts() if credit.prepaid is None else ()
        self._looked_utc_ns = now_utc_ns
        self._due.clear()
        self._look_at({*credit.named, *known, *self._published})

    def _look_at(self, accounts: Iterable[str]) -> None:
        now_utc_ns, credit, trouble = self._now_utc_ns(), self._credit, None
        for account in accounts:
            if account not in self._published and not (credit.is_prepaid(account) or account in credit.named):
                continue
            try:
                holdings = self._ledger.holdings(account, now_utc_ns)
                refused = denials(account, holdings, credit)
                self._publish(account, {denied_name(account, one.model): one.why for one in refused})
            except (OSError, LedgerError) as error:
                trouble = f"cannot say in {self._run / wire.DENIED_DIR} who is refused: {error}"
                self._due.add(account)
        self.count = sum(map(len, self._published.values()))
        if trouble is not None or not self._due:
            self._say(trouble)

    def _publish(self, account: str, refused: Mapping[str, str]) -> None:
        published = self._published.get(account, {})
        for name, why in refused.items():
            if name not in published:
                self._write(name, why)
        for name in published.keys() - refused.keys():
            self._remove(name)
        if refused:
            self._published[account] = refused
        else:
            self._published.pop(account, None)

    def _write(self, name: str, why: str) -> None:
        """As a whole, or not at all; no name begins with a dot but a fresh one's."""
        fresh = f".{_FRESH}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(fresh, flags, _FILE_MODE, dir_fd=self._directory_fd)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, _FILE_MODE)
            file.write(why + "\n")
        os.rename(fresh, name, src_dir_fd=self._directory_fd, dst_dir_fd=self._directory_fd)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._directory_fd)

    def _say(self, trouble: str | None) -> None:
        if trouble is not None and self.trouble is None:
            logger.warning("credit.unpublished: %s", trouble)
        self.trouble = trouble


def _tell(path: Path, is_so: bool) -> None:
    """Have a file there where something is so."""
    if not is_so:
        path.unlink(missing_ok=True)
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _REFUSE_MODE)
    os.fchmod(fd, _REFUSE_MODE)
    os.close(fd)


def _own_directory(path: Path) -> int:
    """A directory of the agent's own, made if it is not there, as a descriptor."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    if status.st_uid != os.geteuid():
        os.close(fd)
        expected = f"a directory of uid {os.geteuid()}, got one of uid {status.st_uid}; remove it"
        raise TaximeterError(f"cannot use {path}: expected {expected}")
    if stat.S_IMODE(status.st_mode) != _DIRECTORY_MODE:
        os.fchmod(fd, _DIRECTORY_MODE)
    return fd
