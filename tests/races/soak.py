"""`python tests/races/soak.py ROUNDS [SEED] [N_RANKS]`: ranks that share a store, and a process killed in each round.

In a round 8 or 16 ranks (`tests/support/soak_kit.py`) meet at a barrier, each in a process of its own that has compile processes
of its own, and want the same keys in a fresh store. At a moment and in a place that the seed decides, one process of all those is
killed. Then everything that a store and its ranks promise is looked at, in `tests/support/soak_checks.py`. Ranks live on from
round to round; the one that was killed is replaced. The first round that breaks a promise ends the run with status 1.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
SUPPORT = TESTS / "support"
sys.path[:0] = [str(TESTS), str(SUPPORT)]

import kits  # noqa: E402
import soak_kit  # noqa: E402
from processes import is_running, wait_until  # noqa: E402
from soak_checks import Evidence, Member, broken_promises  # noqa: E402

from jitwarm.engine import wire  # noqa: E402
from jitwarm.errors import WorkerDiedError  # noqa: E402

LONGEST_S = 180.0


class Rank:
    """One process that warms store after store."""

    def __init__(self, environ, log):
        self.line, theirs = socket.socketpair()
        command = [sys.executable, str(SUPPORT / "soak_kit.py"), str(theirs.fileno())]
        self.process = subprocess.Popen(command, env=environ, pass_fds=[theirs.fileno()], stdout=log, stderr=log)
        theirs.close()
        self.line.settimeout(LONGEST_S)

    def tell(self, message):
        with contextlib.suppress(OSError):  # killed: it will not be heard, either
            wire.send(self.line, message)

    def hear(self):
        """What it says next; None if it was killed."""
        try:
            return wire.receive(self.line)
        except (ConnectionError, WorkerDiedError):
            return None

    def end(self):
        self.line.close()
        self.process.kill()
        self.process.wait()


def member_of(pid, root):
    """A process that a rank has started for this store, or that such a one has; None if it is no such process."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        if f"{soak_kit.ROUND}={root}" not in environ:
            return None
        rank = next(int(line.partition("=")[2]) for line in environ if line.startswith(f"{soak_kit.RANK}="))
        mother = os.getsid(pid)
    except OSError:
        return None  # it has ended meanwhile
    return Member("mother" if mother == pid else "worker", pid, mother, rank)


def members(root):
    """All of them."""
    found = [member_of(int(path.name), root) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [member for member in found if member]


class Killer(threading.Thread):
    """Kills one process of a round: what it was told, at about the moment that it was told."""

    def __init__(self, what, delay, choice, root, notes, ranks):
        super().__init__(daemon=True)
        self.what, self.delay, self.choice, self.root, self.ranks = what, delay, choice, root, ranks
        self.making = notes / "making"
        self.is_over = threading.Event()
        self.victim = None
        self.is_dead = False

    def run(self):
        find, longest_s = MOMENTS[self.what]
        while not (find(self) or self.is_over.wait(0.01)):
            pass
        self.is_over.wait(self.delay * longest_s)
        while self.victim is None:
            found = find(self) or self.any_rank()
            self._kill(found[int(self.choice * len(found))])

    def any_rank(self):
        return [Member("rank", rank.process.pid, None, rank.process.pid) for rank in self.ranks]

    def any_of(self, kind):
        return [member for member in members(self.root) if member.kind == kind]

    def busy(self):
        """The compile processes that are in the middle of a key."""
        pids = filter(None, [soak_kit.maker(link) for link in self.making.iterdir()])
        return [member for pid in pids if (member := member_of(pid, self.root))]

    def _kill(self, member):
        if self.what == "rank, its processes asleep" and member.kind == "worker":
            self._kill_rank_of_sleepers(member)
        elif self.what.startswith("rank"):
            self._kill_pid(Member("rank", member.rank, None, member.rank))
        else:
            self._kill_pid(member)

    def _kill_rank_of_sleepers(self, worker):
        """Its mother would end the worker at once. Now it goes on with its key, late, and alone holds the key's lock."""
        for pid in (worker.mother, worker.pid):
            end(pid, signal.SIGSTOP)
        self._kill_pid(Member("rank", worker.rank, None, worker.rank))
        time.sleep(1.5)  # whoever takes the key meanwhile, because the lock is free, needs time to start
        for pid in (worker.pid, worker.mother):
            end(pid, signal.SIGCONT)
            time.sleep(0.1)

    def _kill_pid(self, member):
        if end(member.pid, signal.SIGKILL):
            self.victim = member
            with contextlib.suppress(AssertionError):
                self.is_dead = wait_until(lambda: not is_running(member.pid), "it is dead")


# Which process is killed -> who is looked for, and how long after he was found, at most, it is killed.
MOMENTS = {
    "worker in the middle of a key": (Killer.busy, 0.03),
    "worker": (lambda killer: killer.any_of("worker"), 0.2),
    "mother": (lambda killer: killer.any_of("mother"), 0.4),
    "rank": (Killer.any_rank, 2.0),
    "rank in the middle of a key": (Killer.busy, 0.03),
    "rank, its processes asleep": (Killer.busy, 0.02),
}
WEIGHTS = (35, 10, 20, 12, 10, 13)


def end(pid, with_signal):
    """Send a signal. Returns False if the process has gone already."""
    try:
        os.kill(pid, with_signal)
    except ProcessLookupError:
        return False
    return True


class Soak:
    """The ranks, and the rounds that they go through."""

    def __init__(self, directory, seed, n_ranks):
        self.directory, self.random, self.n_ranks = directory, random.Random(seed), n_ranks
        self.log = (directory / "log").open("w")
        kits.install(directory / "site", "soak", soak_kit.PLUGIN)
        path = os.pathsep.join([str(directory / "site"), *filter(None, sys.path)])
        self.environ = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
        self.ranks = []
        self.n_of = Counter()

    def play(self, number):
        """One round. Returns the promises that were broken."""
        n_ranks = self.n_ranks or (8, 16)[number % 2]
        (what,) = self.random.choices(list(MOMENTS), WEIGHTS)
        delay, choice = self.random.random(), self.random.random()
        n_keys, n_workers = self.random.choice((2, 4, 6)), self.random.choice((1, 1, 2))
        self.ranks += [Rank(self.environ, self.log) for _ in range(n_ranks - len(self.ranks))]
        playing, root = self.ranks[:n_ranks], self.directory / f"store-{number}"
        notes = self.directory / f"notes-{number}"
        for name in ("begun", "making", "overlaps"):
            (notes / name).mkdir(parents=True)
        killer = Killer(what, delay, choice, root, notes, playing)
        order = {"root": str(root), "notes": str(notes), "n_keys": n_keys, "n_workers": n_workers}
        answers = self._answers(playing, order, killer)
        if killer.victim.kind == "rank":
            self._bury(killer.victim.pid)
        evidence = Evidence(root, notes, n_keys, answers, killer.victim, killer.is_dead, self._left(root))
        broken = broken_promises(evidence)
        self.n_of.update({f"killed: {what}" if killer.victim.kind in what else "killed: rank, after the round": 1})
        self.n_of.update(evidence.n_of)
        if not broken:
            shutil.rmtree(root)
            shutil.rmtree(notes)
        return broken

    def _bury(self, pid):
        for rank in [rank for rank in self.ranks if rank.process.pid == pid]:
            rank.end()
            self.ranks.remove(rank)

    def _answers(self, playing, order, killer):
        """Let the ranks meet, and warm, and say what came of it; None of one that was killed."""
        killer.start()
        for rank in playing:
            rank.tell(order)
        there = [rank.hear() for rank in playing]
        for rank in playing:
            rank.tell("go")
        answers = [rank.hear() if ready else None for rank, ready in zip(playing, there, strict=True)]
        killer.is_over.set()
        killer.join()
        return answers

    def _left(self, root):
        """The processes of the round that do not end."""
        deadline = time.monotonic() + 30
        while (left := members(root)) and time.monotonic() < deadline:
            time.sleep(0.01)
        return left

    def end(self):
        for rank in self.ranks:
            rank.end()


def main(n_rounds, seed=None, n_ranks=0):
    seed = int(seed if seed is not None else time.time_ns() % 1_000_000)
    directory = Path(tempfile.mkdtemp(prefix="jitwarm-soak-"))
    soak = Soak(directory, seed, int(n_ranks))
    began = time.monotonic()
    try:
        for number in range(int(n_rounds)):
            try:
                broken = soak.play(number)
            except TimeoutError:
                for rank in soak.ranks:
                    end(rank.process.pid, signal.SIGUSR1)
                broken = [f"a rank did not answer within {LONGEST_S:g} s; the stacks are in {directory / 'log'}"]
                time.sleep(1)
            if broken:
                print(*broken, f"round {number} of seed {seed}; what it left is in {directory}", sep="\n")
                return 1
            if (number + 1) % 50 == 0:
                print(
                    f"{number + 1} rounds, {time.monotonic() - began:.0f} s, {dict(sorted(soak.n_of.items()))}",
                    flush=True,
                )
    finally:
        soak.end()
    shutil.rmtree(directory)
    print(json.dumps({"seed": seed, "seconds": round(time.monotonic() - began), **dict(sorted(soak.n_of.items()))}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
