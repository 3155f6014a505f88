#!/usr/bin/env python3
"""A one-shot predictor that does real work: it reads a text and prints its most telling sentences and its keywords.

    python3 predict.py [--sentences N] [FILE]          as it is
    taximeter run -- python3 predict.py [FILE]         metered

Owns the prediction: TextRank (Mihalcea and Tarau, 2004) over the text's sentences and over its words, with the
standard library only. Knows of the meter one thing: where TAXIMETER_MARKS names a FIFO, it says what it counted there,
one line of JSON. Without a meter that is nothing, and the work is the same.
"""

import argparse
import json
import math
import os
import re
import signal
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

Node = TypeVar("Node", int, str)

DAMPING = 0.85
ROUNDS = 40
#: A sentence longer than this tells too much at once to be quoted.
QUOTABLE_WORDS = 40
#: Words that connect and do not tell.
STOP_WORDS = frozenset(
    """
    a about above after again all almost also always am an and any are as at be because been before being but by can
    could did do does done down during each else even ever every few for from give had has have having he her here
    hers herself him himself his how however i if in into is it its itself just least less like little made make many
    may me might more most mr mrs much must my never no nor not nothing now of off often on once one only or other
    others our out over own quite rather said same she should since so some soon still such than that the their them
    then there these they this those though three through thus to too two under up upon us very was way we well were
    what when where which while who whom whose why will with without would yet you your
    """.split()
)


def sentences_of(text: str) -> list[str]:
    """Split a text into sentences; titles such as `Mr.` do not end one."""
    flat = " ".join(re.sub(r"^Chapter \d+$", "", text, flags=re.MULTILINE).split())
    parts = re.split(r"(?<!Mr)(?<!Mrs)(?<!Dr)(?<!Esq)(?<=[.!?])[\"']?\s+(?=[\"'A-Z])", flat)
    return [part.strip() for part in parts if len(part.split()) > 4]


def words_of(text: str) -> list[str]:
    """The words that tell something, in order."""
    return [word for word in re.findall(r"[a-z]+", text.lower()) if word not in STOP_WORDS and len(word) > 2]


def rank(neighbours: Mapping[Node, Mapping[Node, float]]) -> dict[Node, float]:
    """PageRank over a weighted, undirected graph in which every node has an edge."""
    scores = dict.fromkeys(neighbours, 1.0)
    weights = {node: sum(edges.values()) for node, edges in neighbours.items()}
    for _ in range(ROUNDS):
        scores = {
            node: 1 - DAMPING + DAMPING * sum(scores[near] * weight / weights[near] for near, weight in edges.items())
            for node, edges in neighbours.items()
        }
    return scores


def alike(sentences: Sequence[str]) -> dict[int, dict[int, float]]:
    """Join each two sentences by how many words they share, for their lengths."""
    bags = [set(words_of(sentence)) for sentence in sentences]
    edges: dict[int, dict[int, float]] = defaultdict(dict)
    for one, bag in enumerate(bags):
        for other in range(one):
            shared = len(bag & bags[other])
            if shared > 1:
                edges[one][other] = edges[other][one] = shared / (math.log(len(bag)) + math.log(len(bags[other])))
    return edges


def together(words: Sequence[str], window: int = 4) -> dict[str, dict[str, float]]:
    """Join each two words by how often they stand near each other."""
    edges: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for place, word in enumerate(words):
        for near in words[place + 1 : place + window]:
            if near != word:
                edges[word][near] += 1
                edges[near][word] += 1
    return edges


def best(scores: Mapping[Node, float], count: int) -> list[Node]:
    """The `count` nodes of the highest score; equals in their own order, so that every run prints the same."""
    return [node for node, _ in sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:count]]


def say(units: Mapping[str, int]) -> None:
    """Tell the meter what was counted; without a meter, or with one that is gone, the work goes on."""
    marks = os.environ.get("TAXIMETER_MARKS")
    if not marks:
        return
    try:
        # Read and write, so that opening never waits for a reader; not blocking, so that a full FIFO is no wait.
        fifo = os.open(marks, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fifo, json.dumps({"mark": "units", "units": units}).encode() + b"\n")
        finally:
            os.close(fifo)
    except OSError as error:
        print(f"cannot tell the meter {units}: {error}", file=sys.stderr)


def main() -> int:
    """Read, rank, print."""
    parser = argparse.ArgumentParser(description="Summarise a text by its own sentences.")
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).with_name("persuasion.txt"))
    parser.add_argument("--sentences", type=int, default=3, metavar="N")
    options = parser.parse_args()
    try:
        text = options.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "other bytes"
        print(f"cannot read {options.file}: expected a text in UTF-8, got {reason}", file=sys.stderr)
        return 3
    sentences = sentences_of(text)
    say({"token_input": len(text.split())})
    scores = rank(alike(sentences))
    quotable = {index: score for index, score in scores.items() if len(sentences[index].split()) <= QUOTABLE_WORDS}
    telling = [sentences[index] for index in sorted(best(quotable, options.sentences))]
    keywords = best(rank(together(words_of(text))), 8)
    print(*telling, sep="\n\n")
    print(f"\nKeywords: {', '.join(keywords)}")
    say({"token_output": sum(len(sentence.split()) for sentence in telling) + len(keywords)})
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    sys.exit(main())
