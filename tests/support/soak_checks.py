"""What must hold after a round of `tests/races/soak.py`, whichever of its processes was killed."""

import fcntl
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from soak_kit import artifacts

from jitwarm.store import Store

# None of these is ever the answer to a single process that dies.
UNWANTED = {
    "quarantined",
    "isolation_unavailable",
    "local",
    "load_recompiled",
    "lock_timeout",
    "entry_damaged",
    "no_locks",
}


@dataclass(frozen=True)
class Member:
    """A process of a round; `kind` is `worker`, `mother` or `rank`."""

    kind: str
    pid: int
    mother: int | None
    rank: int


@dataclass
class Evidence:
    """What a round left behind."""

    root: Path
    notes: Path
    n_keys: int
    answers: list
    victim: Member
    is_victim_dead: bool
    left: list
    n_of: Counter = field(default_factory=Counter)

    def begun(self):
        """`(key, compile process, rank)` of each compile that was begun."""
        return [tuple(map(int, file.name.split("-"))) for file in (self.notes / "begun").iterdir()]

    def events(self):
        files = (self.root / "events" / "run").glob("*.jsonl")
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def was_killed(self, pid, rank):
        """Whether a compile process was the victim, or ended with its rank."""
        return self.victim.pid in (pid, rank)


def broken_promises(round_):
    """Sentences, none where all is well."""
    round_.n_of.update({"rounds": 1, "keys": round_.n_keys})
    checks = (_survivors, _nothing_left, _compiles, _events, _store_is_whole)
    return [f"{check.__name__.strip('_')}: {broken}" for check in checks for broken in check(round_)]


def _survivors(round_):
    """Each rank but the victim ends with every key warm; the victim's compile process is no failure of a key."""
    if not round_.is_victim_dead:
        yield f"{round_.victim} was killed and lives"
    n_silent = sum(answer is None for answer in round_.answers)
    if n_silent > (round_.victim.kind == "rank"):
        yield f"{n_silent} ranks ended, and the victim was a {round_.victim.kind}"
    answers = [answer for answer in round_.answers if answer]
    if sum(answer["n_compiles"] for answer in answers) > round_.n_keys:
        yield f"the ranks report {[answer['n_compiles'] for answer in answers]} compiles of {round_.n_keys} keys"
    for answer in answers:
        if {outcome for outcome, _ in answer["rows"]} - {"compiled", "loaded"}:
            yield f"not warm: {answer['rows']}"
        if not len(answer["rows"]) == answer["n_warm"] == round_.n_keys:
            yield f"{len(answer['rows'])} rows and {answer['n_warm']} warm keys of {round_.n_keys}"
        if answer["n_descriptors_left"] > 0:
            yield f"{answer['n_descriptors_left']} files were left open in a rank"


def _nothing_left(round_):
    """No process, no lock."""
    for member in round_.left:
        yield f"{member} still lives"
    for file in (round_.root / "locks").glob("*.lock"):
        with file.open() as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield f"{file} is held"


def _compiles(round_):
    """Each key is compiled to its end once, begun again only if its compile process was killed, by one process at a time."""
    for overlap in (round_.notes / "overlaps").iterdir():
        yield f"compiled by two processes at once: key {overlap.name}"
    ended = {n: artifacts(round_.root / "bench" / str(n)) for n in range(round_.n_keys)}
    for n, files in ended.items():
        if len(files) != 1:
            yield f"key {n} was compiled {len(files)} times"
    makers = {(n, _maker(file)) for n, files in ended.items() for file in files}
    for n, pid, rank in round_.begun():
        if (n, pid) not in makers:
            round_.n_of["compiles begun again"] += 1
            if not round_.was_killed(pid, rank):
                yield f"process {pid} of rank {rank} began key {n}, was not killed and did not end it"
    round_.n_of["finished compiles"] += sum(map(len, ended.values()))


def _events(round_):
    """One `compile` event for each key; none only if who compiled it was killed right after."""
    events = round_.events()
    for event in events:
        if event["event"] in UNWANTED:
            yield f"event {event}"
    told = Counter(json.loads(event["key"])["n"][1] for event in events if event["event"] == "compile")
    rank_of = {(n, pid): rank for n, pid, rank in round_.begun()}
    for n in range(round_.n_keys):
        makers = [_maker(file) for file in artifacts(round_.root / "bench" / str(n))]
        is_excused = any(round_.was_killed(pid, rank_of.get((n, pid))) for pid in makers)
        round_.n_of["compile events"] += told[str(n)]
        round_.n_of["keys without a compile event"] += not told[str(n)]
        if told[str(n)] != 1 and not (told[str(n)] == 0 and is_excused):
            yield f"key {n} has {told[str(n)]} compile events; it was compiled by {makers}"


def _store_is_whole(round_):
    """A manifest for each key, each with the right checksums; unfinished files of killed processes only."""
    store = Store(round_.root)
    names = [path.stem for path in (round_.root / "manifest").glob("*.json") if not path.name.startswith(".")]
    if len(names) != round_.n_keys:
        yield f"{len(names)} manifests for {round_.n_keys} keys"
    for name in names:
        entry = store.find(name)
        if entry is None or len(entry.files) != 1 or store.damaged(entry):
            yield f"manifest {name} is damaged: {entry}"
    ranks = {pid: rank for _, pid, rank in round_.begun()}
    for part in round_.root.glob("bench/*/.*.part"):
        pid = _maker(part)
        if not round_.was_killed(pid, ranks[pid]):
            yield f"{part} was left by a process that was not killed"
    # A process is killed in at most one write; a rank takes its compile processes with it.
    temporary = list(round_.root.rglob(".*.json.*"))
    most = 1 if round_.victim.kind in ("worker", "mother") else 3
    round_.n_of["temporary files of killed processes"] += len(temporary)
    if len(temporary) > most:
        yield f"temporary files: {temporary}"


def _maker(file):
    """The process that made an artifact, or a part of one."""
    return int(file.name.lstrip(".").partition("-")[0])
