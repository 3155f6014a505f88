"""Who may be the command of a wrapper that was killed before its word of one, beside other instances."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from taximeter import kernel
from taximeter.agent.eyewitness import Eyewitness
from taximeter.agent.finder import Finder
from taximeter.journal import journal_name, open_directory
from tests.agent.desks import start, write
from tests.journal_samples import INSTANCE, OTHER, clock, open_line
from tests.system.agents import wait_until


@pytest.mark.parametrize(("pidns", "may_live"), [("pid:[4026532177]", True), (None, False)])
def test_what_descends_from_anothers_wrapper_is_not_the_command_where_that_pid_is_one_of_the_machines(
    tmp_path: Path, pidns: str | None, may_live: bool
) -> None:
    node = start(tmp_path / "node")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as command:
        wait_until(lambda: kernel.words(command.pid), "the end of its exec")
        now = clock(time.monotonic_ns()) | {"boot_id": kernel.boot_id()}
        said = {"uid": os.getuid(), "clock": now}
        at_ns = time.monotonic_ns() - 500_000_000
        for name, keys in ((INSTANCE, {"sid": command.pid}), (OTHER, {"pid": os.getpid(), "pidns": pidns})):
            line = open_line(name, **said, **keys).replace(b'"t": 1000,', b'"t": %d,' % at_ns)
            write(node.path / journal_name(name, 0), [line])
            node.read(name)
        account = node.books.accounts[INSTANCE]
        assert account.instance is not None
        directory_fd = open_directory(node.path)
        finder = Finder(directory_fd, Eyewitness(directory_fd, None), node.books)
        assert finder.find(INSTANCE, account, account.instance.opened, time.monotonic_ns()) == ((), may_live)
        command.kill()
        os.close(directory_fd)
