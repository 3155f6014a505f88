"""Makes taximeter/wrap/whole.py, which only the wheel has: every module that each `taximeter run` needs, in one file.

Owns how the modules become one. To find, open and read a file and to make a module of it costs each time; so do
docstrings and annotations, which nothing reads there. Whoever installs the wheel compiles it with the rest. Refuses to
know what the modules do; which they are says start.py, which also sees to it that a changed source is not overlooked.
"""

import ast
import shutil
import symtable
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path(__file__).parent / "taximeter"
START = "wrap/start.py"
WHOLE = "taximeter/wrap/whole.py"
HEAD = '''"""Made by hatch_build.py of the modules of this directory that every run needs: change those instead."""'''


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
    start = ast.parse((package / START).read_text(encoding="utf-8"))
    names = ["wire", *[f"wrap.{name}" for name in _value(start, "NAMES") + _value(start, "NEXT")]]
    bodies = [as_function(package, name) for name in names]
    codes = [f"'taximeter.{name}': {body.name}.__code__" for name, body in zip(names, bodies, strict=True)]
    sizes = {path: (package / path).stat().st_size for path in [START, *[_path(name) for name in names]]}
    _replace(start, "BODIES", [*bodies, *ast.parse(f"BODIES = {{{', '.join(codes)}}}").body])
    _replace(start, "SOURCES", ast.parse(f"SOURCES = {sizes}").body)
    return f"{HEAD}\n{ast.unparse(lean(start))}\n"


def as_function(package: Path, name: str) -> ast.FunctionDef:
    """The module taximeter.NAME as a function without arguments."""
    module = lean(ast.parse((package / _path(name)).read_text(encoding="utf-8")))
    symbols = symtable.symtable(ast.unparse(module), name, "exec").get_symbols()
    bound = sorted(symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported())
    function = ast.parse(f"def {name.replace('.', '_')}():\n    global {', '.join(bound)}").body[0]
    assert isinstance(function, ast.FunctionDef)  # noqa: S101 -- as it was written above
    function.body += module.body
    return function


def lean(module: ast.Module) -> ast.Module:
    """The module without what only people and type checkers read."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            if ast.get_docstring(node) is not None:
                del node.body[0]
            node.body = [_without_type(statement) for statement in node.body if not _is_for_types(statement)] or [
                ast.Pass()
            ]
    return ast.fix_missing_locations(module)


def _without_type(statement: ast.stmt) -> ast.stmt:
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        return ast.Assign([statement.target], statement.value)
    return statement


def _is_for_types(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If) and isinstance(statement.test, ast.Name) and statement.test.id == "TYPE_CHECKING"
    )


def _index(module: ast.Module, name: str) -> int:
    """Where in a module a name of its own is given a value."""
    targets = [node.targets[0] if isinstance(node, ast.Assign) else None for node in module.body]
    return [isinstance(target, ast.Name) and target.id == name for target in targets].index(True)


def _value(module: ast.Module, name: str) -> tuple[str, ...]:
    assignment = module.body[_index(module, name)]
    assert isinstance(assignment, ast.Assign)  # noqa: S101 -- or it would have no index
    value: tuple[str, ...] = ast.literal_eval(assignment.value)
    return value


def _replace(module: ast.Module, name: str, statements: list[ast.stmt]) -> None:
    at = _index(module, name)
    module.body[at : at + 1] = statements


def _path(name: str) -> str:
    return f"{name.replace('.', '/')}.py"
