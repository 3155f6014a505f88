"""Which instance a process belongs to: the command's descendants, and orphans that its wrapper took in.

Owns the memory of who belonged to whom, so that a process stays known when what is between has ended. A pid counts
only with its start time. Refuses to know devices.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from taximeter import kernel
from taximeter.agent.accounts import Account
from taximeter.errors import JournalFault
from taximeter.instance import Instance
from taximeter.journal import journal_name, writer_pid
from taximeter.kernel import Process

#: A server that works for others, and is listed on every device that any of them may use.
_MPS = "nvidia-cuda-mps"

_Key = tuple[int, int]  #: pid and start


@dataclass(slots=True)
class _Family:
    """One instance's processes, as far as they were met."""

    wrapper: _Key | None
    members: set[_Key] = field(default_factory=set)


class Kinship:
    """The processes of all open instances of one journal directory."""

    def __init__(self, directory_fd: int) -> None:
        self._directory_fd = directory_fd
        self._boot_id = kernel.boot_id()
        self._families: dict[str, _Family] = {}
        self._names: dict[_Key, str] = {}

    def refresh(self, accounts: Mapping[str, Account]) -> None:
        """Know the instances that are open now, and forget the others."""
        for name in self._families.keys() - accounts.keys():
            family = self._families.pop(name)
            for key in (*family.members, family.wrapper):
                if key is not None:
                    self._names.pop(key, None)
        for name, account in accounts.items():
            instance = account.instance
            if name not in self._families and instance is not None and self._is_here(instance):
                self._begin(name, account, instance)

    def instance_of(self, pid: int, latest_ticks: int) -> tuple[str | None, Process | None]:
        """The instance of the process that has `pid` and began before `latest_ticks`, and that process.

        None for a process that is gone, hidden, nobody's here, or the server of CUDA's multi-process service.
        """
        first: Process | None = None
        for process in kernel.ancestry(pid):
            if first is None:
                if process.ticks > latest_ticks or process.name.startswith(_MPS):
                    return None, None
                first = process
            name = self._names.get((process.pid, process.ticks))
            if name is not None:
                self._add(name, (first.pid, first.ticks))
                return name, first
        return None, first

    def trees(self, names: Iterable[str], table: dict[int, Process]) -> dict[str, set[int]]:
        """The living processes of instances, their wrappers not among them; of those that have any."""
        children = kernel.children_of(table)
        return {name: pids for name in names if (pids := self.tree(name, table, children))}

    def tree(self, name: str, table: dict[int, Process], children: dict[int, list[int]] | None = None) -> set[int]:
        """The living processes of an instance, its wrapper not among them."""
        family = self._families.get(name)
        if family is None:
            return set()
        alive = {pid for pid, ticks in family.members if pid in table and table[pid].ticks == ticks}
        wrapper = self.wrapper(name, table)
        own = {wrapper.pid} if wrapper else set()
        others = {family.wrapper[0] for family in self._families.values() if family.wrapper} - own
        pids = kernel.descendants(table, alive | own, others, children) - own
        gone = family.members - {(pid, table[pid].ticks) for pid in pids}
        for key in gone:
            family.members.discard(key)
            if self._names.get(key) == name:
                del self._names[key]
        for pid in pids:
            self._add(name, (pid, table[pid].ticks))
        return pids

    def wrapper(self, name: str, table: dict[int, Process]) -> Process | None:
        """An instance's wrapper, while it lives."""
        family = self._families.get(name)
        if family is None or family.wrapper is None:
            return None
        pid, ticks = family.wrapper
        found = table.get(pid)
        return found if found is not None and found.ticks == ticks else None

    def _is_here(self, instance: Instance) -> bool:
        known = instance.host_pid is not None and instance.start_ticks is not None
        return known and instance.opened.clock.boot_id == self._boot_id

    def _begin(self, name: str, account: Account, instance: Instance) -> None:
        family = self._families[name] = _Family(self._wrapper(name, account))
        if family.wrapper is not None:
            self._names[family.wrapper] = name
        if instance.host_pid is not None and instance.start_ticks is not None:
            self._add(name, (instance.host_pid, instance.start_ticks))

    def _wrapper(self, name: str, account: Account) -> _Key | None:
        """The wrapper that holds the journal's lock: nobody else can."""
        try:
            pid = writer_pid(journal_name(name, account.position.segment), self._directory_fd)
        except JournalFault:
            return None
        found = kernel.look_at(pid) if pid else None
        return (found.pid, found.ticks) if found else None

    def _add(self, name: str, key: _Key) -> None:
        self._families[name].members.add(key)
        self._names.setdefault(key, name)
