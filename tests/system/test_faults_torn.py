"""A journal that ends anywhere, of a command that lives: whatever was whole is believed, and the command is adopted.

Injects the end of a write in its middle, for every byte of a journal: that of a run whose wrapper was killed is cut
there, each cut under an instance id of its own, so that one agent takes up all of them at once. Where the start of the
command was still told whole, the agent adopts the command, which lives, and bills it to its end; where it was not,
nobody knows of a command, and nothing is billed.
"""

import contextlib
import re
import subprocess
from pathlib import Path

import pytest

from taximeter.records import RecordType
from tests.journal_samples import sealed_anew
from tests.system.agents import SEALED, Node, wait_until
from tests.system.faults import LATE_NS, check_bill, check_ledger, finals, gate, sample, wait_for_fact


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    return Node(taximeter_program, tmp_path / "node")


def alone(node: Node, *words: str) -> contextlib.AbstractContextManager["subprocess.Popen[str]"]:
    """A run in a session of its own: whoever else began there in that second may be taken for its command."""
    return node.spawn(*words, start_new_session=True)


def cut_at_every_byte(node: Node, content: bytes) -> dict[str, int]:
    """A journal for each way of cutting this one; the prediction's name in each, and how much is left there."""
    opened, head = content.index(b"\n"), re.search(rb'"instance":"([0-9a-f-]{36})"', content)
    assert head is not None
    instance = head[1]
    cuts: dict[str, int] = {}
    # Of the opening alone no command is known, so a few cuts of it will do.
    lengths = [*sample(range(opened), 20), *sample(range(opened, len(content) + 1), 200)]
    for number, length in enumerate(lengths):
        mine = instance[:-6] + b"%06x" % number
        path = node.journal / f"{mine.decode()}.0.ndjson"
        path.write_bytes(copy_of(content, instance, mine, length)[:length])
        path.chmod(0o640)
        cuts[f"{length:03x}"] = length
    return cuts


def copy_of(content: bytes, instance: bytes, mine: bytes, number: int) -> bytes:
    """The journal of another run, as long as this one."""
    named = content.replace(instance, mine).replace(b'"prediction":"run"', b'"prediction":"%03x"' % number)
    assert len(named) == len(content) < 0x1000
    return sealed_anew(named)


def cut_in_the_second_segment(node: Node, content: bytes) -> int:
    """Journals of a wrapper that was killed while it began a segment, at each byte of its first line; how many."""
    head = re.search(rb'"instance":"([0-9a-f-]{36})"', content)
    assert head is not None
    again = content[: content.index(b"\n") + 1].replace(b'"segment":0', b'"segment":1')
    lengths = sample(range(len(again) + 1), 40)
    for number, length in enumerate(lengths):
        mine = head[1][:-6] + b"1%05x" % number
        whole, begun = (copy_of(said, head[1], mine, length) for said in (content, again))
        for segment, said in enumerate((whole, begun[:length])):
            path = node.journal / f"{mine.decode()}.{segment}.ndjson"
            path.write_bytes(said)
            path.chmod(0o640)
    return len(lengths)


def test_a_wrapper_killed_while_it_begins_a_segment_leaves_a_command_that_is_adopted(
    node: Node, tmp_path: Path
) -> None:
    node.config = "[witness]\nkernel = false\n" + SEALED
    with gate(tmp_path / "gate") as opened, alone(node, "--prediction", "run", "--", *opened.command("run")) as wrapper:
        pid = opened.hold("run")
        wait_for_fact(node, "run", "ready")
        wrapper.kill()
        wrapper.wait()
        (journal,) = node.journal.glob("*.ndjson")
        adopted = 1 + cut_in_the_second_segment(node, journal.read_bytes().partition(b"\0")[0])
        with node.agent() as agent:
            wait_until(lambda: agent.log.read_text().count(f"pid={pid}:") == adopted, "all to be adopted")
            truth = opened.open()["run"]
            wait_until(lambda: len(finals(node)) == adopted, "all to be booked")
            wait_until(lambda: not list(node.journal.glob("*.ndjson")), "both segments to go")
    check_ledger(node)
    for data in finals(node).values():
        assert data["time"]["unknown_ns"] == 0
        check_bill(data, truth, 0)


def test_a_journal_cut_at_any_byte_is_believed_as_far_as_it_is_whole_and_its_command_adopted(
    node: Node, tmp_path: Path
) -> None:
    node.config = "[witness]\nkernel = false\n"
    with gate(tmp_path / "gate") as opened, alone(node, "--prediction", "run", "--", *opened.command("run")) as wrapper:
        pid = opened.hold("run")
        wait_for_fact(node, "run", "heartbeat")
        wrapper.kill()
        wrapper.wait()
        (journal,) = node.journal.glob("*.ndjson")
        content = journal.read_bytes().partition(b"\0")[0]
        started = content.index(b"\n", content.index(b'"f":"spawn"')) + 1
        lengths = {"run": len(content), **cut_at_every_byte(node, content)}
        with node.agent() as agent:
            adopted = sum(length >= started for length in lengths.values())
            wait_until(lambda: agent.log.read_text().count(f"pid={pid}:") == adopted, "all to be adopted")
            truth = opened.open()["run"]
            told = sum(length >= content.index(b"\n") + 1 for length in lengths.values())
            wait_until(lambda: len(finals(node)) == told, "all that were opened to be closed")
    check_ledger(node)
    instances = {record["data"]["instance"]: record["data"] for record in node.records(RecordType.INSTANCE)}
    for name, data in finals(node).items():
        instance = instances[data["instance"]]
        if lengths[name] >= started:
            assert (instance["time"]["unknown_ns"], instance["timing"]["end"]["source"]) == (0, "agent")
            assert instance["time"]["wall_ns"] <= truth.gone_ns + LATE_NS - truth.forked_ns
            check_bill(data, truth, 0)
        else:  # nobody knows of a command
            assert data["billing"]["lines"] == []
