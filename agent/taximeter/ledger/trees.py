"""Who called whom, as a ledger files it: a record names its root, and the first of a tree is found by its own id.

Owns these questions' SQL. Refuses to know what a tree is made of, and how large it may be (observe).
"""

from collections.abc import Iterator

from taximeter.ledger.pages import Pages

# A root is filed only where it is another prediction, so the first of a tree is found by its own id.
_FIRST = "SELECT seq, body FROM lookups JOIN records USING (seq) WHERE prediction = ? AND root IS NULL"
_BELOW = "SELECT seq, body FROM lookups JOIN records USING (seq) WHERE root = ? AND prediction IS NOT NULL"
_ROOT_OF = "SELECT coalesce(root, prediction) FROM lookups WHERE prediction = ? ORDER BY seq LIMIT 1"
# An instance's own record may name a root too; it is no prediction, and stands in no tree.
_NEXT_ROOT = """
SELECT root FROM lookups WHERE root > ? AND typeof(root) = 'text' AND prediction IS NOT NULL ORDER BY root LIMIT 1
"""
# What was called by somebody who did not know the first of all names a root that stands in a tree itself.
_ROOTS = """
WITH RECURSIVE roots(id) AS (
    VALUES (?) UNION
    SELECT below.prediction FROM roots JOIN lookups AS below ON below.root = roots.id
    WHERE below.prediction IS NOT NULL AND EXISTS (SELECT 1 FROM lookups AS of WHERE of.root = below.prediction)
) SELECT id FROM roots LIMIT ?
"""


def root_of(pages: Pages, prediction: str) -> str | None:
    """The root that a prediction's first record names; None where it has no record."""
    rows = pages.ask(_ROOT_OF, prediction)
    return str(rows[0][0]) if rows else None


def next_root(pages: Pages, after: str) -> str | None:
    """The first root in order beyond `after` that another prediction names."""
    rows = pages.ask(_NEXT_ROOT, after)
    return str(rows[0][0]) if rows else None


def roots(pages: Pages, top: str, most: int) -> tuple[str, ...]:
    """`top` and whatever below it is named as a root by others, at most so many."""
    return tuple(str(name) for (name,) in pages.ask(_ROOTS, top, most))


def of_root(pages: Pages, root: str) -> Iterator[bytes]:
    """The stored bytes of the records of a root, and of the predictions that name it as theirs."""
    yield from pages.bodies(_FIRST, root)
    yield from below(pages, root)


def below(pages: Pages, root: str) -> Iterator[bytes]:
    """The stored bytes of the records of the predictions that name `root` as theirs."""
    return pages.bodies(_BELOW, root)
