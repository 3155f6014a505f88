"""A receipt as a page: one file that needs nothing else, for a customer to open, print and keep.

Takes the same calls as a sheet for the terminal does (cli/sheet), so that both say the same. Owns how it becomes HTML:
everything that is said is escaped here, in one place, once. No script, nothing loaded; the look is in paper.css, the
frame in paper.html. Refuses to know what it shows.
"""

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from taximeter.cli import text
from taximeter.cli.branches import Line
from taximeter.cli.ride import Part

Json = Mapping[str, Any]

#: What a style of the terminal means on paper.
_TONES = {"red": "bad", "yellow": "warn", "green": "good", "magenta": "odd", "bold": "strong", "dim": "quiet"}


class Paper:
    """Parts of a page, written from top to bottom; whatever is given is text, and escaped."""

    def __init__(self) -> None:
        self._sections: list[str] = []
        self._brand = self._status = ""
        self._name: str | None = None
        self._blocks: list[str] = []
        self._open: str | None = None  # the kind of block that is being filled
        self._filled: list[str] = []

    def title(self, left: str, right: str = "", style: str = "") -> None:
        """Head the page: what it is, and in which state."""
        self._brand = left
        self._status = f'<p class="status {_tone(style)}">{_safe(right)}</p>'

    def section(self, name: str) -> None:
        """Begin a part."""
        self._end_section()
        self._name = name

    def row(self, label: str, value: object, style: str = "") -> None:
        """Write a label and what it is; without a label, more of the one before."""
        self._fill("dl")
        tone = "hash" if str(value).startswith("sha256:") else _tone(style)
        said = f'<dd class="{tone}">{_safe(value)}</dd>'
        self._filled.append(f"<dt>{_safe(label)}</dt>{said}" if label else said)

    def bar(self, label: str, parts: Sequence[Part]) -> None:
        """Draw parts side by side, each as wide as it was long, and name them below."""
        self._fill("figure")
        told = ", ".join(f"{part.name} {part.share}" for part in parts)
        whole = sum(part.ns for part in parts) or 1
        pieces = "".join(
            f'<span class="{_safe(part.name)}" style="flex-grow:{max(1, part.ns * 1000 // whole)}"></span>'
            for part in parts
        )
        named = "".join(f'<li class="{_safe(part.name)}">{_safe(f"{part.name} {part.share}")}</li>' for part in parts)
        self._filled.append(
            f'<figure><figcaption>{_safe(label)}</figcaption><div class="bar" role="img" '
            f'aria-label="{_safe(f"{label}: {told}")}">{pieces}</div><ul aria-hidden="true">{named}</ul></figure>'
        )

    def leader(self, label: str, left: str, right: str, style: str = "") -> None:
        """Write a line of a bill: what it is for, how it was worked out, and what it comes to."""
        self._fill("table")
        tone = ' class="hash"' if left.startswith("sha256:") else ""
        self._filled.append(
            f'<tr class="{_tone(style)}"><th scope="row">{_safe(label)}</th><td{tone}>{_safe(left)}</td>'
            f"<td>{_safe(right)}</td></tr>"
        )

    def total(self, label: str, right: str) -> None:
        """Write what it comes to."""
        self._fill("table")
        self._filled.append(
            f'<tr class="total"><th scope="row" colspan="2">{_safe(label)}</th><td>{_safe(right)}</td></tr>'
        )

    def tree(self, calls: Sequence[Line], sums: Sequence[Line]) -> None:
        """Draw calls below their callers, and what they come to."""
        self._fill("tree")
        for line in calls:
            self._filled.append(
                f'<tr><th scope="row"><span class="rails" aria-hidden="true">{_safe(line.rails)}</span>'
                f"{_safe(line.name)}{_safe(line.more)}</th><td>{_safe(line.model)}</td>"
                f'<td class="{_tone(text.STATUS_STYLES.get(line.status, ""))}">{_safe(line.status)}</td>'
                f"<td>{_safe(line.time)}</td><td>{_safe(line.cost)}</td></tr>"
            )
        for line in sums:
            self._filled.append(
                f'<tr class="total"><th scope="row" colspan="3">{_safe(line.name)}</th>'
                f"<td>{_safe(line.time)}</td><td>{_safe(line.cost)}</td></tr>"
            )

    def blank(self) -> None:
        """Nothing: paper has its own margins."""

    def close_up(self) -> None:
        """Nothing, either."""

    @staticmethod
    def hash(value: object) -> str:
        """A hash in full: there is room for it."""
        return text.safe(value)

    def page(self, found: Json) -> str:
        """The whole page of a receipt."""
        self._end_section()
        total = found["total"]
        amount = f"{total['amount']} {total['currency']}" if total["amount"] is not None else "no amount"
        frame = Template(_read("paper.html"))
        return frame.substitute(
            id=_safe(found["id"]),
            kind=_safe(found["kind"]),
            model=f" of {_safe(found['model'])}" if found["model"] else "",
            amount=_safe(amount),
            brand=_safe(self._brand),
            status=self._status,
            sections="\n".join(self._sections),
            style=_read("paper.css"),
        )

    def _fill(self, kind: str) -> None:
        """Go on with a block of one kind, or begin one."""
        if kind != self._open:
            self._end_block()
            self._open = kind

    def _end_block(self) -> None:
        if self._filled:
            inner = "\n".join(self._filled)
            self._blocks.append(_WRAPPED[self._open or ""].replace("%s", inner, 1))
        self._filled, self._open = [], None

    def _end_section(self) -> None:
        self._end_block()
        if self._blocks:
            number, inner = len(self._sections), "\n".join(self._blocks)
            head = f'<h2 id="s{number}">{_safe(self._name)}</h2>\n' if self._name else ""
            labelled = f' aria-labelledby="s{number}"' if self._name else ""
            self._sections.append(f"<section{labelled}>\n{head}{inner}\n</section>")
        self._blocks, self._name = [], None


_WRAPPED = {
    "dl": "<dl>\n%s\n</dl>",
    "figure": "%s",
    "table": '<div class="scroll"><table class="bill">\n%s\n</table></div>',
    "tree": '<div class="scroll"><table class="tree">\n<thead><tr><th scope="col">call</th><th scope="col">model</th>'
    '<th scope="col">status</th><th scope="col">time</th><th scope="col">cost</th></tr></thead>\n'
    "<tbody>\n%s\n</tbody></table></div>",
}


def _safe(value: object) -> str:
    """Whatever it is as text, in which nothing commands a terminal, and nothing a browser."""
    return "" if value == "" else html.escape(text.safe(value), quote=True)


def _tone(style: str) -> str:
    return _TONES.get(style, "plain")


def _read(name: str) -> str:
    return (files("taximeter.cli") / name).read_text(encoding="utf-8")
