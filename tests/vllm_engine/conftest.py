"""A real vLLM engine (CPU build) per question, with packages of kernels installed beside it."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from engine_kit import MODEL, environment
from kits import install

SUPPORT = Path(__file__).parents[1] / "support"
PACKAGES = Path(__file__).parent / "packages"
TIMEOUT_S = 400


@dataclass
class Started:
    """One engine's start, looked at afterwards."""

    log: str
    answer: dict
    store: Path

    @property
    def events(self):
        """Events by process, in the order in which each wrote them."""
        return {
            f"{file.parent.name}/{file.stem}": [json.loads(line) for line in file.read_text().splitlines()]
            for file in sorted((self.store / "events").glob("*/*.jsonl"))
        }

    @property
    def workers(self):
        """The events of the engine's workers, by rank."""
        found = [events for events in self.events.values() if events and "rank" in events[0]]
        return sorted(found, key=lambda events: events[0]["rank"])

    def all(self, name):
        """Every event of a name, from whatever process."""
        return [event for events in self.events.values() for event in events if event["event"] == name]

    def outcomes(self, rank=0):
        """Kernel id -> outcomes of its keys, in one worker."""
        found = {}
        for event in self.workers[rank]:
            if event["event"] in ("key_end", "kernel_unlisted"):
                found.setdefault(event["kernel"], []).append(event["outcome"])
        return found

    @property
    def lines(self):
        """What jitwarm said in vLLM's log, without vLLM's prefix."""
        return re.findall(r"\] jitwarm: (.*)", self.log)


@pytest.fixture
def site(tmp_path):
    """A directory on the engine's path, with the packages `alpha`, `beta` and `gamma`; see `engine_kit` for which are asked."""
    directory = tmp_path / "site"
    for name in ("alpha", "beta", "gamma"):
        install(directory, f"{name}_kernels", (PACKAGES / f"{name}_kernels.py").read_text(), plugin=name)
    return directory


@pytest.fixture
def prepare_engine(tmp_path, site):
    """Write what an engine is asked; the command and the environment that start it. See `start_engine`."""
    model = tmp_path / "model"
    model.mkdir()

    def prepare(
        calls=(), llm=(), store="store", architecture=(), fork=False, weights=False, then=(), n_tokens=3, **variables
    ):
        config = {**MODEL, **dict(architecture)}
        (model / "config.json").write_text(json.dumps(config))
        if weights and not (model / "model.safetensors").exists():
            from weights import write

            write(model / "model.safetensors", config)
        spec, answer = tmp_path / "spec.json", tmp_path / "answer.json"
        arguments = {
            "model": str(model), "load_format": "dummy", "skip_tokenizer_init": True, "dtype": "float32",
            "enforce_eager": True, "max_model_len": 128, "max_num_batched_tokens": 128, "max_num_seqs": 4, **dict(llm),
        }  # fmt: skip
        second = {**arguments, **dict(then)} if then else None
        asked = {"llm": arguments, "calls": list(calls), "fork": fork, "then": second, "n_tokens": n_tokens}
        spec.write_text(json.dumps(asked))
        answer.unlink(missing_ok=True)
        environ = environment(tmp_path, site, tmp_path / store) | variables
        command = [sys.executable, str(SUPPORT / "engine.py"), str(spec), str(answer)]
        return command, {name: value for name, value in environ.items() if value is not None}

    return prepare


@pytest.fixture
def start_engine(tmp_path, prepare_engine):
    """Start an engine, let it answer one request, and stop it. Keyword arguments are variables; None unsets one."""

    def start(calls=(), llm=(), store="store", **asked):
        command, environ = prepare_engine(calls, llm, store, **asked)
        answer = tmp_path / "answer.json"
        done = subprocess.run(
            command,
            env=environ,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert answer.exists(), f"exit status {done.returncode}\n{done.stdout[-6000:]}"
        return Started(done.stdout, json.loads(answer.read_text()), tmp_path / store)

    return start
