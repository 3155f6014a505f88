"""`taximeter receipt --html`: the same receipt as a page that needs nothing else and obeys nobody."""

import html.parser
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from taximeter.cli.paper import Paper
from taximeter.cli.receipt import write
from taximeter.cli.sheet import Sheet
from taximeter.ledger.reader import LedgerReader
from taximeter.observe.queries import Queries
from taximeter.records import UsageRecord
from tests.cli import node
from tests.cli.conftest import HOSTILE
from tests.cli.node import taximeter
from tests.cli.test_receipt import agrees
from tests.observe import histories

SCRIPT = "<script>alert(1)</script>\"'&$id</style>-->]]>${id}"


class Page(html.parser.HTMLParser):
    """What a page is made of; a tag that is not closed, or closed without having been opened, is a fault."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside: list[str] = []
        self.feed(page)
        self.close()
        assert self._inside == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._inside:
            self.words += data.split()


def page_of(asked: str) -> str:
    answer = taximeter("receipt", asked, "--html")
    assert (answer.code, answer.err) == (0, "")
    return answer.out


@pytest.mark.parametrize(
    ("name", "asked"), [("one-shot", "p-one"), ("worker", node.instance(2)), ("unrated", "p-unpriced")]
)
def test_a_page_is_as_it_was_drawn(booked: Path, name: str, asked: str) -> None:
    page = re.sub(r"sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", page_of(asked))
    assert agrees(page, f"receipt-{name}.html")


def test_a_page_of_calls_is_as_it_was_drawn(state: Path) -> None:
    node.write(state, tuple(histories.calls()))
    page = re.sub(r"sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", page_of("p-root"))
    assert agrees(page, "receipt-tree.html")


@pytest.mark.parametrize("run", [*histories.ALL, histories.calls], ids=lambda run: run.__name__)
def test_a_page_says_all_that_the_terminal_does(state: Path, run: Callable[[], list[UsageRecord]]) -> None:
    node.write(state, tuple(run()))
    with LedgerReader(state / "ledger.db") as reader:
        queries = Queries(reader)
        for asked in {asked for one in run() for asked in (one.prediction, one.instance) if asked}:
            found = queries.receipt(asked)
            assert found is not None
            sheet, paper = Sheet(100), Paper()
            write(found, sheet)
            write(found, paper)
            said = " ".join(Page(paper.page(found)).words)
            drawn = re.sub(r"[─═█▒░·├└│]+|sha256:\S+…", " ", "\n".join(line.plain for line in sheet.lines))
            missing = [word for word in drawn.split() if word not in said]
            assert missing == []


def test_a_page_needs_nothing_else_and_runs_nothing(booked: Path) -> None:
    page = page_of("p-one")
    tags = Page(page).tags
    assert not {"script", "link", "img", "iframe", "object", "form", "a"} & {tag for tag, _ in tags}
    names = {name for _, attributes in tags for name in attributes}
    assert not [name for name in names if name.startswith("on") or name in ("src", "href", "srcset", "action")]
    assert "url(" not in page
    assert "@import" not in page
    assert re.search(r"https?:", page) is None
    assert "default-src 'none'" in page


@pytest.mark.parametrize("text", [SCRIPT, HOSTILE, "\u202eabc", "&lt;b&gt;", "a" * 256])
def test_whatever_a_run_is_called_is_text(state: Path, text: str) -> None:
    told = histories.one_shot(account=text, model=text, version=text, pool=text, labels={text: text})
    node.write(state, node.renamed(told, 1, text))
    page, usual = page_of(text), page_of(node.instance(1))
    assert [tag for tag, _ in Page(page).tags if tag == "script"] == []
    assert all(line.isprintable() for line in page.splitlines())
    plain = [tag for tag, _ in Page(usual).tags]
    assert [tag for tag, _ in Page(page).tags][: plain.index("main")] == plain[: plain.index("main")]


def test_a_script_is_shown_as_it_was_written(state: Path) -> None:
    node.write(state, node.renamed(histories.one_shot(account=SCRIPT), 1, "p"))
    assert SCRIPT in " ".join(Page(page_of("p")).words)


def test_a_bar_is_told_to_those_who_do_not_see_it(booked: Path) -> None:
    tags = Page(page_of(node.instance(2))).tags
    (bar,) = [attributes for _, attributes in tags if attributes.get("role") == "img"]
    assert bar["aria-label"] == "instance: boot 200 ms (21 %), idle 150 ms (16 %), active 600 ms (63 %)"


def test_every_part_is_named_by_its_heading(booked: Path) -> None:
    tags = Page(page_of("p-one")).tags
    headings = {attributes["id"] for tag, attributes in tags if tag == "h2"}
    assert {attributes["aria-labelledby"] for tag, attributes in tags if "aria-labelledby" in attributes} == headings


def test_hashes_are_whole(booked: Path) -> None:
    assert re.search(r"sha256:[0-9a-f]{64}", page_of("p-one"))


def test_a_page_and_json_are_not_asked_for_at_once(booked: Path) -> None:
    answer = taximeter("receipt", "p-one", "--html", "--json")
    assert (answer.code, "expected --json or --html" in answer.err) == (2, True)


def test_a_long_label_stands_apart_from_its_value() -> None:
    sheet = Sheet(80)
    for label in ("record 1", "record 12345", "record 1234567"):
        sheet.row(label, "sha256:00")
    assert [line.plain.split() for line in sheet.lines] == [
        ["record", number, "sha256:00"] for number in ("1", "12345", "1234567")
    ]
