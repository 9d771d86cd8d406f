"""What counts as the source of a kernel's package."""

import sys

import kits
import pytest

from jitwarm.contract.kernel import RegisteredKernel
from jitwarm.engine import source

FILE = "mine/kernels.py,sha256=abc,10"


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """The digest of a package that was installed with these lines in its RECORD."""
    monkeypatch.syspath_prepend(tmp_path)
    kits.install(tmp_path / "site", "mine", "")
    monkeypatch.syspath_prepend(tmp_path / "site")

    class Kernel:
        source_module = "mine.kernels"

    def of(*lines):
        record = tmp_path / "site" / "mine-1.0.dist-info" / "RECORD"
        record.write_text("\n".join(lines) + "\n")
        source._package_digest.cache_clear()
        return source.source_digest(RegisteredKernel("mine:k", Kernel(), "mine", "mine 1.0"))

    return of


def test_who_installed_a_wheel_and_in_which_order_does_not_count(digest):
    other = "mine/tables.py,sha256=def,20"
    notes = ["mine-1.0.dist-info/INSTALLER,sha256=123,4", "mine-1.0.dist-info/direct_url.json,sha256=456,90"]
    assert digest(FILE, other) == digest(other, *notes, FILE, "mine/__pycache__/kernels.cpython-311.pyc,,")


def test_another_file_or_another_content_counts(digest):
    assert len({digest(FILE), digest(FILE.replace("abc", "abd")), digest(FILE, "mine/_c.so,sha256=1,2")}) == 3
    assert "mine" not in sys.modules
