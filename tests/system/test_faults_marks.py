"""Kill -9 of the agents that listen to an orphan: whatever it said is heard once, and nothing of it is lost.

Injects SIGKILL into one agent after the other while a worker whose wrapper was killed goes on to speak, two marks each
millisecond: what an agent took out of the FIFO and had not booked yet is booked by the next one.
"""

import subprocess
import sys
import time
from pathlib import Path

from taximeter.records import RecordType
from tests.system.agents import Node, wait_until
from tests.system.faults import check_ledger, facts_of, finals

KILLS, EACH = 6, 300
#: Does so many predictions for each line that it is given, one after the other.
SPEAKS = """
import json, os, sys, time
marks = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR)
n = 0
for line in sys.stdin:
    for _ in range(300):
        for mark in ({"mark": "start"}, {"mark": "finish", "status": "succeeded", "units": {"image": 1}}):
            os.write(marks, json.dumps({**mark, "prediction": f"p{n}"}).encode() + b"\\n")
        n += 1
        time.sleep(0.001)
    print(n, flush=True)
"""


def test_what_an_orphan_says_survives_the_agents_that_hear_it(taximeter_program: str, tmp_path: Path) -> None:
    node = Node(taximeter_program, tmp_path / "node", config="[witness]\nkernel = false\n")
    words = ("--worker", "--", sys.executable, "-c", SPEAKS)
    with node.spawn(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as wrapper:
        assert wrapper.stdin is not None
        assert wrapper.stdout is not None
        wait_until(lambda: len(facts_of(node, None)) > 2, "the spawn")
        wrapper.kill()
        for _ in range(KILLS):
            with node.agent() as agent:
                booked = len(finals(node))
                wrapper.stdin.write("go\n")
                wrapper.stdin.flush()
                wait_until(lambda booked=booked: len(finals(node)) > booked, "some of what it says")
                at_s = time.monotonic() + 0.05
                wait_until(lambda at_s=at_s: time.monotonic() > at_s, "some more of it")
                agent.process.kill()
            wrapper.stdout.readline()
        with node.agent():
            wrapper.stdin.close()
            wait_until(lambda: [r for r in node.records(RecordType.INSTANCE) if "exit" in r["data"]], "its end")
            wait_until(lambda: not list(node.journal.iterdir()), "nothing to be left of it")
    check_ledger(node)
    done = finals(node)
    assert len(done) == KILLS * EACH
    assert {data["status"] for data in done.values()} == {"succeeded"}
    assert [data["units"] for data in done.values()] == [{"image": "1"}] * len(done)
