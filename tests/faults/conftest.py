"""The plan of `tests/support/surrounded.py`, installed as a plugin; and what it builds where nothing is faulty."""

import pytest

pytest.importorskip("triton")
import surrounded
from fault_checks import files, run


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The plugin is installed, for this process and for those that it starts, which are known by a variable."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("FAULTY_NOTES", str(tmp_path / "notes"))
    surrounded.install(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """What is built where nothing is faulty, by compiler."""
    known = {}

    def sound(compiler):
        if compiler not in known:
            root = tmp_path_factory.mktemp("sound") / "store"
            run(root, compiler, None)
            known[compiler] = files(root)
        return known[compiler]

    return sound
