"""No test sees the user's settings or leaves a variable behind; sessions and command lines have a store of their own."""

import os

import kits
import pytest

from jitwarm import Target, WarmupConfig
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings


def pytest_collection_modifyitems(config, items):
    """With `--dist loadgroup`, a file's tests run in one process, which makes what they share once; engines start one by one.

    The marker is pytest-xdist's own, which not every environment of a test run has.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        if "vllm_engine" not in item.path.parts and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True)
def clean_environment(tmp_path):
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("JITWARM_")]:
        del os.environ[name]
    os.environ["JITWARM_CACHE_DIR"] = str(tmp_path / "user-cache")
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def make_session(tmp_path, monkeypatch):
    """A session over given plugins, by name, and over no installed ones; later plugins are asked first."""

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def make(plugins, **config):
        asked = Asked(WarmupConfig(**config), Settings(plugins=(), isolate=False))
        session = Session(asked, Target("cuda", "90"), root=tmp_path / "store")
        for name, plugin in plugins.items():
            session.registry.add(name, plugin, f"{name} 1.0")
        return session

    return make


@pytest.fixture
def site(tmp_path):
    """A directory for `kits.install`, on the path of `cli`."""
    return tmp_path / "site"


@pytest.fixture
def cli(tmp_path, site):
    """`python -m jitwarm` in a process of its own; of the installed plugins it sees those that `install` wrote."""

    def run(*arguments, **variables):
        given = {
            "JITWARM_PLUGINS": "tiny*,broken*",
            "PYTHONPATH": f"{site}:{kits.HERE}",
            "CUDA_VISIBLE_DEVICES": "",
            **variables,
        }
        return kits.python("-m", "jitwarm", *arguments, cwd=tmp_path, **given)

    return run
