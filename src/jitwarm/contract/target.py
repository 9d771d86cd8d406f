"""Targets: what a binary is built for.

`Target` compares by kind and arch alone. Which versions make two binaries of one target exchangeable is a `Toolchain` per
backend, carried along but no part of the name: a person asks for `cuda:90`, a manifest records the rest.
"""

import re
from dataclasses import dataclass, field
from typing import Self

from jitwarm.errors import TargetError

# `10 * major + minor`, as torch.cuda.get_device_capability gives it. Bounds are generous: which of them a compiler knows is
# the compiler's to say, but 900 or 9 can only be a slip of the keyboard.
_MIN_CUDA_ARCH, _MAX_CUDA_ARCH = 70, 199
_FIRST_SUFFIXED_MAJOR = 9
_CUDA = re.compile(r"[1-9][0-9]{1,2}")
_GFX = re.compile(r"gfx[0-9]{1,2}[0-9a-f]{2}")


@dataclass(frozen=True)
class Toolchain:
    """The versions that decide whether artifacts of one backend can be exchanged between two machines.

    Attributes:
        backend: The backend's name.
        versions: (component, version) pairs that must agree, e.g. `(("triton", "3.9.0"),)`.
        built_with: Programs that only the building machine needs (nvcc). Recorded, and not compared: a serving image may
            have none.
    """

    backend: str
    versions: tuple[tuple[str, str], ...]
    built_with: tuple[tuple[str, str], ...] = ()

    def text(self) -> str:
        """What must agree, as one line, e.g. `triton 3.9.0`."""
        return ", ".join(f"{name} {version}" for name, version in self.versions)

    def full_text(self) -> str:
        """All of it, as one line."""
        return ", ".join(f"{name} {version}" for name, version in (*self.versions, *self.built_with))


@dataclass(frozen=True)
class Target:
    """A GPU architecture to build for, e.g. `cuda:90` or `hip:gfx942`.

    Attributes:
        kind: `"cuda"` or `"hip"`.
        arch: For CUDA the number `10 * major + minor` as text, for HIP the gfx name.
        toolchains: What else makes artifacts exchangeable; not compared, not part of `str(target)`.
    """

    kind: str
    arch: str
    toolchains: tuple[Toolchain, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `cuda:90` or `hip:gfx942`.

        Raises:
            TargetError: Anything else; the hint names the right spelling where it can be guessed.
        """
        kind, _, arch = text.partition(":")
        if kind == "cuda" and _CUDA.fullmatch(arch) and _MIN_CUDA_ARCH <= int(arch) <= _MAX_CUDA_ARCH:
            return cls("cuda", arch)
        if kind == "hip" and _GFX.fullmatch(arch):
            return cls("hip", arch)
        raise TargetError(f"unknown target {text!r}", _spelling(text))

    def __str__(self) -> str:
        return f"{self.kind}:{self.arch}"

    @property
    def capability(self) -> tuple[int, int]:
        """(major, minor) of a CUDA target."""
        if self.kind != "cuda":
            raise TargetError(f"{self} has no CUDA compute capability")
        return divmod(int(self.arch), 10)

    @property
    def sm(self) -> str:
        """`sm_90a`: the architecture that a process on that device asks its compilers for.

        The `a` (architecture-specific features, WGMMA and tcgen05 among them) stands from major 9 on and never below, so
        that an entry built here is the entry that is looked up there.
        """
        major, _ = self.capability
        return f"sm_{self.arch}a" if major >= _FIRST_SUFFIXED_MAJOR else f"sm_{self.arch}"

    @property
    def warp_size(self) -> int:
        """Lanes per warp: 32 on NVIDIA and on gfx10 and later, 64 on gfx9."""
        return 64 if self.arch.startswith("gfx9") else 32


def _spelling(text: str) -> str:
    """The most likely right spelling, as a hint."""
    arch = text.strip().lower().rpartition(":")[2]
    digits = re.fullmatch(r"(?:sm_?|compute_?)?([0-9]{1,2})\.?([0-9])[af]?", arch)
    if digits:
        number = int(digits[1] + digits[2])
        if _MIN_CUDA_ARCH <= number <= _MAX_CUDA_ARCH:
            return f"write 'cuda:{number}'; suffixes such as the 'a' of sm_90a are added by each backend"
    if _GFX.fullmatch(arch):
        return f"write 'hip:{arch}'"
    return "write a CUDA target as 'cuda:90' (10 * major + minor) or an AMD target as 'hip:gfx942'"
