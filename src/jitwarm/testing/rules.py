"""The promises of the contract, one function each: from facts to a row. In the order in which they are shown."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from jitwarm.contract.kernel import Outcome
from jitwarm.testing.checklist import Check, Status, counted, first_few
from jitwarm.testing.facts import Built, BuiltKey, KernelFacts, Look

T = TypeVar("T")
_WARM = {outcome.value for outcome in Outcome if outcome.is_warm}
_VERBS = {"launch": "launched", "cuda": "asked for"}
_OPEN = {Outcome.UNRESOLVED.value, Outcome.SKIPPED.value}


@dataclass(frozen=True)
class Verdict:
    """How a check ended, what was seen, and what to do."""

    status: Status
    detail: str = ""
    hint: str = ""


class UnknownError(Exception):
    """A fact is not there, for the reason given."""


@dataclass(frozen=True)
class Facts:
    """Everything that is known of a plugin; a text stands for what is not known, and says why.

    Attributes:
        plugin: Its name.
        target: What was built for.
        looks: Of two processes, with different hash seeds.
        runs: Two over one store; the second in a single process, where launches are seen.
    """

    plugin: str
    target: str
    looks: tuple[Look | str, Look | str]
    runs: tuple[Built | str, Built | str]

    def look(self, n: int = 0) -> Look:
        """What one process saw; raises `UnknownError`."""
        return _known(self.looks[n])

    def run(self, n: int = 0) -> Built:
        """One run; raises `UnknownError`."""
        return _known(self.runs[n])

    @property
    def kernels(self) -> list[KernelFacts]:
        """As the first process saw them; raises `UnknownError` where there are none."""
        look = self.look()
        if look.refused or not look.kernels:
            raise UnknownError("the plugin is not loaded" if look.refused else "it has no kernels to look at")
        return look.kernels


Rule = Callable[[Facts], Verdict]
RULES: dict[str, Rule] = {}


def _known(fact: T | str) -> T:
    if isinstance(fact, str):
        raise UnknownError(fact)
    return fact


def a_rule(rule: Rule) -> Rule:
    """Make a check of a function: its name is the check's, its docstring the promise."""
    RULES[rule.__name__] = rule
    return rule


def judge(name: str, facts: Facts, skip: Sequence[str]) -> Check:
    """One row."""
    try:
        verdict = Verdict(Status.SKIPPED, "left out, as asked") if name in skip else RULES[name](facts)
    except UnknownError as exc:
        verdict = Verdict(Status.SKIPPED, str(exc))
    return Check(name, verdict.status, verdict.detail, verdict.hint, RULES[name].__doc__ or "")


def _passed(detail: str = "") -> Verdict:
    return Verdict(Status.PASSED, detail)


def _none(wrong: Sequence[str], hint: str, seen: str = "", status: Status = Status.FAILED) -> Verdict:
    """Passed where nothing is wrong."""
    return Verdict(status, first_few(wrong), hint) if wrong else _passed(seen)


def _of_each(kernels: Iterable[KernelFacts], findings: Callable[[KernelFacts], Iterable[str]]) -> list[str]:
    return [f"{kernel.id}: {finding}" for kernel in kernels for finding in findings(kernel)]


# --- the plugin ----------------------------------------------------------------------------------------------------------


@a_rule
def loads(facts: Facts) -> Verdict:
    """Its entry point is found and imported without a GPU, its hooks are known, and what it yields are kernels."""
    if isinstance(facts.looks[0], str):
        return Verdict(Status.FAILED, facts.looks[0])
    look = facts.looks[0]
    if not look.is_installed:
        return Verdict(
            Status.FAILED,
            f"no installed package has an entry point {facts.plugin!r} in the group jitwarm.kernels",
            'add [project.entry-points."jitwarm.kernels"] to pyproject.toml, and install the package again',
        )
    return _none([look.refused] if look.refused else [], "the plugin is left out of every start until this is mended")


@a_rule
def kernel_names_are_unique(facts: Facts) -> Verdict:
    """No two of its kernels have one name."""
    return _none(
        [f"{name} is there more than once" for name in facts.look().duplicates], "give one of them another `name`"
    )


@a_rule
def discovery_is_light(facts: Facts) -> Verdict:
    """To import it and to list its backends imports no GPU stack, and nothing up to its keys asks for a GPU."""
    look = facts.look()
    imported = [f"importing the plugin imports {', '.join(look.gpu_stacks)}"] if look.gpu_stacks else []
    asked = [f"{touch.what} is asked for at {touch.site}" for touch in look.touches if touch.kind == "cuda"]
    hint = "import kernels inside jitwarm_kernels, and take the architecture from its argument `target`"
    return _none(imported + asked, hint)


@a_rule
def discovery_starts_no_thread(facts: Facts) -> Verdict:
    """To import it and its kernels starts no thread: compile processes are forked after that."""
    look = facts.look(1)
    if look.threads:
        hint = "start threads when a kernel is first launched; until then each compile process imports the plugin anew"
        return Verdict(Status.FAILED, f"it starts {', '.join(look.threads)}", hint)
    if look.n_native_threads:
        detail = f"{counted(look.n_native_threads, 'thread')} of a library that it imports"
        hint = "import that library inside functions; until then each compile process imports the plugin anew"
        return Verdict(Status.WARNED, detail, hint)
    return _passed()


# --- its keys ------------------------------------------------------------------------------------------------------------


@a_rule
def lists_keys(facts: Facts) -> Verdict:
    """It has a kernel, and at least one key for this configuration."""
    look = facts.look()
    if look.refused or not look.is_installed:
        raise UnknownError("the plugin is not loaded")
    failed = [f"{k.id}: {k.problem[1]}" for k in look.kernels if k.problem and k.problem[0] not in _OPEN]
    unknown = [f"{k.id} {k.problem[0]}: {k.problem[1]}" for k in look.kernels if k.problem and k.problem[0] in _OPEN]
    n_keys = sum(len(kernel.keys) for kernel in look.kernels)
    hint = "get_warmup_keys must answer for every configuration; `[]` is an answer"
    if failed or n_keys:
        empty = [f"{kernel.id} has 0 keys" for kernel in look.kernels if not kernel.keys and not kernel.problem]
        return _none(
            failed,
            hint,
            first_few([f"{counted(n_keys, 'key')} of {counted(len(look.kernels), 'kernel')}", *empty, *unknown]),
        )
    if unknown:
        raise UnknownError(first_few(unknown))
    what = "no kernel of it has a key for this configuration" if look.kernels else "it yields no kernel"
    return Verdict(Status.FAILED, what, "give check_plugin a `config` that it has keys for")


@a_rule
def keys_are_data(facts: Facts) -> Verdict:
    """Every key can be hashed, and has a canonical text."""
    return _none(
        _of_each(facts.kernels, lambda k: k.unencodable), "store numbers, names and frozen dataclasses of these"
    )


@a_rule
def keys_come_back(facts: Facts) -> Verdict:
    """The key that is made of a key's text has the same text: it crosses to compile processes and hosts."""
    hint = "CompileKey must take all its fields by name and keep them as they are"
    return _none(_of_each(facts.kernels, lambda k: k.undecodable), hint)


@a_rule
def listing_is_repeatable(facts: Facts) -> Verdict:
    """get_warmup_keys gives the same list twice in one process."""
    hint = "get_warmup_keys may depend on `config` and the target alone"
    return _none(_of_each(facts.kernels, lambda k: _differences(k.keys, k.again, "the second call")), hint)


@a_rule
def keys_are_stable(facts: Facts) -> Verdict:
    """Other processes, each with another PYTHONHASHSEED, list the same keys in the same order."""
    mine = {kernel.id: kernel.keys for kernel in facts.kernels}
    others = [{kernel.id: kernel.keys for kernel in facts.look(1).kernels}]
    for run in facts.runs:
        listed = {} if isinstance(run, str) else {id_: _listed(run, id_) for id_ in mine}
        # What an adapter has made several keys of, one for each configuration, is another list.
        others.append({id_: keys for id_, keys in listed.items() if set(keys) == set(mine[id_])})
    wrong = {
        f"{id_}: {finding}": None
        for other in others
        for id_, keys in other.items()
        for finding in _differences(mine[id_], keys, "another process")
    }
    return _none(list(wrong), "sort what comes out of a set; leave addresses, process ids and times out of keys")


def _listed(run: Built, kernel_id: str) -> list[str]:
    return [key.key for key in run.keys if key.kernel == kernel_id and key.key]


def _differences(keys: Sequence[str], others: Sequence[str], who: str) -> Iterator[str]:
    if set(keys) != set(others):
        odd = [f"only the first: {text}" for text in keys if text not in others]
        odd += [f"only {who}: {text}" for text in others if text not in keys]
        yield f"{who} lists {counted(len(others), 'key')}, and {len(odd)} are not of both\n{first_few(odd)}"
    elif list(keys) != list(others):
        n, (a, b) = next((n, pair) for n, pair in enumerate(zip(keys, others, strict=True)) if pair[0] != pair[1])
        yield f"{who} lists the same keys in another order; number {n} is {a}, and then {b}"


@a_rule
def dispatch_is_traced_exactly(facts: Facts) -> Verdict:
    """At sampled inputs the author's own function gives the keys that tracing found and no other; each has an input."""
    kernels = facts.kernels
    if wrong := _of_each(kernels, lambda k: k.disagreements):
        return _none(wrong, "dispatch must depend on its inputs alone, and have no side effects")
    n_traced, n_by_hand = sum(k.n_traced for k in kernels), sum(k.n_by_hand for k in kernels)
    if not n_traced:
        raise UnknownError("keys are listed by hand: nothing says which inputs they are for")
    mixed = [
        f"{counted(k.n_by_hand, 'key')} of {k.id}, beside the traced ones"
        for k in kernels
        if k.n_traced and k.n_by_hand
    ]
    if mixed:
        return Verdict(
            Status.WARNED,
            first_few([f"no input is known that reaches {detail}" for detail in mixed]),
            "widen the traced domain until it reaches them, or drop them",
        )
    return _passed(counted(n_traced, "key") + (f"; {n_by_hand} more by hand" if n_by_hand else ""))


@a_rule
def dispatch_takes_what_is_traced(facts: Facts) -> Verdict:
    """The kernel's `dispatch` takes the inputs that get_warmup_keys traces, and gives the listed key for them."""
    kernels = facts.kernels
    if not any(kernel.n_traced or kernel.not_taken for kernel in kernels):
        raise UnknownError("keys are listed by hand")
    return _none(_of_each(kernels, lambda k: k.not_taken), "trace self.dispatch itself")


# --- compiling them ------------------------------------------------------------------------------------------------------


@a_rule
def every_key_compiles(facts: Facts) -> Verdict:
    """Every key is built for the target, in compile processes that see no GPU."""
    _ = facts.kernels  # raises where there are none
    run = facts.run()
    failed = [str(key) for key in run.keys if key.outcome not in _WARM | _OPEN]
    if failed:
        return _none(failed, "the same for one kernel: jitwarm bake --target ... --kernel ...")
    n_warm, unknown = sum(key.outcome in _WARM for key in run.keys), [k for k in run.keys if k.outcome in _OPEN]
    if not n_warm:
        raise UnknownError(first_few([str(key) for key in unknown]) or "there are no keys")
    more = f"; not checked:\n{first_few([str(key) for key in unknown])}" if unknown else ""
    local = [f"{kernel} is compiled in the process that asks: {why}" for kernel, why in run.local.items()]
    if local or run.unavailable:
        return Verdict(Status.WARNED, first_few([*local, *filter(None, [run.unavailable])]))
    return _passed(f"{counted(n_warm, 'key')}{more}")


@a_rule
def second_run_compiles_nothing(facts: Facts) -> Verdict:
    """A second process finds every built key in the store, and its compiler does not run."""
    built = {(key.kernel, key.key) for key in facts.run().keys if key.outcome in _WARM}
    if not built:
        raise UnknownError("no key was built")
    run = facts.run(1)
    again = set(run.compiled)
    wrong = [key for key in run.keys if (key.kernel, key.key) in built and _is_new(key, again)]
    hint = "build with Triton, CuTeDSL's TVM-FFI objects or TileLang, which keep what they build; and derive nothing from times, "
    hint += "addresses or temporary paths"
    return _none([f"{key.kernel} [{key.label}] was built again: {key.error or key.outcome}" for key in wrong], hint)


def _is_new(key: BuiltKey, compiled: set[tuple[str, str]]) -> bool:
    return (key.kernel, key.key) in compiled or key.outcome not in _WARM


@a_rule
def launches_nothing(facts: Facts) -> Verdict:
    """While keys are listed and compiled, nothing is launched and no GPU is used."""
    touches = [touch for touch in facts.look().touches if touch.kind == "launch"]
    for run in facts.runs:
        touches += [] if isinstance(run, str) else run.touches
    if not touches:
        _ = facts.kernels, facts.run(0), facts.run(1)  # each raises where it is not known
    seen = [f"{touch.what} is {_VERBS[touch.kind]} at {touch.site}" for touch in touches]
    return _none(list(dict.fromkeys(seen)), "compile only: every compiler has a way to build from descriptors")


@a_rule
def compiling_leaves_the_process_alone(facts: Facts) -> Verdict:
    """A compile leaves current directory, umask and environment as they were."""
    _ = facts.kernels  # raises where there are none
    changes = [change for n in (0, 1) for change in facts.run(n).changes]
    return _none(
        list(dict.fromkeys(changes)), "put back what compile changes: it runs in the server, too", status=Status.WARNED
    )
