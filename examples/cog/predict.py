"""A Cog predictor that does real work, metered: it goes on with a text in the manner of a book.

    taximeter run --worker --on-term drain --ready http://127.0.0.1:5000/health-check -- python -m cog.server.http

`setup` learns the book, word by word; `run` writes on from a text, one word after the other, each weighed against all
words of the book. Several predictions take turns at every word. Knows of the meter what `metered` says, and the one
`with` around the work. Without a meter that is nothing, and the work is the same. docs/cog.md tells the rest.
"""

import asyncio
import pathlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from cog import BaseRunner, Input, Path, concurrent, current_scope

from taximeter import client

#: How many words it has in view: those it was given, and those it wrote.
WINDOW = 4096
#: How far a word is trusted that followed the last two, or the last one, stands in the text, or just in the book.
PAIR, ONE, TEXT, BOOK = 0.60, 0.25, 0.10, 0.05


def metered() -> client.Prediction:
    """This prediction on the meter. Whoever sends the request says in its `context` which one it is, and whose."""
    told = current_scope().context
    whose = {name: told.get(name) for name in ("account", "parent", "root")}
    return client.prediction(told.get("prediction"), model="examples/manner", **whose)


def words_of(text: str) -> list[str]:
    """The words of a text and its stops, in order."""
    return re.findall(r"[A-Za-z'-]+|[.,;:!?]", text)


class Manner:
    """Which words follow which in a book."""

    def __init__(self, book: Sequence[str]) -> None:
        self.counts = Counter(book)
        self.words = list(self.counts)
        self.after_one: dict[str, Counter[str]] = defaultdict(Counter)
        self.after_pair: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for before, last, word in zip(book, book[1:], book[2:], strict=False):
            self.after_one[last][word] += 1
            self.after_pair[before, last][word] += 1

    def next_word(self, text: Sequence[str], chance: random.Random) -> str:
        """A word to go on with: every word of the book has its weight."""
        views = (
            (PAIR, self.after_pair.get((text[-2], text[-1]), Counter())),
            (ONE, self.after_one.get(text[-1], Counter())),
            (TEXT, Counter(text)),
            (BOOK, self.counts),
        )
        parts = [(trust / view.total(), view) for trust, view in views if view]
        weights = [sum(part * view.get(word, 0) for part, view in parts) for word in self.words]
        return chance.choices(self.words, weights)[0]


class Runner(BaseRunner):
    """What Cog serves."""

    def setup(self, weights: str) -> None:
        """Learn the book that COG_WEIGHTS names."""
        self.manner = Manner(words_of(pathlib.Path(weights).read_text(encoding="utf-8")))

    @concurrent(max=4)
    async def run(
        self,
        text: str = Input(description="What to go on from", default=""),
        document: Path | None = Input(description="The same, from a file", default=None),
        words: int = Input(description="How many words to write", default=100, ge=1),
        seed: int = Input(description="The same seed writes the same words", default=0),
    ) -> str:
        """Write on, word by word; in between the others have their turn, and a cancellation takes hold."""
        with metered() as prediction:
            given = words_of(document.read_text(encoding="utf-8") if document else text)
            prediction.add(token_input=len(given))
            if len(given) < 2:
                raise ValueError(f"cannot go on from {len(given)} words: expected two or more")
            chance, written = random.Random(seed), list[str]()
            while len(written) < words:
                if len(given) + len(written) >= WINDOW:
                    raise ValueError(
                        f"cannot write {words} words after {len(given)}: expected {WINDOW} in all, at most"
                    )
                written.append(self.manner.next_word(given + written, chance))
                prediction.add(token_output=1)
                await asyncio.sleep(0)
        return " ".join(written)
