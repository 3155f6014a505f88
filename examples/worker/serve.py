#!/usr/bin/env python3
"""A predictor server to copy: one base model, and on it fine-tunes of several customers, one after another and at once.

    python3 serve.py [--port 5055]                                                  as it is
    taximeter run --worker --pool prose --ready notify --on-term drain -- python3 serve.py    metered

It writes on from a text in the manner of a book, word by word, each weighed against what followed the last two in the
book. The base model has learnt all of the book, which is the boot of this process. A fine-tune (fine_tunes.json) learns
some chapters once more, when it is first asked for: its load, which is of the prediction that asked. Few are kept.

    curl -H 'taximeter-account: cus_7' -d '{"model":"examples/sea","prompt":"She was"}' localhost:5055/predict

Owns the prediction, with the standard library only. What it says to the meter is in `Handler.predict` and `main`;
without a meter that is nothing, and the work is the same.
"""

import argparse
import json
import random
import re
import signal
import sys
import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from taximeter import client

HERE = Path(__file__).parent
BOOK = HERE.parent / "one_shot" / "persuasion.txt"
#: So many fine-tunes are kept loaded; one more takes the place of the one that was used longest ago.
KEPT = 2
#: How much more a fine-tune's chapters count than the rest of the book.
WEIGHT = 20
MOST_WORDS = 2000


def words_of(text: str) -> list[str]:
    """Words and stops, in order."""
    return re.findall(r"[A-Za-z'-]+|[.,;:!?]", text)


class Manner:
    """Which words follow which two, and how often; or, where nobody knows those, which follow the last one."""

    def __init__(self, base: "Manner | None" = None) -> None:
        self.base = base
        self.pairs: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.singles: dict[str, Counter[str]] = defaultdict(Counter)

    def learn(self, words: Sequence[str]) -> None:
        """Read a text."""
        for one, two, three in zip(words, words[1:], words[2:], strict=False):
            self.pairs[one, two][three] += 1
            self.singles[two][three] += 1

    def after(self, one: str, two: str) -> Counter[str]:
        """What follows, by weight, the base model's knowledge below one's own."""
        found = Counter(self.base.after(one, two)) if self.base else Counter()
        own = self.pairs.get((one, two)) or self.singles.get(two) or Counter()
        for word, times in own.items():
            found[word] += times * (WEIGHT if self.base else 1)
        return found

    def write_on(self, prompt: Sequence[str], count: int, seed: int) -> list[str]:
        """So many words more."""
        dice, said = random.Random(seed), ["", *prompt]
        for _ in range(count):
            follows = self.after(said[-2], said[-1]) or Counter({"The": 1})
            said.append(dice.choices(list(follows), list(follows.values()))[0])
        return said[1 + len(prompt) :]


class Shelf:
    """The base model, and the fine-tunes that are loaded: few, each by whoever asks for it first."""

    def __init__(self, book: Path, tunes: Mapping[str, Mapping[str, Any]]) -> None:
        text = book.read_text(encoding="utf-8")
        self.tunes = tunes
        self.chapters = [words_of(chapter) for chapter in re.split(r"^Chapter \d+$", text, flags=re.MULTILINE)]
        self.base = Manner()
        self.base.learn([word for chapter in self.chapters for word in chapter])
        self._loaded: OrderedDict[str, Manner] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, name: str) -> Manner:
        """A fine-tune, loaded if it was not. Raises KeyError where there is none of that name."""
        chapters: Iterable[int] = self.tunes[name]["chapters"]
        with self._lock:
            if name not in self._loaded:
                tune = Manner(self.base)
                for chapter in chapters:
                    tune.learn(self.chapters[chapter])
                self._loaded[name] = tune
            self._loaded.move_to_end(name)
            while len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
            return self._loaded[name]


class Handler(BaseHTTPRequestHandler):
    """`GET /health`, `POST /predict`."""

    protocol_version = "HTTP/1.1"
    timeout = 5  # of a connection on which nothing is asked, so that it holds up no end
    shelf: Shelf

    def do_GET(self) -> None:
        """Whether it is up: once it listens, it is."""
        self._answer(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        """A prediction, or what is wrong with the request."""
        try:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)))
            name, prompt = asked["model"], words_of(asked["prompt"])
            count, seed = min(int(asked.get("words", 50)), MOST_WORDS), int(asked.get("seed", 0))
            version = self.shelf.tunes[name]["version"]
        except (KeyError, TypeError, ValueError) as error:
            self._answer(400, {"error": f"cannot predict: expected model, prompt, words and seed, got {error!r}"})
            return
        self._answer(200, self.predict(name, version, prompt, count, seed))

    def predict(self, name: str, version: str, prompt: Sequence[str], count: int, seed: int) -> dict[str, Any]:
        """The work, and all that the meter is told of it. Whose it is say the headers, which the platform sets."""
        head = self.headers.get
        with client.prediction(
            head("taximeter-prediction"),
            model=name,
            version=version,
            account=head("taximeter-account"),
            service_class="fast_boot",
            parent=head("taximeter-parent"),
            root=head("taximeter-root"),
            traceparent=head("traceparent"),
        ) as prediction:
            tune = self.shelf.take(name)
            prediction.active()  # what came before was the load
            said = tune.write_on(prompt, count, seed)
            prediction.add(token_input=len(prompt), token_output=len(said))
        text = re.sub(r" ([.,;:!?])", r"\1", " ".join(said))
        return {"prediction": prediction.id, "text": text}

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- as the library calls it
        """Nothing: the meter keeps the book."""

    def _answer(self, status: int, said: Mapping[str, Any]) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> int:
    """Learn, listen, and on SIGTERM finish what was begun."""
    parser = argparse.ArgumentParser(description="Write on in the manner of a book.")
    parser.add_argument("--port", type=int, default=5055)
    port = parser.parse_args().port
    Handler.shelf = Shelf(BOOK, json.loads((HERE / "fine_tunes.json").read_text()))
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = False  # so that leaving this block waits for what they do

        def stop(*_: object) -> None:
            client.stopping()
            threading.Thread(target=server.shutdown).start()

        signal.signal(signal.SIGTERM, stop)
        client.ready()
        print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
