"""What all verbs have in common, and the small ones: hardware, verify, config check, agent, run."""

import json
import os
import pty
import resource
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from taximeter import wire
from taximeter.cli import agent as agent_verb
from taximeter.config import fingerprint, load
from tests.cli import agent
from tests.cli.node import on_a_terminal, program, taximeter

VERBS = (
    ["account"],
    ["agent"],
    ["config", "check"],
    ["drain"],
    ["deadletters"],
    ["estimate"],
    ["export"],
    ["grant"],
    ["rerate"],
    ["reconcile"],
    ["hardware"],
    ["receipt"],
    ["records"],
    ["status"],
    ["verify"],
)


LETTERS = [["deadletters", verb] for verb in ("list", "retry", "drop")]


@pytest.mark.parametrize("verb", [*VERBS, [], ["config"], *LETTERS], ids=" ".join)
def test_every_verb_has_help_and_fits_80_columns(verb: list[str]) -> None:
    answer = taximeter(*verb, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(" ".join(["Usage: taximeter", *verb]))
    assert max(len(line) for line in answer.lines) <= 80


def test_help_names_every_verb() -> None:
    named = {line.split()[0] for line in taximeter("--help").out.partition("Commands:")[2].splitlines() if line}
    assert named == {"run", "config", *(words[0] for words in VERBS)}


def test_the_version_is_that_of_the_wire() -> None:
    assert taximeter("--version").out == f"taximeter {wire.VERSION}\n"


@pytest.mark.parametrize(
    "words", [["nope"], ["status", "--nope"], ["receipt"], ["agent", "--nope"], ["agent", "x"], []]
)
def test_a_wrong_use_ends_with_2_and_says_how_it_is_used(words: list[str]) -> None:
    answer = taximeter(*words)
    assert answer.code == 2
    assert "Usage: taximeter" in answer.err + answer.out


def test_the_installed_program_is_the_same(taximeter_program: str, booked: Path) -> None:
    done = subprocess.run([taximeter_program, "receipt", "p-one", "--json"], capture_output=True, timeout=60)
    assert json.loads(done.stdout)["total"]["amount"] == "0.0000412"


def test_on_a_terminal_it_is_coloured_and_as_wide_as_the_terminal(booked: Path) -> None:
    printed = on_a_terminal("receipt", "p-one", columns=70)
    assert "\x1b[1m" in printed
    assert "═" * 69 in printed
    assert "═" * 70 not in printed


def test_an_encoding_that_lacks_a_character_gets_an_escape(booked: Path) -> None:
    answer = program("receipt", "p-one", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert answer.code == 0
    assert "\\u2550" in answer.out


def test_the_daemon_is_started_without_what_is_only_for_people() -> None:
    lines = (
        "import sys",
        "from taximeter.cli import main",
        "main(['agent', '--help'])",
        "print(sorted({'typer', 'rich', 'pydantic'} & set(sys.modules)))",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_config_that_cannot_be_used_keeps_the_daemon_from_starting(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[billing]\ninterim_s = 0\nzzz = 1\n")
    answer = program("agent", "--config", str(tmp_path / "bad.toml"))
    assert answer.code == 1
    assert [line.startswith("taximeter agent: ") for line in answer.err.splitlines()] == [True, True]
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("words", [["--config", "a.toml"], ["--config=a.toml"]])
def test_the_daemon_is_told_its_config(words: list[str]) -> None:
    assert agent_verb._config(words) == (Path("a.toml"), None)


def test_run_around_the_launcher_is_handed_to_it(tmp_path: Path) -> None:
    answer = program("run", "--", sys.executable, "-c", "import sys; sys.exit(5)")
    assert answer.code == 5


ONE_VERB = "import typer; app = typer.Typer(); app.command('x')(print); app.callback()(print); app(['--help'])"


@pytest.mark.timing
def test_help_costs_hardly_more_than_that_of_a_program_with_one_verb() -> None:
    commands = ([sys.executable, "-m", "taximeter.cli", "--help"], [sys.executable, "-c", ONE_VERB])
    costs_s: tuple[list[float], list[float]] = ([], [])
    for _ in range(7):  # in turns, and by the processor's time: whatever else runs here slows both
        for command, cost_s in zip(commands, costs_s, strict=True):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, capture_output=True, check=True, timeout=60)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cost_s.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    ours_s, theirs_s = map(min, costs_s)
    assert ours_s < 1.4 * theirs_s


# config check


def test_a_good_config_is_ok_with_its_fingerprint(tmp_path: Path) -> None:
    answer = taximeter("config", "check", columns=120)
    assert (answer.code, answer.err) == (0, "")
    assert answer.lines[0].endswith("OK")
    assert f" fingerprint {fingerprint(load(None, os.environ))}" in answer.lines


def test_a_good_config_is_ok_in_json() -> None:
    answer = json.loads(taximeter("config", "check", "--json").out)
    assert answer["ok"] is True
    assert answer["fingerprint"] == fingerprint(load(None, os.environ))


def test_all_faults_of_a_config_are_named_each_on_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[billing]\ninterim_s = 0\n[node]\nid = "a\\u001b[31m b"\nidd = 1\n')
    answer = taximeter("config", "check", "--config", str(path))
    assert (answer.code, answer.out) == (1, "")
    assert len(answer.err.splitlines()) == 3
    assert all(line.startswith(f"{path}: ") and line.isprintable() for line in answer.err.splitlines())


def test_all_faults_of_a_config_are_named_in_json(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[billing]\ninterim_s = 0\nzzz = 1\n")
    answer = taximeter("config", "check", "--json", "--config", str(path))
    assert answer.code == 1
    assert len(json.loads(answer.out)["faults"]) == 2


# hardware

INVENTORY = {
    "tier": "gpu-h100-2x",
    "rule": "rule 18, gpu-h100-2x: 2 × NVIDIA H100 80GB HBM3, 80000 to 81920 MiB each",
    "host": {"cpus": 32, "memory_bytes": 256 << 30, "architecture": "x86_64"},
    "devices": [
        {
            "uuid": f"GPU-{index}",
            "name": "NVIDIA H100 80GB HBM3\x1b[2J",
            "memory_bytes": 85520809984,
            "index": index,
            "pci_device_id": "2330",
            "compute_capability": "9.0",
            "mig_profile": None,
            "parent_uuid": None,
        }
        for index in range(2)
    ],
    "problems": [],
    "driver_version": "595.45.04",
    "nvml_version": "13.595.45.04",
    "devices_known": True,
}


def test_the_machine_is_looked_at_where_no_agent_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("no library, so that no GPU of this machine is seen")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    answer = taximeter("hardware", "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["tier"], found["rule"]) == (0, "cpu", "rule 1, cpu: no device")
    assert found["host"]["cpus"] == os.cpu_count()


def test_what_no_rule_fits_makes_the_exit_status_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tiers.toml").write_text(
        'version = "1"\n[[tier]]\nslug = "x"\ntitle = "X"\ncount = 0\nhost_cpus = { min = 100000 }\n'
    )
    (tmp_path / "agent.toml").write_text('tiers = "tiers.toml"\n[hardware]\nnvml = false\n')
    answer = taximeter("hardware", "--config", str(tmp_path / "agent.toml"))
    assert answer.code == 1
    assert answer.lines[0].endswith("unknown")
    assert "no rule fits no device; closest x: host has" in answer.out
    assert "NVML is not asked: hardware.nvml is false" in answer.out


def test_what_the_agent_found_is_shown_device_by_device() -> None:
    with agent.living({"/v1/devices": INVENTORY}):
        answer = taximeter("hardware")
    assert answer.code == 0
    assert all(line.isprintable() for line in answer.lines)
    assert " driver      595.45.04, NVML 13.595.45.04" in answer.lines
    assert " sold as     gpu-h100-2x" in answer.lines
    assert [line[4:12] for line in answer.lines if line.startswith(" ── ")] == ["Device 0", "Device 1"]


# verify


def test_a_sound_ledger_is_said_to_be_sound(booked: Path) -> None:
    answer = taximeter("verify")
    assert (answer.code, answer.err) == (0, "")
    assert answer.lines[0].endswith("sound")


def test_who_looks_sees_how_far_the_audit_is(booked: Path) -> None:
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "taximeter.cli", "verify"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        assert process.wait(60) == 0
    assert b"verifying" in os.read(ours, 65_536)
    os.close(ours)


def test_an_audit_of_no_ledger_is_refused_on_a_terminal_as_elsewhere(state: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "taximeter.cli", "verify"], stderr=theirs) as process:
        os.close(theirs)
        assert process.wait(60) == 1
    assert b"expected a ledger" in os.read(ours, 65_536)
    os.close(ours)


@pytest.mark.forged
def test_every_fault_of_a_ledger_is_named(booked: Path) -> None:
    connection = apsw.Connection(str(booked / "ledger.db"))
    (body,) = next(connection.execute("SELECT body FROM records WHERE seq = 2"))
    connection.execute("UPDATE records SET body = ? WHERE seq = 2", (body.replace(b"cus_7", b"cus_8"),))
    connection.execute("DELETE FROM records WHERE seq = 4")
    connection.close()
    answer = taximeter("verify")
    assert answer.code == 1
    assert "fault" in answer.lines[0]
    assert any(line.startswith(" record 2 ") for line in answer.lines)
    faults = json.loads(taximeter("verify", "--json").out)["faults"]
    assert {fault["seq"] for fault in faults} >= {2}
    assert len(faults) == sum(line.startswith((" record ", " ledger ")) for line in answer.lines[4:])


def test_every_rule_is_explained_for_the_machine_itself(tmp_path: Path) -> None:
    (tmp_path / "tiers.toml").write_text(
        'version = "1"\n[[tier]]\nslug = "t4"\ntitle = "T4"\ncount = 1\nnames = ["Tesla T4"]\n'
        '[[tier]]\nslug = "cpu"\ntitle = "CPU"\ncount = 0\n'
    )
    (tmp_path / "agent.toml").write_text('tiers = "tiers.toml"\n[hardware]\nnvml = false\n')
    answer = taximeter("hardware", "--explain", "--config", str(tmp_path / "agent.toml"))
    assert " rule 1      t4: no device, expected 1" in answer.lines
    assert " rule 2      cpu: fits" in answer.lines
    told = json.loads(taximeter("hardware", "--explain", "--json", "--config", str(tmp_path / "agent.toml")).out)
    assert told["explained"]["node"]["trials"][1] == {"number": 2, "tier": "cpu", "misses": []}


def test_the_agent_explains_devices_and_instances() -> None:
    item = {"tier": "gpu-h100", "rule": "rule 17", "trials": [{"number": 1, "tier": "cpu", "misses": ["1 device"]}]}
    evidence = {"evidence": "mismatch", "declared": ["GPU-0"], "observed": ["GPU-1"], "shared_devices": ["GPU-1"]}
    why = {
        "node": item,
        "devices": [{"uuid": "GPU-0", "name": "H100", **item}],
        "instances": [{"instance": "i1", **evidence, **item}],
    }
    with agent.living({"/v1/devices": INVENTORY, "/v1/devices/explained": why}):
        answer = taximeter("hardware", "--explain")
    assert [line for line in answer.lines if "GPU-0 alone: gpu-h100" in line or "Instance i1: gpu-h100" in line]
    assert " evidence    mismatch; declared GPU-0; seen on GPU-1" in answer.lines
    assert answer.lines.count(" rule 1      cpu: 1 device") == 3


def test_an_older_agent_explains_nothing() -> None:
    with agent.living({"/v1/devices": INVENTORY}):
        answer = taximeter("hardware", "--explain")
    assert answer.code == 0
    assert not [line for line in answer.lines if "rule 1 " in line]
