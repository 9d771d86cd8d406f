"""Which source a kernel was built from, as a short text: nobody else refuses a stale artifact.

CuTeDSL's objects carry no hash of the code that made them, and hashing the defining module alone would miss its helpers. An
installed wheel is identified by its RECORD, one file that lists the hash of every other; an editable tree by all its Python
files.
"""

import hashlib
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import importlib_metadata

from jitwarm.contract.kernel import RegisteredKernel


def source_digest(kernel: RegisteredKernel) -> str:
    """SHA-256 over the code of the kernel's package and the versions of the distributions that it requires."""
    package = kernel.module.partition(".")[0]
    digest = _package_digest(kernel.distribution.partition(" ")[0], package)
    return hashlib.sha256(f"{kernel.distribution}\0{digest}".encode()).hexdigest()


@cache
def _package_digest(distribution_name: str, package: str) -> str:
    digest = hashlib.sha256()
    distribution = _distribution(distribution_name)
    record = _wheel_record(distribution, package)
    if record:
        digest.update(record.encode())
    else:
        for file in _python_files(package):
            digest.update(f"{file.name}\0".encode() + file.read_bytes())
    for requirement in (distribution.requires if distribution else None) or ():
        digest.update(_installed(requirement).encode())
    return digest.hexdigest()


def _distribution(name: str) -> Any:
    """The installed distribution, or None."""
    try:
        return importlib_metadata.distribution(name) if name else None
    except importlib_metadata.PackageNotFoundError:
        return None


def _wheel_record(distribution: Any, package: str) -> str:
    """What RECORD says of the installed files, if the package came as a wheel; empty for an editable install.

    Without what the installer itself wrote, which differs between pip, uv and a cache: its notes, and files without a hash.
    """
    record = (distribution.read_text("RECORD") if distribution else None) or ""
    if not re.search(rf"^{re.escape(package)}[/.]", record, re.MULTILINE):
        return ""
    return "\n".join(sorted(line for line in record.splitlines() if "sha256=" in line and ".dist-info/" not in line))


def _python_files(package: str) -> list[Path]:
    module = sys.modules.get(package)
    if module is None:
        return []
    roots = [Path(place) for place in getattr(module, "__path__", ())]
    if not roots:
        return [Path(module.__file__)] if getattr(module, "__file__", None) else []  # type: ignore[arg-type]  # checked
    return sorted(file for root in roots for file in root.rglob("*.py"))


def _installed(requirement: str) -> str:
    name = re.match(r"[\w.-]+", requirement)
    distribution = _distribution(name[0]) if name else None
    return f"{requirement}={distribution.version if distribution else 'none'}\0"
