"""What a person sees while a run goes on."""

import contextlib
import io
import os
import pty

from jitwarm import progress
from jitwarm.progress import Progress

EVENTS = [
    {"event": "key_planned"},
    {"event": "key_planned"},
    {"event": "key_start", "kernel": "mine:rope", "label": "block=64"},
    {"event": "key_end", "outcome": "compiled"},
    {"event": "key_start", "kernel": "mine:rope", "label": "block=128"},
    {"event": "key_end", "outcome": "loaded"},
]


def everything(leader):
    """What was written to a terminal whose other side is closed."""
    text = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while part := os.read(leader, 65536):
            text += part
    os.close(leader)
    return text.decode()


def test_a_terminal_shows_a_bar_with_kernel_key_and_counts():
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal, Progress(terminal) as shown:
        for event in EVENTS[:5]:
            shown(event)
        shown._bar.refresh()
    text = everything(leader)
    assert "mine:rope [block=128]" in text
    assert "1 compiled, 0 loaded" in text
    assert "1/2" in text


def test_elsewhere_there_is_a_line_now_and_then(monkeypatch):
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    log = io.StringIO()
    with Progress(log) as shown:
        for event in EVENTS:
            shown(event)
    lines = log.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("jitwarm: 1/2 keys, 1 compiled, 0 loaded")
    assert lines[1].endswith("now mine:rope [block=128]")


def test_a_quick_run_prints_no_line():
    log = io.StringIO()
    with Progress(log) as shown:
        for event in EVENTS:
            shown(event)
    assert log.getvalue() == ""
