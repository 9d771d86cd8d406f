"""Every exception of jitwarm. Imports nothing, so that every module may import it.

The class says who must act: the author of a plugin, the author of a dispatch, whoever set the options, whoever owns the
machine. All arguments are positional and reach `Exception.__init__`, because an exception with keyword-only arguments
cannot be unpickled and would kill the process pool that carries it.
"""

_LONGEST_TEXT = 16_000  # characters; some compilers quote all of their input


class JitwarmError(Exception):
    """Base of all. `str()` gives what went wrong, where, and what to do, each on its own line."""

    def __init__(self, message: str, hint: str = "", where: str = "") -> None:
        super().__init__(message, hint, where)
        self.message = message
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        """The message, then `where` and `hint` if there are any."""
        lines = [self.message]
        if self.where:
            lines.append(f"  at: {self.where}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


def text_of(exc: BaseException) -> str:
    """An exception of somebody else as text: its class, and what it says if it can say it."""
    try:
        said = str(exc)
    except Exception as again:  # noqa: BLE001 - whatever its `__str__` raises
        said = f"(its text cannot be made: {type(again).__name__})"
    return shortened(f"{type(exc).__name__}: {said}" if said else type(exc).__name__)


def shortened(text: str) -> str:
    """A text that a row, a log and a terminal can take: of a longer one the beginning and the end."""
    if len(text) <= _LONGEST_TEXT:
        return text
    half = _LONGEST_TEXT // 2
    return f"{text[:half]}\n[{len(text) - 2 * half:,} characters are left out here]\n{text[-half:]}"


class UsageError(JitwarmError):
    """Somebody asked for a thing that does not exist: an unknown target, option, kernel glob or name."""


class SettingsError(UsageError):
    """A configuration file, variable or `--set` holds an unknown name or a value of the wrong type."""


class TargetError(UsageError):
    """A text that names no target, with the right spelling in the hint."""


class ContractError(JitwarmError):
    """The author of a plugin or kernel must act."""


class PluginError(ContractError):
    """A plugin was refused: it cannot be imported, raises in a hook, misspells one, or yields what is no kernel."""


class PluginCheckError(ContractError, AssertionError):
    """A plugin breaks a promise of the contract: an assertion of `jitwarm.testing.check_plugin` does not hold."""


class PluginTimeoutError(PluginError):
    """A call into a plugin (its import, its kernels, a kernel's keys) did not come back in time."""


class InvalidKernelError(ContractError):
    """An object that cannot be a kernel, or a kernel class whose definition contradicts itself."""


class InvalidArtifactError(ContractError):
    """An object that cannot be a tuned artifact, or one that answers what the contract does not allow."""


class UnencodableKey(ContractError):  # noqa: N818 - the name is part of the documented contract
    """A compile key holds a value that has no canonical text: a tensor, a list, an object of a local class."""


class TracingError(ContractError):
    """`trace_dispatch` cannot list the keys: the declared domain or the dispatch function must change."""


class DomainError(TracingError):
    """A value space that contradicts itself: a step below 1, an empty range, an input that dispatch does not take."""


class KeySpaceTooLargeError(TracingError):
    """The domain has more points than may be evaluated. Nothing is returned: never a silently partial set."""


class Unresolved(JitwarmError):  # noqa: N818 - it names the outcome that it becomes
    """Whether this key can be warm is not known here. Becomes the outcome `unresolved`, apart from `failed`."""


class NeedsModel(Unresolved):
    """A kernel asked for the live model where there is none (in `bake`, or in a child process)."""


class UnsupportedTargetError(Unresolved):
    """A backend cannot compile for the asked target."""


class ToolchainError(Unresolved):
    """A package or program that a backend needs (nvcc, a C compiler, the DSL itself) is missing."""


class CompileError(JitwarmError):
    """A compiler answered, but what it made cannot be used (wrong architecture, no binary)."""


class FetchError(JitwarmError):
    """A file that was built elsewhere cannot be had, or is not what was asked for. Nothing was left behind: compile it."""


class WorkerDiedError(CompileError):
    """The process that compiled a key ended: the compiler crashed, was killed, or ran out of memory."""


class KeyTimeoutError(CompileError):
    """A key was not compiled before its deadline; the compiler was killed. Becomes the outcome `timed_out`."""


class QuarantinedError(CompileError):
    """A key that killed or hung its compiler earlier is not tried again."""


class WorkersUnavailableError(JitwarmError):
    """No compile process can be started here."""


class HostError(CompileError):
    """A host cannot build what is usable here, or sent what is not: whoever keeps the hosts alike must act."""


class HostsUnavailableError(ToolchainError):
    """The hosts that were asked for cannot be reached, or what reaches them is not installed."""


class GroupError(JitwarmError):
    """The ranks of an engine could not come to an agreement: one of them is gone, or late."""


class NoDeviceError(JitwarmError):
    """A launch was asked of a process that has no GPU: it can compile, but not run."""


class StoreError(JitwarmError):
    """The store cannot be read or written, is of a foreign format, or is open to other users."""


class LockTimeoutError(StoreError, TimeoutError):
    """A lock of the store was not free before its deadline."""


class WarmupFailedError(JitwarmError):
    """Policy `strict`: at least one asked key is not warm. Raised once, at the end, with the list."""


class ColdCompileError(JitwarmError, AssertionError):
    """Something compiled where `jitwarm.testing.no_cold_compiles` says that nothing may."""


class UnexpectedCompileError(JitwarmError):
    """Monitor mode `error`: a kernel compiled after the start. Says which, how it differs from what was warm, and what to add."""


class Skipped(JitwarmError):  # noqa: N818 - it names the outcome that it becomes
    """This key need not be warm, for the reason given: the autotuner would skip this configuration, too."""
