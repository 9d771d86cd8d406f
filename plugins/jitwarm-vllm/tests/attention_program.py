"""Run in a process of its own: vLLM's host functions, driven on meta tensors to the launch, against the declared keys.

    CUDA_VISIBLE_DEVICES="" python attention_program.py CASES TARGET SEED [WHEEL_DIRECTORY IMPORTS_DIRECTORY]

CASES are modules beside this file, with commas between, whose `cases()` give them by name. With directories, over the Python
files of a GPU wheel, else over the vLLM that is installed. Triton's `jit_cache_hook` answers every launch before it compiles,
with the key that Triton would file it under. Prints one JSON document: module -> case -> what was declared for each kernel, what
was asked for, and how many launches there were.
"""

import importlib
import json
import random
import re
import sys
import time
import traceback

if len(sys.argv) > 4:
    sys.path.insert(0, sys.argv[4])
    sys.path.append(sys.argv[5])

from jitwarm import Target
from jitwarm.backends._triton.adapter import TritonBackend
from jitwarm.contract.backend import TargetScope


class Launches:
    """While entered, every launch ends before its compile; `keys` holds Triton's key of each, by function name."""

    def __init__(self):
        self.keys = {}
        self.n = 0

    def __enter__(self):
        from triton import knobs

        knobs.runtime.jit_cache_hook = self._note
        return self

    def __exit__(self, *exc):
        from triton import knobs

        knobs.runtime.jit_cache_hook = None

    def _note(self, *, key, fn, **_):
        self.n += 1
        self.keys.setdefault(fn.name, {})[key] = None
        return True


def compared(case, target, seed):
    """One case: both sets, as lists of what only one of them has."""
    begun = time.perf_counter()
    config, kernels = case.config(), case.kernels()
    with TargetScope(target), TritonBackend().pin(target):
        declared = {}
        for kernel in kernels:
            keys = kernel.get_warmup_keys(config)
            assert not kernel.check_keys(keys), kernel.check_keys(keys)
            of_function = declared.setdefault(kernel.place[1], {})
            for key in keys:
                text = kernel.in_process_key(key)
                assert text not in of_function, f"two keys of {kernel.name} are one launch"
                of_function[text] = None
        listed_s = time.perf_counter() - begun
        with Launches() as launches:
            n_inputs = case.drive(config, target, random.Random(seed))  # noqa: S311 - inputs of a test
    others = getattr(case, "others", re.compile("$^"))
    for name in [name for name in launches.keys if others.search(name) and name not in declared]:
        del launches.keys[name]
    return {
        name: {
            "declared": len(declared.get(name, {})),
            "only_declared": sorted(declared.get(name, {}).keys() - launches.keys.get(name, {}).keys()),
            "only_asked": sorted(launches.keys.get(name, {}).keys() - declared.get(name, {}).keys()),
        }
        for name in sorted({*declared, *launches.keys})
    } | {"n_inputs": n_inputs, "n_launches": launches.n, "listed_s": round(listed_s, 2)}


def main():
    target, seed = Target.parse(sys.argv[2]), int(sys.argv[3])
    # All of vLLM is imported here: with the stand-in driver installed some of it would fail.
    modules = {name: importlib.import_module(name).cases() for name in sys.argv[1].split(",")}
    document = {}
    for module, cases in modules.items():
        found = document.setdefault(module, {})
        for name, case in cases.items():
            try:
                found[name] = compared(case, target, seed)
            except Exception:  # noqa: BLE001 - whatever it is belongs into the document
                found[name] = {"error": traceback.format_exc()[-3000:]}
    sys.stdout.write("\n" + json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
