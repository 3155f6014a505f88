"""What the project says of itself is so: version, locks, layers, drawn documentation, the program that is installed."""

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from docs import draw
from taximeter import wire

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_version_has_one_place() -> None:
    assert importlib.metadata.version("taximeter") == wire.VERSION


def test_the_program_says_its_verbs(taximeter_program: str) -> None:
    said = subprocess.run([taximeter_program, "--help"], capture_output=True, text=True, timeout=30)
    assert said.returncode == 0
    for verb in ("run", "agent", "status", "receipt", "records", "hardware", "verify", "config"):
        assert re.search(rf"^\W*{verb}\b", said.stdout, re.MULTILINE), verb


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_no_address(lock: Path) -> None:
    said = [line for line in lock.read_text().splitlines() if "://" in line or line.startswith("-")]
    assert said == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_line_of_a_lock_has_a_hash(lock: Path) -> None:
    entries = re.findall(
        r"^([a-z0-9._-]+)==(\S+)( \\\n    --hash=sha256:[0-9a-f]{64})?", lock.read_text(), re.MULTILINE
    )
    assert entries
    assert [name for name, _, hashed in entries if not hashed] == []


def test_the_lock_has_every_dependency() -> None:
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements/runtime.txt").read_text(), re.MULTILINE))
    wanted = {re.split(r"[<>=!~ ]", line)[0] for line in PROJECT["project"]["dependencies"]}
    assert wanted <= locked


def test_the_documentation_has_a_reason_for_every_dependency() -> None:
    named = set(
        re.findall(r"^\| ([a-z0-9-]+) \| [^|]+ \| [^|]+ \|$", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)
    )
    wanted = {re.split(r"[<>=!~ ]", line)[0] for line in PROJECT["project"]["dependencies"]}
    assert wanted <= named


def test_what_must_be_pure_must_be_covered() -> None:
    pure = next(one for one in PROJECT["tool"]["importlinter"]["contracts"] if "pure" in one["name"])["source_modules"]
    covered = [
        path.removeprefix("*/").removesuffix(".py").removesuffix("/*").replace("/", ".")
        for path in PROJECT["tool"]["coverage"]["run"]["include"]
    ]
    assert sorted(pure) == sorted(covered)


@pytest.mark.parametrize("page", draw.PAGES)
def test_what_is_drawn_from_the_code_is_current(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert draw.redrawn(text) == text, "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_metric_that_is_named_exists(page: Path) -> None:
    known = set(re.findall(r"`(taximeter_\w+)`", draw.draw_metrics()))
    known |= {name.removesuffix("_total") for name in known}
    named = set(re.findall(r"\btaximeter_[a-z_]+[a-z]\b", page.read_text()))
    assert named - known == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^\$ |`)make ([a-z]+)", page.read_text(), re.MULTILINE))
    assert named <= targets


def test_the_changelog_tells_of_what_is_to_come_and_of_this_version() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
