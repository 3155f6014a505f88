"""A server of the soak: predictions of several customers, some at once, each said by bare marks and noted in a file.

    python -IS serve.py NOTES SECONDS SEED

What it notes of a prediction it notes after it has said it, so that whatever stands there was said.
"""

import os
import random
import sys
import time


def main() -> int:
    notes_path, seconds, seed = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    dice = random.Random(seed)
    marks = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR | os.O_NONBLOCK)
    open_: dict[str, int] = {}
    until_ns = time.monotonic_ns() + int(seconds * 1e9)
    count = 0
    with open(notes_path, "a", buffering=1) as notes:
        while time.monotonic_ns() < until_ns or open_:
            at_ns = time.monotonic_ns()
            if at_ns < until_ns and len(open_) < 4 and (not open_ or dice.random() < 0.5):
                count += 1
                name = f"{seed}-{count}"
                say(marks, f'{{"mark":"start","prediction":"{name}","account":"cus_{count % 3}","at":{at_ns}}}')
                open_[name] = at_ns
            else:
                name = dice.choice(list(open_))
                say(marks, f'{{"mark":"finish","prediction":"{name}","status":"succeeded","at":{at_ns}}}')
                notes.write(f"{name} {open_.pop(name)} {at_ns}\n")
            time.sleep(dice.expovariate(20))
    return 0


def say(marks: int, line: str) -> None:
    while True:
        try:
            os.write(marks, line.encode() + b"\n")
        except BlockingIOError:
            time.sleep(0.001)
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
