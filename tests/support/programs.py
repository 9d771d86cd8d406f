"""Random dispatch functions, and what they return by brute force.

`python programs.py SEED COUNT` is the soak: COUNT programs are traced and compared with a call at every point.
"""

import itertools
import linecache
import math
import random
import sys
from dataclasses import dataclass

from jitwarm import Choices, IntRange, encode_key, trace
from jitwarm.errors import DomainError, KeySpaceTooLargeError, TracingError


@dataclass(frozen=True)
class Key:
    a: object = None
    b: object = None


def helper_cdiv(a, b):
    return (a + b - 1) // b


def helper_bucket(n, step=64):
    """A helper with control flow of its own."""
    bucket = step
    while bucket < n and bucket < 4096:
        bucket *= 2
    return bucket if n > 0 else 0


def helper_pick(n, table):
    for limit, value in table:
        if n <= limit:
            return value
    return table[-1][1]


NUMBERS = [
    "({a} + {b})", "({a} - {b})", "({a} * {c})", "({a} + {c})", "({a} // {c})", "({a} % {c})", "({a} & {p})", "({a} & -{p})",
    "({a} | {p})", "({a} ^ {p})", "({a} >> {s})", "({a} << {s})", "(-{a})", "(~{a})", "abs({a})", "min({a}, {b})",
    "max({a}, {c})",
    "cdiv({a}, {p})", "bucket({a})", "int({a} / {c})", "math.ceil({a} / {p})", "math.floor({a} * 0.3)", "round({a} / {p})",
    "({a} if {t} else {b})", "sum(x for x in (1, 2, 30) if x < {a})", "len([t for t in (8, 32, 128) if {a} >= t])",
    "math.gcd({a}, {p})", "(w := {a})", "({a} * {b})", "sorted(({a}, {b}, {c}))[1]", "({a} ** 2)", "[{a}, {b}][{t}]", "(+{a})",
    "min((8, 32, 128), key=lambda t: abs(t - {a}))", "max({a}, 0).bit_length()", "divmod({a}, {c})[1]", "({a} // ({b} or 1))",
    "{{1: 5, 2: 6, 8: 7}}.get({a}, {c})", "dict(zip('ab', ({a}, {b})))['a']", "next((x for x in (4, 64) if x > {a}), {b})",
    "(cdiv({a}, {p}) * {p} - {a})", "({a} % ({b} % 5 + 1))", "math.isqrt(abs({a}))", "int(math.log2(max({a}, 1)))",
]  # fmt: skip
TESTS = [
    "{a} <= {c}", "{a} > {c}", "{a} == {c}", "{a} != {c}", "{a} < {b}", "{a} >= {b}", "{a} % 16 == 0", "({a} & 7) == 3",
    "{c} <= {a} < {d}", "{a} in (1, 8, 64)", "{a} in range(3, 90, 4)", "{a} not in {{16, 17}}", "{a} / 3 <= {c}", "dt is None",
    "dt == 1", "dt is not True", "dt in ('bf16', None)", "isinstance(dt, str)", "k in (1, 2)", "k > {e}", "self.is_small({a})",
    "{a} > self.limit", "pick({a}, TABLE) == 'm'", "any({a} > t for t in (8, 80))", "all(t < {a} for t in (2, 20))", "bool({a})",
    "type({a}) is int", "{a} & ({a} - 1) == 0", "{a} * 0.1 < {b} / 7",
]  # fmt: skip


class Owner:
    """Gives the generated method something to read."""

    limit = 96
    table = ((16, "s"), (64, "m"), (512, "l"))
    names = {0: "zero", 1: "one", 7: "seven"}

    def is_small(self, n):
        return n < self.limit


class Program:
    """One random program: its text, function, inputs, and the reason for each choice being one seed."""

    def __init__(self, seed, *, two_axes=None):
        self.seed = seed
        self._random = random.Random(seed)
        self._n_names = 0
        self._depth = 0
        r = self._random
        self.two_axes = r.random() < 0.3 if two_axes is None else two_axes
        self.inputs = self._make_inputs()
        self._ints = ["m", "k", *(["n"] if self.two_axes else [])]
        lines = self._block(r.randint(1, 5))
        lines.append(f"return Key({self._field()}, {self._field()})")
        body = "\n".join("    " + line for line in lines)
        arguments = ", ".join(["self", "*", *self.inputs])
        self.text = f"def dispatch({arguments}):\n{body}\n"
        self.function = self._compile()

    def _make_inputs(self):
        r = self._random
        start = r.choice([1, 1, 1, 0, -40])
        size = r.choice([90, 300, 500]) if not self.two_axes else r.choice([15, 30])
        step = r.choice([1, 1, 1, 3, 8])
        inputs = {"m": IntRange(start, start + size * step, step)}
        if self.two_axes:
            inputs["n"] = IntRange(r.choice([1, 0, -5]), r.choice([12, 30]))
        inputs["k"] = Choices(*r.sample([1, 2, 3, 6, 8], r.randint(1, 3)))
        inputs["dt"] = Choices(*r.sample([None, True, "bf16", "fp8", 1, 1.0], r.randint(1, 3)))
        return inputs

    def _compile(self):
        filename = f"<program {self.seed}>"
        linecache.cache[filename] = (len(self.text), None, self.text.splitlines(keepends=True), filename)
        scope = {
            "Key": Key,
            "math": math,
            "cdiv": helper_cdiv,
            "bucket": helper_bucket,
            "pick": helper_pick,
            "TABLE": Owner.table,
        }
        exec(compile(self.text, filename, "exec", dont_inherit=True), scope)
        return scope["dispatch"].__get__(Owner())

    # --- statements --------------------------------------------------------------------------------------------------

    def _block(self, n):
        self._depth += 1
        lines = []
        for _ in range(n):
            lines += self._statement()
        self._depth -= 1
        return lines or ["pass"]

    def _statement(self):
        r = self._random
        kinds = ["assign"] * 5 + ["if", "if", "augment", "unpack", "assert", "raise", "early"]
        if self._depth < 3:
            kinds += ["for", "while", "match", "for_range"]
        return getattr(self, f"_{r.choice(kinds)}")()

    def _new(self):
        self._n_names += 1
        return f"v{self._n_names}"

    def _assign(self):
        expression, name = self._number(3), self._new()
        self._ints.append(name)
        return [f"{name} = {expression}"]

    def _augment(self):
        names = [name for name in self._ints if name.startswith("v")]
        if not names or self._depth > 1:
            return self._assign()
        return [
            f"{self._random.choice(names)} {self._random.choice(['+=', '-=', '*=', '//='])} {self._random.randint(1, 9)}"
        ]

    def _unpack(self):
        first, second = self._number(2), self._number(2)
        a, b = self._new(), self._new()
        self._ints += [a, b]
        return [
            self._random.choice(
                [f"{a}, {b} = {first}, {second}", f"({a}, {b}) = divmod({first}, {self._random.randint(1, 70)})"]
            )
        ]

    def _if(self):
        known = list(self._ints)
        lines = [f"if {self._test(2)}:", *self._indented(self._random.randint(1, 2))]
        self._ints = list(known)
        if self._random.random() < 0.4:
            lines += [f"elif {self._test(1)}:", *self._indented(1)]
            self._ints = list(known)
        if self._random.random() < 0.5:
            lines += ["else:", *self._indented(1)]
            self._ints = list(known)
        return lines

    def _early(self):
        return [f"if {self._test(2)}:", f"    return Key({self._field()})"]

    def _assert(self):
        return [f"assert {self._test(1)} or m > 20, f'bad {{m}}'"]

    def _raise(self):
        return [f"if {self._test(1)} and m < 12:", "    raise ValueError(f'{m} is refused')"]

    def _for(self):
        known, name = list(self._ints), self._new()
        lines = [f"for {name} in {self._random.choice(['(16, 64, 256)', '[1, k, 40]', 'sorted((48, 3, 300))'])}:"]
        self._ints.append(name)
        lines += [f"    if {self._test(1)}:", f"        {self._random.choice(['break', 'continue', 'break'])}"]
        self._ints = known
        total = self._new()
        result = [f"{total} = 0", *lines, f"    {total} += {name}"]
        if self._random.random() < 0.5:
            result += ["else:", f"    {total} = -1"]
        self._ints.append(total)
        return result

    def _for_range(self):
        total, name = self._new(), self._new()
        bound = self._random.choice(["min(abs(m), 5)", "k", "len(TABLE)", "m % 4"])
        self._ints.append(total)
        return [
            f"{total} = 0",
            f"for {name} in range({bound}):",
            f"    {total} += {name} * {self._random.randint(1, 5)}",
        ]

    def _while(self):
        name = self._new()
        self._ints.append(name)
        bound = self._number(1)
        return [
            f"{name} = {self._random.randint(1, 4)}",
            f"while {name} < {bound} and {name} < 5000:",
            f"    {name} *= 2",
        ]

    def _match(self):
        r, known, name = self._random, list(self._ints), self._new()
        subject = r.choice(["dt", "k", f"({self._test(1)}, k)", "m % 4", "(k, dt)"])
        if subject.startswith("("):
            cases = ["(True, 1 | 2)", "(1, None)", "(_, 8)", "_"]
        else:
            cases = ["None", "True", "1 | 3", "'bf16'", f"x if {self._test(1)}", "_"]
        lines = [f"match {subject}:"]
        for number, case in enumerate(cases):
            lines += [f"    case {case}:", f"        {name} = {number}"]
        self._ints = [*known, name]
        return lines

    def _indented(self, n):
        return ["    " + line for line in self._block(n)]

    # --- expressions -------------------------------------------------------------------------------------------------

    def _number(self, depth):
        r = self._random
        if depth <= 0 or r.random() < 0.25:
            return r.choice([*self._ints, *self._ints, str(r.choice([1, 2, 3, 7, 16, 64, 100, -3]))])
        template = r.choice(NUMBERS)
        constant = r.choice([1, 2, 3, 7, 8, 16, 63, 64, -4, 100])
        return template.format(
            a=self._number(depth - 1), b=self._number(depth - 1) if "{b}" in template else "", c=constant, p=abs(constant),
            s=abs(constant) % 4, t=self._test(depth - 2) if "{t}" in template else "",
        )  # fmt: skip

    def _test(self, depth):
        r = self._random
        if depth > 0 and r.random() < 0.5:
            template = r.choice(["({x} and {y})", "({x} or {y})", "(not {x})", "({x} if {y} else {z})"])
            return template.format(x=self._test(depth - 1), y=self._test(depth - 1), z=self._test(depth - 2))
        template = r.choice(TESTS)
        constant = r.choice([0, 1, 5, 16, 33, 64, 128, 300])
        a = self._number(max(0, min(depth, 2)))
        return template.format(a=a, b=self._number(0), c=constant, d=constant * 2 + 1, e=constant % 5)

    def _field(self):
        r, a = self._random, self._number(2)
        name = r.choice(self._ints)
        fields = [
            f"min({a}, 8)", f"{a} % 4", self._test(2), "dt", "k", f"f'{{k}}-{{{name} % 3}}'", f"str({a} % 3)",
            f"pick({a}, TABLE)", f"bucket({a})", f"({self._test(1)}, k)", f"self.names.get(max(min({a}, 9), 0), 'other')",
            f"min(cdiv({a}, 64), 5)", f"float({a} > 9)", f"min(max({a}, 0), 2) / 4",
        ]  # fmt: skip
        return r.choice(fields)


def by_brute_force(program):
    """The texts of the keys at every point, or the class of the error that a point raises."""
    found = {}  # by repr, which is quicker than the canonical text and tells as much apart
    for values in itertools.product(*program.inputs.values()):
        try:
            key = program.function(**dict(zip(program.inputs, values, strict=True)))
            found[repr(key)] = key
        except (AssertionError, ValueError) as exc:
            last = exc.__traceback__
            while last.tb_next:
                last = last.tb_next
            is_own = last.tb_frame.f_code.co_filename == f"<program {program.seed}>" and isinstance(exc, AssertionError)
            if not is_own and "is refused" not in str(exc):
                return TracingError
        except Exception:  # noqa: BLE001 - a random program may do anything
            return TracingError
    return {encode_key(key) for key in found.values()} or DomainError


def by_tracing(program):
    """The same by `trace`."""
    try:
        return {encode_key(key) for key in trace(program.function, max_points=300_000, **program.inputs).keys}
    except KeySpaceTooLargeError:
        return KeySpaceTooLargeError
    except DomainError:
        return DomainError
    except TracingError:
        return TracingError


def check(seed):
    """Whether both agree for the program of a seed; "too large" agrees with everything. Returns a complaint or None."""
    program = Program(seed)
    traced = by_tracing(program)
    if traced is KeySpaceTooLargeError:
        return None
    expected = by_brute_force(program)
    if traced == expected:
        return None
    detail = f"expected {expected}, traced {traced}"
    if isinstance(traced, set) and isinstance(expected, set):
        detail = f"missing {sorted(expected - traced)}, extra {sorted(traced - expected)}"
    return f"seed {seed}: {detail}\n{program.text}inputs {program.inputs}"


if __name__ == "__main__":
    first, count = int(sys.argv[1]), int(sys.argv[2])
    n_bad = 0
    for seed in range(first, first + count):
        complaint = check(seed)
        linecache.cache.pop(f"<program {seed}>", None)
        if complaint:
            n_bad += 1
            print(complaint, flush=True)
        if (seed - first + 1) % 5000 == 0:
            print(f"{seed - first + 1} programs, {n_bad} disagreements", flush=True)
    print(f"{count} programs, {n_bad} disagreements")
    sys.exit(n_bad > 0)
