"""Plugins through real entry points, in a process of their own."""

import kits
import pytest
from kits import GOOD


@pytest.fixture
def listed(cli, site):
    """`jitwarm plugins --json` with three packages installed, one of which cannot be imported."""
    kits.install(site, "tiny_one", GOOD)
    kits.install(site, "tiny_two", GOOD)
    kits.install(
        site, "broken_pkg", "raise ImportError('libcudart.so.12: cannot open')", plugin="broken", version="2.0"
    )

    def run(**variables):
        return kits.json_of(cli("plugins", "--json", **variables))

    return run


def test_a_package_that_cannot_be_imported_is_named_with_version_and_error_and_its_neighbours_appear(listed):
    seen = listed()
    assert [kernel["id"] for kernel in seen["kernels"]] == ["tiny_one:four", "tiny_two:four"]
    assert [kernel["distribution"] for kernel in seen["kernels"]] == ["tiny_one 1.0", "tiny_two 1.0"]
    assert seen["refused"] == [
        {
            "name": "broken",
            "distribution": "broken_pkg 2.0",
            "reason": "cannot import broken_pkg: ImportError: libcudart.so.12: cannot open",
        }
    ]


@pytest.mark.parametrize(
    ("globs", "names"), [("tiny_*", ["tiny_one", "tiny_two"]), ("tiny_one,x*", ["tiny_one"]), ("", [])]
)
def test_jitwarm_plugins_admits_by_glob_and_never_filters_the_backends(listed, globs, names):
    seen = listed(JITWARM_PLUGINS=globs)
    loaded = [plugin["name"] for plugin in seen["plugins"]]
    assert loaded == ["cutedsl", "tilelang", "triton", *names]
    assert seen["refused"] == []
    assert {"broken", "tiny_one", "tiny_two"} - set(names) <= set(seen["left_out"])


@pytest.mark.parametrize("globs", ["broken", "brok*,tiny_two"])
def test_jitwarm_disable_keeps_a_plugin_from_being_loaded(listed, globs):
    seen = listed(JITWARM_DISABLE=globs)
    assert seen["refused"] == []
    assert "tiny_one" in [plugin["name"] for plugin in seen["plugins"]]


def test_two_packages_of_one_plugin_name_are_told_apart_by_distribution(cli, site):
    kits.install(site, "tiny_one", GOOD, plugin="tiny")
    kits.install(site, "tiny_two", GOOD, plugin="tiny")
    seen = kits.json_of(cli("plugins", "--json"))
    assert [kernel["distribution"] for kernel in seen["kernels"]] == ["tiny_one 1.0"]
    assert [(r["distribution"], r["reason"]) for r in seen["refused"]] == [
        ("tiny_two 1.0", "its name 'tiny' is taken by tiny_one 1.0")
    ]
