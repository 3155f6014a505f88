"""Memory of a thread's peak is not kept apart for that thread."""

import subprocess
import sys

import pytest

#: Counts the heaps of glibc once four threads have allocated at the same time.
HEAPS = """
import ctypes, sys, tempfile, threading
from taximeter.agent import heap
if sys.argv[1] == "shared":
    heap.share()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(4)
def allocate():
    together.wait()
    libc.malloc(100_000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as told:
    file = ctypes.c_void_p(libc.fopen(told.name.encode(), b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)
    print(told.read().count(b"<heap nr="))
"""


@pytest.mark.parametrize(("how", "heaps"), [("shared", 1), ("apart", 5)])
def test_threads_of_an_agent_have_one_heap(how: str, heaps: int) -> None:
    done = subprocess.run([sys.executable, "-c", HEAPS, how], capture_output=True, text=True, check=True)
    assert int(done.stdout) == heaps
