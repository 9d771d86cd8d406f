"""What must hold when a fault stands between real keys: it costs its own key, at this start and at the next."""

import json
import os

import surrounded
from fault_kit import notes
from processes import marked, wait_until

# Longer than any key that works; and long enough for one that does to be built on a busy machine.
LONG_S, SHORT_S = 300.0, 15.0


def run(root, compiler, fault, **settings):
    """One start of a server. Returns its rows by kernel as (outcome, error), and its events."""
    surrounded.forget()
    events = []
    session = surrounded.session(root, compiler, fault, [events.append], **settings)
    try:
        report = session.run(session.plan())
    finally:
        session.finish()
    wait_until(lambda: not marked(), "no process is left")
    rows = {
        id_.partition(":")[2]: (kernel.rows[0].outcome, kernel.rows[0].error) for id_, kernel in report.kernels.items()
    }
    return rows, events


def files(root):
    """What was built, by kernel: the artifacts with their digests.

    CuTeDSL's lie in a directory that is named after the kernel; TileLang's differ from one compile to the next, but for their
    names, which are a hash over the source.
    """
    entries = [json.loads(file.read_text()) for file in (root / "manifest").glob("*.json")]
    return {entry["kernel"].partition(":")[2]: dict(map(comparable, entry["files"].items())) for entry in entries}


def comparable(item):
    name, digest = item
    if name.startswith("objects/"):
        return name.rpartition("/")[2], digest
    return name, "" if name.startswith("tilelang/") else digest


def check(root, compiler, fault, sound):
    """A start with the fault, and another one."""
    key_timeout_s = SHORT_S if fault.outcome == "timed_out" else LONG_S
    rows, events = run(root, compiler, fault.name, key_timeout_s=key_timeout_s)
    around = {"before": "compiled", "witness before": "loaded", "witness after": "loaded", "after": "compiled"}
    assert {name: rows[name] for name in around} == {name: (outcome, None) for name, outcome in around.items()}
    assert not [
        event.get("why") or event["error"] for event in events if event["event"] in ("local", "isolation_unavailable")
    ]
    outcome, error = rows["faulty"]
    assert outcome == fault.outcome, error
    assert fault.says in (error or "")
    assert bool(error) == bool(fault.says)
    assert len(error or "") < 20_000
    assert all(line.isprintable() for line in (error or "").split("\n"))
    # Where it was us who killed it, that is not told as its end.
    if "answered" in fault.says or "closed" in fault.says:
        assert "killed by" not in error
    built = files(root)
    assert {name: built[name] for name in ("before", "after")} == {name: sound[name] for name in ("before", "after")}
    if fault.outcome == "compiled":
        assert built["faulty"] == sound["within"]
    assert n_tries(fault) == (2 if fault.is_deadly else 1)
    first, second = states()
    assert first == second
    if fault.is_quarantined or fault.outcome == "compiled":
        check_next_start(root, compiler, fault, rows, key_timeout_s)


def check_next_start(root, compiler, fault, rows, key_timeout_s):
    """With the same limits nothing is built, nothing is tried, no process is started."""
    n_before = n_tries(fault)
    again, events = run(root, compiler, fault.name, key_timeout_s=key_timeout_s)
    assert {outcome for name, (outcome, _) in again.items() if name != "faulty"} == {"loaded"}
    outcome, error = again["faulty"]
    if fault.is_quarantined:
        (file,) = (root / "quarantine").glob("*.json")
        assert outcome == "failed"
        assert f"not tried again, because earlier {rows['faulty'][1].splitlines()[0]}" in error
        assert str(file) in error
    else:
        assert (outcome, error) == ("loaded", None)
        assert not (root / "quarantine").exists()
    assert n_tries(fault) == n_before
    assert not {"child_start", "build_start", "compile"} & {event["event"] for event in events}


def states():
    """What the witnesses found in compile processes."""
    found = [noted for noted in notes() if noted["does"] in surrounded.WITNESSES and noted["pid"] != os.getpid()]
    return [{name: value for name, value in noted.items() if name not in ("does", "pid", "mother")} for noted in found]


def n_tries(fault):
    """How often a compile process began the key."""
    return sum(noted["does"] == fault.name and noted["pid"] != os.getpid() for noted in notes())
