"""Tuned artifacts: results that only a device can find, as bytes that any equal process can use.

A compile key says what to build, and a machine without a GPU builds it. Which of several tactics is fastest is another kind of
result: it is measured, once, and then used by every rank of every start that is alike.
"""

import importlib.metadata
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from jitwarm.contract.config import WarmupConfig
from jitwarm.contract.kernel import kernel_name
from jitwarm.errors import InvalidArtifactError

MEMBERS = ("name", "fingerprint", "tune", "apply")
_MAX_NAME = 200
BACKEND = "tuned"  # stands for the compiler in the rows of artifacts


class TunedArtifact:
    """A result of tuning. A base class with harmless defaults; an object with these four members of its own is one, too.

    The bytes are the author's: any format but pickle, since whoever can write the store would decide what runs. They are the
    same on every rank that applies them.

    Attributes:
        name: Unique among the artifacts of a plugin.
        needs_device: Whether `tune` and `apply` need the GPU. Without one the artifact is only looked up.
        is_collective: Whether every rank of the engine must call `tune` at the same moment, because it runs collectives of its
            own. Then `merge` makes one result of those of equal ranks. If not, one rank tunes, and the others wait.
        distributions: Installed packages whose versions decide whether a kept result still holds.
    """

    name: str = ""
    needs_device: bool = True
    is_collective: bool = False
    distributions: tuple[str, ...] = ()

    def fingerprint(self, config: WarmupConfig) -> str:
        """What decides, beyond target, plugin and `distributions`, whether a result holds: shapes, dtypes, the GPU's name.

        Ranks with the same text are alike, and end with the same bytes. May raise `Unresolved` or `Skipped`, with a reason.
        """
        raise NotImplementedError

    def tune(self, config: WarmupConfig) -> bytes:
        """Find the result. May take minutes, launch and allocate. May raise; then no rank applies anything.

        Unless it is collective, it runs in a thread of its own and is left behind after `JITWARM_TUNE_TIMEOUT_S`.
        """
        raise NotImplementedError

    def apply(self, data: bytes) -> None:
        """Use a result in this process from now on. Raises on bytes that it cannot use, and then has changed nothing.

        Also called in the process that has tuned.
        """
        raise NotImplementedError

    def merge(self, results: Sequence[bytes]) -> bytes:
        """One result from those that equal ranks found together, in the order of ranks: the same in every process."""
        return results[0]


@dataclass(frozen=True)
class RegisteredArtifact:
    """An artifact with its origin.

    Attributes:
        id: `<plugin>:<artifact's name>`, unique in a process.
        artifact: The author's object.
        plugin: The entry point's name.
        distribution: Name and version of the package that declares it.
    """

    id: str
    artifact: Any
    plugin: str
    distribution: str

    @property
    def needs_device(self) -> bool:
        """As the artifact says; a GPU where it says nothing."""
        return bool(getattr(self.artifact, "needs_device", True))

    @property
    def is_collective(self) -> bool:
        """As the artifact says; one rank where it says nothing."""
        return bool(getattr(self.artifact, "is_collective", False))

    @property
    def can_revert(self) -> bool:
        """Whether what `apply` did can be taken back: whether there is a `revert()`."""
        return callable(getattr(self.artifact, "revert", None))

    @property
    def toolchain(self) -> str:
        """The versions that decide, beside the artifact's own fingerprint, whether a kept result holds. One line."""
        named = tuple(getattr(self.artifact, "distributions", ()))
        return ", ".join([self.distribution, *(f"{name} {_version(name)}" for name in named)])

    def fingerprint(self, config: WarmupConfig) -> str:
        """The artifact's own text.

        Raises:
            InvalidArtifactError: It answers something else than text.
            Exception: What the artifact raises.
        """
        text = self.artifact.fingerprint(config)
        if not isinstance(text, str) or not text:
            raise InvalidArtifactError(
                f"{self.id}: fingerprint answered {text!r}, which is no text", "say in one text what decides validity"
            )
        return text

    def tune(self, config: WarmupConfig) -> bytes:
        """The artifact's own result.

        Raises:
            InvalidArtifactError: It is something else than bytes.
            Exception: What the artifact raises.
        """
        return self._bytes("tune", self.artifact.tune(config))

    def merge(self, results: Sequence[bytes]) -> bytes:
        """One result from those of equal ranks; the first one's where the artifact cannot merge."""
        merge = getattr(self.artifact, "merge", None)
        return self._bytes("merge", merge(results)) if merge else results[0]

    def _bytes(self, member: str, answer: object) -> bytes:
        if isinstance(answer, bytes):
            return answer
        raise InvalidArtifactError(f"{self.id}: {member} answered {type(answer).__name__}, not bytes", "return bytes")


def require_artifact(artifact: object) -> None:
    """Raise `InvalidArtifactError` unless `artifact` has the four members, and those that it has make sense."""
    if inspect.isclass(artifact):
        raise InvalidArtifactError(
            f"{artifact.__qualname__} is a class", f"yield an instance: {artifact.__qualname__}()"
        )
    who = f"{kernel_name(artifact)} ({type(artifact).__name__})"
    missing = [name for name in MEMBERS if not hasattr(artifact, name)]
    missing += [m for m in MEMBERS[1:] if getattr(type(artifact), m, None) is getattr(TunedArtifact, m)]
    if missing:
        _refuse(f"{who} is no tuned artifact: it has no {', '.join(missing)}", f"it has {', '.join(MEMBERS)}")
    name = artifact.name  # type: ignore[attr-defined]  # its presence was checked above
    if not isinstance(name, str) or not name or len(name) > _MAX_NAME or not name.isprintable():
        _refuse(f"{type(artifact).__name__}: {name!r} is no name", "give `name` a short text")
    for member in (*MEMBERS[1:], "revert", "merge"):
        if not callable(getattr(artifact, member, len)):
            _refuse(f"{who}: {member} cannot be called", f"make {member} a method")
    named = getattr(artifact, "distributions", ())
    if isinstance(named, str) or not all(isinstance(one, str) for one in named):
        _refuse(f"{who}: distributions is {named!r}", 'write a tuple of names: ("flashinfer-python",)')


def _refuse(message: str, hint: str) -> NoReturn:
    raise InvalidArtifactError(message, hint)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
