"""What takes CAP_NET_ADMIN is done once; then it is gone, for threads and programs that come later, too."""

import subprocess
import sys

from tests.require import require_program, require_root

GIVE_UP = """
import subprocess, threading
from taximeter import kernel
kernel.give_up_net_admin()
kernel.give_up_net_admin()
def show():
    print(next(line.split()[1] for line in open("/proc/thread-self/status") if line.startswith("CapEff")))
show()
thread = threading.Thread(target=show)
thread.start()
thread.join()
subprocess.run(["sed", "-n", "s/^CapEff:.//p", "/proc/self/status"], check=True)
"""
NET_ADMIN = 1 << 12


def effective(*before: str) -> list[int]:
    words = [*before, sys.executable, "-P", "-c", GIVE_UP]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [int(line, 16) for line in done.stdout.split()]


def test_a_service_that_has_only_this_capability_has_none_afterwards_and_neither_have_its_children() -> None:
    """As root without root's privileges: what a unit with AmbientCapabilities= gives its user."""
    require_root()
    only = "-all,+net_admin"
    words = ["--securebits=+noroot", f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}"]
    assert effective(require_program("setpriv", "util-linux"), *words) == [0, 0, 0]


def test_root_keeps_all_others() -> None:
    require_root()
    here, thread, _ = effective()
    assert here == thread != 0
    assert here & NET_ADMIN == 0


def test_who_never_had_it_loses_nothing() -> None:
    require_root()
    words = ["--bounding-set=-all", "--inh-caps=-all"]
    assert effective(require_program("setpriv", "util-linux"), *words) == [0, 0, 0]
