"""Whose call a prediction is: its parent, and the root of that chain.

Owns which word counts where a mark says one thing and its instance was told another. A parent and a root are believed
together: the root that an instance was told is that of its own caller, and need not be that of a parent that a mark
names. Refuses to refuse: a wrong word of kin is counted, and costs nobody a bill. What other instances know is for
those who see all records (billing.tree).
"""

from taximeter.events import Options, StartMark
from taximeter.instance import Prediction
from taximeter.values import Value

#: A prediction says that it called itself; then nobody called it.
OWN_PARENT = "own_parent"
#: It names another root than the one that its parent has.
ROOT_MISMATCH = "root_mismatch"


class Kin(Value):
    """Who called a prediction, and the first caller of all: itself, where nobody called it."""

    parent: str | None
    root: str


def of_run(told: Options, name: str) -> Kin:
    """Whose call it is that nobody but `taximeter run` spoke of."""
    parent = told.parent if told.parent != name else None
    return Kin(parent, told.root or parent or name)


def of_mark(told: Options, mark: StartMark, parent: Prediction | None) -> Kin:
    """Whose call a mark begins on an instance that was told `told`; `parent` is the one it names, if that is open here.

    A root without a parent may be that of another tree than the one whose instance it runs on. A parent without a root
    has that of its own, as far as it is known here; else it is the first of its chain that anybody spoke of.
    """
    around = of_run(told, mark.prediction)
    if mark.parent is None or mark.parent == mark.prediction:
        return around if mark.root is None else Kin(around.parent if mark.root == around.root else None, mark.root)
    if mark.root is not None:
        return Kin(mark.parent, mark.root)
    if parent is not None:
        return Kin(mark.parent, parent.root)
    return Kin(mark.parent, around.root if mark.parent == told.parent else mark.parent)


def doubts(mark: StartMark, parent: Prediction | None) -> tuple[str, ...]:
    """What cannot be as a mark says, in bounded words; `parent` is the one it names, if that is open here."""
    if mark.parent == mark.prediction:
        return (OWN_PARENT,)
    return (ROOT_MISMATCH,) if parent is not None and mark.root not in (None, parent.root) else ()
