#!/usr/bin/env python3
"""A worker that serves many customers' fine-tunes of one base model, several at a time, and says so to the meter.

    taximeter run --worker --ready notify --pool babble -- python3 serve.py [TEXT] <requests

A request is a line of JSON: {"id": "p1", "account": "cus_7", "version": "my.txt", "words": 50}; an answer is one, too.
The base model is what words follow which in a text; a fine-tune is another text, the customer's own, on top of it. Who
asks for a fine-tune that is not here yet waits until it is loaded: that is `load`, which nobody is billed for, and ends
with `active`. Without a meter the calls do nothing, and the work is the same.
"""

import json
import random
import sys
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from threading import Lock

from taximeter import client

Followers = Mapping[str, list[str]]

BASE = "the meter runs while the model runs and the meter stops when the model stops and nobody pays for the rest"
AT_ONCE = 8
_loading = Lock()


def read(text: str) -> Followers:
    """What words follow which."""
    words = text.split()
    followers: dict[str, list[str]] = defaultdict(list)
    for word, after in pairwise(words):
        followers[word].append(after)
    return followers


@lru_cache(maxsize=32)
def fine_tune(version: str) -> Followers:
    """A customer's own text, read once while it is in use."""
    return read(Path(version).read_text())


def babble(base: Followers, own: Followers, words: int, chance: random.Random) -> str:
    """Some words that follow each other, the customer's own first."""
    said = [chance.choice(list(own or base))]
    while len(said) < words:
        known = own.get(said[-1]) or base.get(said[-1]) or list(own or base)
        said.append(chance.choice(known))
    return " ".join(said)


def serve(base: Followers, line: str) -> str:
    """Answer one request: a prediction of its customer, from the moment that it is taken on."""
    asked = json.loads(line)
    with client.prediction(
        asked["id"], account=asked["account"], version=asked["version"], service_class="fast_boot"
    ) as prediction:
        with _loading:
            own = fine_tune(asked["version"])
        prediction.active()
        text = babble(base, own, asked["words"], random.Random(asked["id"]))
        prediction.add(token_output=asked["words"])
    return json.dumps({"id": asked["id"], "output": text})


def main() -> None:
    """Load the base model, then serve what comes until nothing does."""
    base = read(Path(sys.argv[1]).read_text() if len(sys.argv) > 1 else BASE)
    client.ready()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for answer in threads.map(lambda line: serve(base, line), sys.stdin):
            print(answer, flush=True)


if __name__ == "__main__":
    main()
