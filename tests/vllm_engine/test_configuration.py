"""What `WarmupConfig.from_vllm` finds in the libraries that vLLM brings."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.vllm

PROGRAM = """
import sys
from types import SimpleNamespace
import huggingface_hub
from jitwarm import WarmupConfig
for revision in (None, "v2", "v3"):
    model = SimpleNamespace(model="acme/mixtral", revision=revision)
    print(WarmupConfig.from_vllm(SimpleNamespace(model_config=model), 0).model)
"""


def test_a_model_that_is_named_by_its_repository_is_found_in_hugging_faces_cache(tmp_path):
    repository = tmp_path / "models--acme--mixtral"
    for revision, commit in (("main", "a" * 40), ("v2", "b" * 40)):
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text(json.dumps({"model_type": "mixtral"}))
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    files = [repository / "snapshots" / commit / "config.json" for commit in ("a" * 40, "b" * 40)]
    assert done.stdout.splitlines() == [*map(str, files), ""]
