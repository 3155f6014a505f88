"""Makes taximeter/wrap/whole.py, which only the wheel has: every module that each `taximeter run` needs, in one file.

Owns how the modules become one. To find, open and read a file and to make a module of it costs each time; so do
docstrings and annotations, which nothing reads there. Whoever installs the wheel compiles it with the rest. Refuses to
know what the modules do; which they are says start.py, which also sees to it that a changed source is not overlooked.
"""

import ast
import itertools
import shutil
import symtable
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path(__file__).parent / "taximeter"
START = "wrap/start.py"
WHOLE = "taximeter/wrap/whole.py"
HEAD = "# Made by hatch_build.py of the modules of this directory that every run needs: change those instead.\n"
#: Line and column in bytes, as ast has them.
Place = tuple[int, int]


class WholeHook(BuildHookInterface[Any]):
    """Puts whole.py into the wheel; an editable install reads the modules themselves."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # type: ignore[explicit-override] # 3.12
        """Make it, outside of the sources."""
        if version != "editable":
            self.made = Path(tempfile.mkdtemp()) / "whole.py"
            self.made.write_text(make_whole(PACKAGE), encoding="utf-8")
            build_data["force_include"][str(self.made)] = WHOLE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # type: ignore[explicit-override]  # noqa: ARG002
        """Take it away again."""
        if version != "editable":
            shutil.rmtree(self.made.parent)


def make_whole(package: Path) -> str:
    """The text of whole.py: start.py, and each module as a function whose names are all global.

    The code of such a function, executed in the namespace of a module, does what the module's own code would do.
    """
    start = (package / START).read_text(encoding="utf-8")
    names = ["wire", *[f"wrap.{name}" for name in _value(start, "NAMES") + _value(start, "NEXT")]]
    paths = [f"{name.replace('.', '/')}.py" for name in names]
    functions = [name.replace(".", "_") for name in names]
    codes = ", ".join([f'"taximeter.{name}": {made}.__code__' for name, made in zip(names, functions, strict=True)])
    bodies = [
        as_function(made, (package / path).read_text(encoding="utf-8"))
        for made, path in zip(functions, paths, strict=True)
    ]
    sizes = {path: (package / path).stat().st_size for path in [START, *paths]}
    text = _replace(lean(start), "BODIES", "\n".join([*bodies, f"BODIES = {{{codes}}}"]))
    whole = HEAD + _replace(text, "SOURCES", f"SOURCES = {sizes}")
    compile(whole, WHOLE, "exec", dont_inherit=True)
    return whole


def as_function(name: str, source: str) -> str:
    """A module's source as a function without arguments."""
    text = lean(source)
    if '"""' in text:
        raise ValueError(f"cannot make a function of {name}: expected no text of several lines but docstrings")
    symbols = symtable.symtable(text, name, "exec").get_symbols()
    bound = sorted(symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported())
    return f"def {name}():\n    global {', '.join(bound)}\n" + textwrap.indent(text, "    ")


def lean(source: str) -> str:
    """The source without docstrings, annotations, and what only type checkers import.

    Cut out of the text, since ast.unparse writes what older Pythons cannot read.
    """
    text = source.encode()
    lines = [0, *itertools.accumulate(len(line) for line in text.splitlines(keepends=True))]
    cuts = []
    for node in ast.walk(ast.parse(source)):
        for first, last in [*_cut_types(node), *_cut_docstring(node)]:
            cuts.append((lines[first[0] - 1] + first[1], lines[last[0] - 1] + last[1]))
    for begin, end in sorted(cuts, reverse=True):
        text = text[:begin] + text[end:]
    return text.decode()


def _cut_types(node: ast.AST) -> Iterator[tuple[Place, Place]]:
    match node:
        case ast.arg(arg=name, annotation=ast.expr() as annotation):
            yield (node.lineno, node.col_offset + len(name)), _end(annotation)
        case ast.AnnAssign(target=target, annotation=annotation, value=ast.expr()):
            yield _end(target), _end(annotation)
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            yield _begin(node), _end(node)
        case ast.FunctionDef(returns=ast.expr() as returns):
            arrow = len(") -> ")  # as the formatter sets it
            yield (returns.lineno, returns.col_offset - arrow + 1), _end(returns)


def _cut_docstring(node: ast.AST) -> Iterator[tuple[Place, Place]]:
    match node:
        case ast.Module(body=[first, _, *_]) | ast.ClassDef(body=[first, _, *_]) | ast.FunctionDef(body=[first, _, *_]):
            if ast.get_docstring(node) is not None:
                yield _begin(first), _end(first)


def _begin(node: ast.expr | ast.stmt) -> Place:
    return node.lineno, node.col_offset


def _end(node: ast.expr | ast.stmt) -> Place:
    return node.end_lineno or node.lineno, node.end_col_offset or 0


def _value(source: str, name: str) -> tuple[str, ...]:
    value: tuple[str, ...] = ast.literal_eval(_assignment(source, name).value)
    return value


def _replace(source: str, name: str, instead: str) -> str:
    """The source with another statement in place of the one that gives a name its value."""
    lines, statement = source.splitlines(keepends=True), _assignment(source, name)
    lines[statement.lineno - 1 : statement.end_lineno] = [instead, "\n"]
    return "".join(lines)


def _assignment(source: str, name: str) -> ast.Assign:
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)]) if found == name:
                return node
    raise ValueError(f"cannot find {name} in {START}: expected an assignment")
