"""Smaller parts of the wrapper: marks to lines, places, ids, the environment, what is forwarded."""

import ast
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import taximeter
from taximeter import wire
from taximeter.config.files import directories
from taximeter.wrap import places
from taximeter.wrap.command import make_environment
from taximeter.wrap.entry import Entry
from taximeter.wrap.environment import Environment
from taximeter.wrap.marks import Splitter, says_ready
from taximeter.wrap.signals import is_forwarded

LIB = str(Path(taximeter.__file__).parents[1])


@given(st.lists(st.binary(max_size=50).filter(lambda line: b"\n" not in line)), st.integers(1, 60))
def test_lines_are_split_alike_however_they_arrive(said: list[bytes], size: int) -> None:
    data, splitter, found = b"".join(line + b"\n" for line in said), Splitter(), []
    for at in range(0, len(data), size):
        found += splitter.feed(data[at : at + size])
    assert found == [line for line in said if line]


def test_a_line_without_an_end_is_given_out_at_the_end() -> None:
    splitter = Splitter()
    assert (splitter.feed(b"a\nb"), splitter.finish(), splitter.finish()) == ([b"a"], [b"b"], [])


def test_of_a_line_that_never_ends_only_the_beginning_is_kept() -> None:
    splitter = Splitter()
    for _ in range(1000):
        assert splitter.feed(b"x" * 32_768) == []
    assert splitter.feed(b"\nnext\n") == [b"x" * (wire.MARK_MAX_BYTES + 1), b"next"]


def test_the_longest_mark_is_kept_whole() -> None:
    assert Splitter().feed(b"x" * 4095 + b"\n") == [b"x" * 4095]


@pytest.mark.parametrize("line", [b'{"mark":"ready"}', b'{ "mark" : "ready", "at": 5 }'])
def test_a_ready_mark_is_recognised(line: bytes) -> None:
    assert says_ready(line)


@pytest.mark.parametrize("line", [b'{"mark":"start","prediction":"p"}', b"ready", b""])
def test_another_mark_is_not_taken_for_ready(line: bytes) -> None:
    assert not says_ready(line)


def test_an_id_is_a_uuid_of_version_7() -> None:
    made = uuid.UUID(places.make_id())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_ids_are_ordered_by_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for ms in (1, 2, 1_795_348_351_255, 1_795_348_351_256, 2**48 - 1):
        monkeypatch.setattr(places.time, "time_ns", lambda ms=ms: ms * 1_000_000 + 999_999)
        made.append(places.make_id())
    assert made == sorted(made)
    assert int(made[2].replace("-", "")[:12], 16) == 1_795_348_351_255


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"TAXIMETER_STATE_DIR": "/s"},
        {"TAXIMETER_STATE_DIR": "/s", "TAXIMETER_RUN_DIR": "/r"},
        {"TAXIMETER_RUN_DIR": "/r"},
        {"TAXIMETER_STATE_DIR": "", "XDG_STATE_HOME": "/x"},
        {"XDG_STATE_HOME": "/x", "HOME": "/h"},
        {"HOME": "/h"},
        {"HOME": ""},
    ],
)
def test_the_wrapper_and_the_agent_mean_the_same_directories(variables: dict[str, str]) -> None:
    expected = directories(variables)
    assert tuple(map(Path, places.directories(variables))) == (expected.state, expected.run)


def test_a_journal_directory_is_made_for_its_user_alone(tmp_path: Path) -> None:
    made = places.make_journal_directory(f"{tmp_path}/a/b")
    assert made == f"{tmp_path}/a/b/journal"
    assert Path(made).stat().st_mode & 0o777 == 0o700


def test_a_journal_directory_is_absolute_whatever_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert places.make_journal_directory("state") == f"{tmp_path}/state/journal"


@given(st.text(min_size=1, max_size=10))
def test_an_account_s_file_name_stays_in_its_directory_and_reads_back(account: str) -> None:
    name = places.denied_name(account)
    assert "/" not in name
    assert not name.startswith(".")
    assert unquote(name) == account


@pytest.mark.parametrize("account", ["cus_7", "a/b", "é 1", "..", ".hidden", "a.b", "100%"])
def test_an_account_s_file_name_is_the_usual_percent_encoding_but_for_a_leading_dot(account: str) -> None:
    assert places.denied_name(account).replace("%2E", ".", 1) == quote(account, safe="").replace("%2E", ".", 1)


@given(st.text(min_size=1, max_size=256), st.none() | st.text(min_size=1, max_size=256))
def test_a_file_name_of_any_account_and_model_fits_a_directory(account: str, model: str | None) -> None:
    name = places.denied_name(account, model)
    assert "/" not in name
    assert not name.startswith(".")
    assert len(name) <= 255
    assert name.count("@") == (model is not None)


@given(*[st.text("ab@=%./\u00e9", min_size=1, max_size=130) for _ in range(2)])
def test_two_accounts_never_have_one_file_name(one: str, other: str) -> None:
    assert (places.denied_name(one) == places.denied_name(other)) == (one == other)


def test_nobody_is_refused_where_nothing_is_denied(tmp_path: Path) -> None:
    assert places.refusal(str(tmp_path), "cus_7") is None


def test_a_denied_account_is_refused_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "denied").mkdir()
    (tmp_path / "denied" / "cus%2F7").touch()
    assert "cus/7" in (places.refusal(str(tmp_path), "cus/7") or "")
    assert places.refusal(str(tmp_path), "cus") is None
    assert places.refusal(str(tmp_path), None) is None


def test_a_denied_model_is_refused_to_its_account_alone(tmp_path: Path) -> None:
    (tmp_path / "denied").mkdir()
    (tmp_path / "denied" / "cus_7@acme%2Fsdxl").touch()
    assert "acme/sdxl" in (places.refusal(str(tmp_path), "cus_7", "acme/sdxl") or "")
    assert places.refusal(str(tmp_path), "cus_7", "acme/llama") is None
    assert places.refusal(str(tmp_path), "cus_8", "acme/sdxl") is None
    assert places.refusal(str(tmp_path), None, "acme/sdxl") is None


def test_where_there_is_room_nothing_is_refused_for_want_of_it(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "refuse-when-full").touch()
    assert places.no_room(str(tmp_path), str(tmp_path)) is None


def test_where_there_is_no_room_a_run_is_refused_if_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "journal").mkdir()
    monkeypatch.setattr(places, "has_spare", lambda _: False)
    assert places.no_room(str(tmp_path), str(tmp_path)) is None
    (tmp_path / "refuse-when-full").touch()
    assert f"{tmp_path}/journal" in (places.no_room(str(tmp_path), str(tmp_path)) or "")
    assert places.no_room(str(tmp_path), f"{tmp_path}/elsewhere") is None


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"pid":2147483646}', b'{"pid":"x"}'])
def test_without_an_agent_a_node_that_wants_one_refuses(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "refuse-without-agent").touch()
    if content is not None:
        (tmp_path / "agent").write_bytes(content)
    assert "agent" in (places.refusal(str(tmp_path), None) or "")


@pytest.mark.parametrize("form", ['{"url":"http://127.0.0.1:1","token":"t","pid":%d}', '{"pid": %d, "url": ""}'])
def test_with_its_agent_a_node_that_wants_one_does_not_refuse(tmp_path: Path, form: str) -> None:
    (tmp_path / "refuse-without-agent").touch()
    (tmp_path / "agent").write_text(form % os.getpid())
    assert places.refusal(str(tmp_path), None) is None


def test_an_environment_keeps_order_duplicates_and_odd_names() -> None:
    made = make_environment([b"B=1", b"A.x%%=() { :;}", b"B=2", b"E="], {})
    assert list(zip(made.keys(), made.values(), strict=True)) == [
        (b"B", b"1"),
        (b"A.x%%", b"() { :;}"),
        (b"B", b"2"),
        (b"E", b""),
    ]


def test_changes_of_an_environment_come_last_and_leave_no_older_value() -> None:
    made = make_environment([b"M=old", b"A=1", b"M=older", b"N=x"], {"M": "new", "N": None})
    assert list(zip(made.keys(), made.values(), strict=True)) == [(b"A", b"1"), (b"M", b"new")]


@given(
    st.lists(st.sampled_from([b"A=1", b"A=2", b"B=", b"C=x=y", b"=D=1", b"NOEQUALS", b"", b"=", b"M=old"])),
    st.dictionaries(st.sampled_from(["M", "A", "N"]), st.sampled_from(["", "new", None])),
)
def test_an_environment_is_the_same_whether_a_dict_can_hold_it_or_not(
    entries: list[bytes], changes: dict[str, str | None]
) -> None:
    made, plain = make_environment(entries, changes), Environment(entries, changes)
    assert (list(made.keys()), list(made.values())) == (plain.keys(), plain.values())


def test_what_posix_spawn_cannot_be_told_is_left_out() -> None:
    assert list(make_environment([b"NOEQUALS", b"=", b"=x", b"A=1"], {}).keys()) == [b"A"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH, signal.SIGHUP])
def test_what_a_terminal_sends_to_the_group_is_not_forwarded(number: int) -> None:
    assert not is_forwarded(number, kernel=True, leads_session=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGTSTP, signal.SIGUSR1, signal.SIGCONT])
def test_what_a_process_sends_is_forwarded(number: int) -> None:
    assert is_forwarded(number, kernel=False, leads_session=False)


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGXCPU, signal.SIGIO])
def test_what_the_kernel_sends_to_us_alone_is_forwarded(number: int) -> None:
    assert is_forwarded(number, kernel=True, leads_session=False)


def test_a_hang_up_of_a_session_that_we_lead_is_forwarded() -> None:
    assert is_forwarded(signal.SIGHUP, kernel=True, leads_session=True)
    assert not is_forwarded(signal.SIGINT, kernel=True, leads_session=True)


def test_of_a_name_that_is_there_twice_getenv_finds_the_first() -> None:
    entries = [b"A=1", b"NOEQUALS", b"A=2", b"B=\xff=x"]
    assert Entry(entries, frozenset()).values() == {"A": "1", "NOEQUALS": "", "B": "\udcff=x"}


def test_without_its_witness_the_command_does_not_get_the_locale_that_the_launcher_gave_python() -> None:
    assert _environment_without_witness("LC_ALL=POSIX") == [b"A=1"]


def test_without_its_witness_the_command_keeps_the_locale_that_it_was_given() -> None:
    assert _environment_without_witness("LC_ALL=C.UTF-8") == [b"A=1", b"LC_ALL=C.UTF-8"]


def _environment_without_witness(locale: str) -> list[bytes]:
    """The environment of somebody whose witness is gone, as read in a process that has just these two variables."""
    name, _, value = locale.partition("=")
    code = (
        "import os, sys; sys.path.append(sys.argv[1]); from taximeter.wrap.entry import read_entry;"
        "print(read_entry(f'{2 ** 22 + 1}:{os.dup(0)}').environment)"
    )
    out = subprocess.run(
        [sys.executable, "-IS", "-c", code, LIB],
        env={"A": "1", name: value},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found: list[bytes] = ast.literal_eval(out)
    return found


@pytest.mark.parametrize("loaded", ["", "import resource;"])
def test_what_a_command_used_is_read_whether_the_module_of_its_type_is_there_or_not(loaded: str) -> None:
    code = f"""
import posix, sys
sys.path.append(sys.argv[1])
from taximeter.wrap import ending
{loaded}
pid = posix.fork()
if pid == 0:
    kept = b"x" * 60_000_000
    while posix.times().user < 0.05:
        pass
    posix._exit(7)
status, used = ending.wait(pid)
print(status, "struct_rusage" in vars(sys.modules.get("resource", sys)), "resource" in sys.modules)
import resource
exact = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used[:3] == exact[:3], used[0] >= 0.04, used[2] > 50_000)
"""
    out = subprocess.run([sys.executable, "-IS", "-c", code, LIB], capture_output=True, text=True, check=True).stdout
    there = str(bool(loaded))
    assert out.splitlines() == [f"{7 << 8} {there} {there}", "True True True"]
