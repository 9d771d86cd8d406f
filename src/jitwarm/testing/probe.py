"""One question about one plugin, in a process of its own: `python -m jitwarm.testing.probe KIND ANSWER < QUESTION`.

A process of its own, because the contract speaks of fresh processes, and because whoever asks (a test run) must not be left
with another driver, other variables or a plugin's threads. Question and answer are JSON; the answer goes to a file, since a
plugin may print. What the facts mean is judged elsewhere.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec

from jitwarm.testing.building import build
from jitwarm.testing.facts import Order, Question
from jitwarm.testing.looking import look


def main() -> None:
    """Answer the question on stdin."""
    kind, place = sys.argv[1:]
    asked = sys.stdin.buffer.read()
    answer: Any = (
        look(msgspec.json.decode(asked, type=Question))
        if kind == "look"
        else build(msgspec.json.decode(asked, type=Order))
    )
    Path(place).write_bytes(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
