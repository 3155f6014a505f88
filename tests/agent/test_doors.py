"""The doors: who is refused is a file, right behind the commit, whatever was there before and whoever looks."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taximeter.agent.doors import Doors
from taximeter.client import admission
from taximeter.errors import TaximeterError
from taximeter.ledger.store import Ledger
from taximeter.wrap import places
from tests.ledger.samples import BEGAN_UTC_NS, opened
from tests.ledger.spending import grant, paying, put_in_force, rules
from tests.require import require_root

pytestmark = pytest.mark.forged  # records by hand, whose prices are round

HOUR_NS = 3_600 * 10**9
MONTH_LATER_NS = BEGAN_UTC_NS + 31 * 24 * HOUR_NS


class Node:
    """A ledger, its doors, and a clock."""

    def __init__(self, path: Path, **credit: object) -> None:
        self.run = path / "run"
        self.run.mkdir(exist_ok=True)
        self.ledger: Ledger = opened(path)
        self.now_ns = BEGAN_UTC_NS
        content = rules(**credit)  # type: ignore[arg-type]
        put_in_force(self.ledger, content)
        self.doors = Doors(self.run, self.ledger, content.credit, lambda: self.now_ns)

    @property
    def denied(self) -> set[str]:
        return set(os.listdir(self.run / "denied"))

    def open(self, *, refuse_without_agent: bool = False, refuse_when_full: bool = False) -> "Node":
        self.doors.open(refuse_without_agent=refuse_without_agent, refuse_when_full=refuse_when_full)
        return self

    def spend(self, number: int, quantity: str, account: str = "cus_7") -> None:
        self.ledger.commit(paying(number, quantity, account))
        self.doors.committed()

    def grant(self, name: str, amount: str, expires_utc_ns: int | None = None) -> None:
        self.ledger.grant(grant(name, amount, expires_utc_ns))
        self.doors.committed()

    def close(self) -> None:
        self.doors.close()
        self.ledger.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(**credit: object) -> Node:
        for before in made:
            before.close()
        made.append(Node(tmp_path, **credit))
        return made[-1]

    yield make
    made[-1].close()


def test_a_prepaid_account_is_refused_until_it_has_credit_and_once_that_is_used_up(node: Callable[..., Node]) -> None:
    here = node(prepaid=["cus_7"]).open()
    assert here.denied == {"cus_7"}
    here.grant("g1", "1")
    assert here.denied == set()
    here.spend(1, "0.75")
    assert here.denied == set()
    here.spend(2, "0.75")
    assert (here.denied, here.doors.count) == ({"cus_7"}, 1)
    here.grant("g2", "0.5")
    assert here.denied == {"cus_7"}
    here.grant("g3", "0.25")
    assert (here.denied, here.doors.count) == (set(), 0)


def test_where_all_pay_in_advance_whoever_uses_anything_without_credit_is_refused(node: Callable[..., Node]) -> None:
    here = node(prepaid="all").open()
    assert here.denied == set()
    here.spend(1, "1", account="cus_8")
    assert here.denied == {"cus_8"}


def test_nobody_is_refused_where_no_rule_says_so(node: Callable[..., Node]) -> None:
    here = node().open()
    here.spend(1, "1000")
    assert (here.denied, here.doors.is_idle) == (set(), True)


def test_a_cap_refuses_until_the_month_is_over(node: Callable[..., Node]) -> None:
    here = node(caps={"cus_7": "2"}).open()
    here.spend(1, "1")
    assert here.denied == set()
    here.spend(2, "1")
    assert here.denied == {"cus_7"}
    here.now_ns += HOUR_NS
    here.doors.passed()
    assert here.denied == {"cus_7"}
    here.now_ns = MONTH_LATER_NS
    here.doors.passed()
    assert here.denied == set()


def test_a_limit_refuses_a_model_where_a_run_and_a_client_look_for_it(node: Callable[..., Node]) -> None:
    here = node(limits={"cus_7": {"acme/sdxl-lora": "1"}}).open()
    here.spend(1, "1")
    assert here.denied == {"cus_7@acme%2Fsdxl-lora"}
    assert "sdxl" in (places.refusal(str(here.run), "cus_7", "acme/sdxl-lora") or "")
    assert places.refusal(str(here.run), "cus_7", "acme/llama") is None
    assert places.refusal(str(here.run), "cus_7") is None


def test_credit_that_expires_refuses_from_then_on(node: Callable[..., Node]) -> None:
    here = node(prepaid=["cus_7"]).open()
    here.grant("g1", "1", BEGAN_UTC_NS + HOUR_NS)
    here.now_ns += HOUR_NS - 1
    here.doors.passed()
    assert here.denied == set()
    here.now_ns += 1
    here.doors.passed()
    assert here.denied == {"cus_7"}


def test_a_clock_that_was_set_back_is_believed(node: Callable[..., Node]) -> None:
    here = node(prepaid=["cus_7"]).open()
    here.grant("g1", "1", BEGAN_UTC_NS + HOUR_NS)
    for now_ns, denied in ((BEGAN_UTC_NS + 2 * HOUR_NS, {"cus_7"}), (BEGAN_UTC_NS, set())):
        here.now_ns = now_ns
        here.doors.passed()
        assert here.denied == denied


# --- Over restarts ---


def test_who_is_refused_still_is_with_the_next_agent(node: Callable[..., Node]) -> None:
    here = node(prepaid="all").open()
    here.spend(1, "1")
    before = (here.run / "denied" / "cus_7").stat().st_ino
    assert node(prepaid="all").open().denied == {"cus_7"}
    assert before  # the file may be another one, but there always was one: it is replaced by renaming


def test_what_an_agent_could_not_say_any_more_is_said_by_the_next(node: Callable[..., Node]) -> None:
    here = node(prepaid="all").open()
    here.ledger.commit(paying(1, "1"))  # and killed before the file was there
    assert here.denied == set()
    assert node(prepaid="all").open().denied == {"cus_7"}


def test_what_is_no_longer_so_is_cleaned_up_at_the_start(node: Callable[..., Node]) -> None:
    here = node(prepaid=["cus_7"]).open()
    (here.run / "denied" / "cus_old").touch()
    (here.run / "denied" / "..new").touch()
    assert node(prepaid=["cus_8"]).open().denied == {"cus_8"}
    assert node().open().denied == set()


@pytest.mark.parametrize("refuse", [True, False])
def test_whether_runs_begin_without_an_agent_is_said_and_unsaid(node: Callable[..., Node], refuse: bool) -> None:
    (node().run / "refuse-without-agent").touch()
    here = node().open(refuse_without_agent=refuse)
    assert (here.run / "refuse-without-agent").exists() == refuse
    if refuse:
        assert stat.S_IMODE((here.run / "refuse-without-agent").stat().st_mode) == 0o644
        assert "agent" in (places.refusal(str(here.run), None) or "")


@pytest.mark.parametrize("refuse", [True, False])
def test_whether_runs_begin_on_a_full_disk_is_said_and_unsaid(node: Callable[..., Node], refuse: bool) -> None:
    (node().run / "refuse-when-full").touch()
    here = node().open(refuse_when_full=refuse)
    assert (here.run / "refuse-when-full").exists() == refuse


# --- Files ---


@pytest.fixture
def narrow() -> Iterator[None]:
    """The umask of the shipped unit."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_names_may_be_asked_for_by_everybody_and_listed_by_nobody_else(narrow: None, node: Callable[..., Node]) -> None:
    here = node(prepaid=["cus_7"]).open()
    assert stat.S_IMODE((here.run / "denied").stat().st_mode) == 0o711
    assert stat.S_IMODE((here.run / "denied" / "cus_7").stat().st_mode) == 0o640
    assert (here.run / "denied" / "cus_7").read_text() == "prepaid, and nothing was granted\n"


@pytest.mark.parametrize("account", ["a/b", "..", ".", ".hidden", "é 1", "x" * 256, "é" * 256, "a@b", "-", "%"])
def test_any_account_is_found_where_it_is_looked_for(
    node: Callable[..., Node], account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = node(prepaid=[account], limits={account: {account: "0"}}).open()
    assert len(here.denied) == 2
    assert all(len(name.encode()) <= 255 for name in here.denied)
    assert places.refusal(str(here.run), account)
    monkeypatch.setenv("TAXIMETER_RUN_DIR", str(here.run))
    assert admission.refusal("/nowhere/journal/i.marks", account)
    (here.run / "denied" / admission.denied_name(account)).unlink()
    assert "model" in (places.refusal(str(here.run), account, account) or "")
    assert "model" in str(admission.refusal("/nowhere/journal/i.marks", account, account))
    assert places.refusal(str(here.run), account, "other") is None


def test_a_directory_of_somebody_else_is_not_used(node: Callable[..., Node]) -> None:
    require_root()
    here = node()
    (here.run / "denied").mkdir()
    os.chown(here.run / "denied", 12345, 12345)
    with pytest.raises(TaximeterError, match="expected a directory of uid 0, got one of uid 12345"):
        here.open()


def test_a_link_in_its_place_is_not_followed(node: Callable[..., Node], tmp_path: Path) -> None:
    here = node()
    (tmp_path / "elsewhere").mkdir()
    (here.run / "denied").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="denied"):
        here.open()


def test_what_could_not_be_written_is_complained_of_and_tried_again(
    node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = node(prepaid="all").open()
    rename = os.rename

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    here.spend(1, "1")
    assert "No space left" in (here.doors.trouble or "")
    here.doors.passed()
    assert here.doors.trouble
    monkeypatch.setattr(os, "rename", rename)
    here.doors.passed()
    assert (here.denied - {"..new"}, here.doors.trouble) == ({"cus_7"}, None)
