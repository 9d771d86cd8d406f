"""Random dispatch functions, and what they return by brute force.

`python programs.py SEED COUNT` is the soak: COUNT programs are traced and compared with a call at every point.
"""

import itertools
import linecache
import random
import sys
import traceback
from collections import Counter

from vocabulary import CONDITIONS, NUMBERS, SCOPE, TESTS, Owner

from jitwarm import Choices, IntRange, encode_key, rows, trace
from jitwarm.errors import DomainError, KeySpaceTooLargeError, TracingError

OUTCOMES = Counter()


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
        lines.append(f"return {self._key()}")
        body = "\n".join("    " + line for line in lines)
        names = list(self.inputs)
        self.rows = self._make_rows()
        arguments = ", ".join(["self", "*", *names])
        self.text = f"def dispatch({arguments}):\n{body}\n"
        condition = r.choice(CONDITIONS) if r.random() < 0.25 else None
        if condition:
            self.text += f"def when({', '.join(names)}):\n    return {condition}\n"
        scope = self._compile()
        self.function, self.when = scope["dispatch"].__get__(Owner()), scope.get("when")

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
        if r.random() < 0.15:
            inputs["k"] = r.choice([1, 2, 8])
        return inputs

    def _make_rows(self):
        """Sometimes `k` and `dt`, perhaps with a part of `m`, vary together; a part of the inputs then moves into the rows."""
        r = self._random
        if r.random() > 0.2:
            return ()
        for name in ("k", "dt"):
            del self.inputs[name]
        table = r.sample(
            [{"k": 1, "dt": None}, {"k": Choices(2, 8), "dt": "bf16"}, {"k": 6, "dt": Choices(True, 1)}],
            r.randint(1, 3),
        )
        if r.random() < 0.5:
            whole = self.inputs.pop("m")
            middle = whole.start + len(range(whole.start, whole.stop, whole.step)) // 2 * whole.step
            parts = [IntRange(whole.start, middle, whole.step), IntRange(middle, whole.stop, whole.step)]
            table = [{**row, "m": r.choice([*parts, whole])} for row in table]
        return (rows(*table),)

    def points(self):
        """Every point of the domain."""
        table = self.rows[0] if self.rows else ({},)
        for row in table:
            spaces = {**row, **self.inputs}
            values = [list(space) if isinstance(space, IntRange | Choices) else [space] for space in spaces.values()]
            for point in itertools.product(*values):
                yield dict(zip(spaces, point, strict=True))

    def _compile(self):
        filename = f"<program {self.seed}>"
        linecache.cache[filename] = (len(self.text), None, self.text.splitlines(keepends=True), filename)
        scope = dict(SCOPE)
        exec(compile(self.text, filename, "exec", dont_inherit=True), scope)
        return scope

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
        kinds = ["assign"] * 5 + ["if", "if", "augment", "unpack", "assert", "raise", "early", "element", "star"]
        if self._depth < 3:
            kinds += ["for", "while", "match", "for_range", "nested", "forever", "kinds"]
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
        operator = self._random.choice(["+=", "-=", "*=", "//=", "%=", "&=", "|=", "^=", ">>=", "<<="])
        return [f"{self._random.choice(names)} {operator} {self._random.randint(1, 9)}"]

    def _unpack(self):
        first, second = self._number(2), self._number(2)
        a, b = self._new(), self._new()
        self._ints += [a, b]
        return [
            self._random.choice(
                [f"{a}, {b} = {first}, {second}", f"({a}, {b}) = divmod({first}, {self._random.randint(1, 70)})"]
            )
        ]

    def _element(self):
        """Augmented assignment to an element of a dict or list."""
        r, name = self._random, self._new()
        a, b, op = self._number(1), self._number(2), r.choice(["+=", "-=", "*=", "|="])
        self._ints.append(name)
        if r.random() < 0.5:
            return [
                f"{name}d = {{'x': {a}, 'y': 1}}",
                f"{name}d['x'] {op} {b}",
                f"{name} = {name}d['x'] + {name}d['y']",
            ]
        grown = [f"{name}l.append({self._number(1)})"] if r.random() < 0.3 else []
        return [
            f"{name}l = [{a}, 2, k]",
            f"{name}l[{r.choice(['0', 'k % 3', '-1'])}] {op} {b}",
            *grown,
            f"{name} = sum({name}l[:4])",
        ]

    def _star(self):
        a, b = self._number(2), self._number(1)
        first, rest = self._new(), self._new()
        self._ints += [first, rest]
        return [f"{first}, *{rest}l = ({a}, {b}, k)", f"{rest} = {rest}l[-1] + len({rest}l)"]

    def _nested(self):
        """A helper inside, with control flow, a default and a closure."""
        r, name, seen = self._random, self._new(), self._random.choice(self._ints)
        decorator = ["@functools.cache"] if r.random() < 0.3 else []
        step = r.choice(["return x + y", f"return x - {seen}", "x = x // 2"])
        lines = [
            *decorator,
            f"def {name}h(x, y={r.randint(1, 9)}):",
            f"    if x > {seen}:",
            f"        {step}",
            "    return y if x else -y",
        ]
        lines.append(f"{name} = {name}h({self._number(2)})")
        self._ints.append(name)
        return lines

    def _forever(self):
        name = self._new()
        bound = self._number(1)
        self._ints.append(name)
        return [
            f"{name} = {self._random.randint(1, 9)}",
            "while True:",
            f"    {name} += {self._random.choice([7, 40])}",
            f"    if {name} >= {bound} or {name} > 300:",
            "        break",
        ]

    def _kinds(self):
        """`match` by class and by mapping."""
        name = self._new()
        cases = self._random.choice(
            [("dt", ["str()", "bool()", "int(x)", "_"]), ("{'k': k, 'd': dt}", ["{'k': 1}", "{'d': None}", "_"])]
        )
        self._ints.append(name)
        lines = [f"match {cases[0]}:"]
        for number, case in enumerate(cases[1]):
            lines += [f"    case {case}:", f"        {name} = {number}"]
        return lines

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
        return [f"if {self._test(2)}:", f"    return {self._key()}"]

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
        text = template.format(
            a=self._number(depth - 1), b=self._number(depth - 1) if "{b}" in template else "", c=constant, p=abs(constant),
            s=abs(constant) % 4, t=self._test(depth - 2) if "{t}" in template else "",
        )  # fmt: skip
        # Python's grammar has no walrus in what a comprehension iterates over.
        return (
            text.replace("w := ", "")
            if " in (1, {a})" in template or "zip((" in template or "enumerate((" in template
            else text
        )

    def _test(self, depth):
        r = self._random
        if depth > 0 and r.random() < 0.5:
            template = r.choice(["({x} and {y})", "({x} or {y})", "(not {x})", "({x} if {y} else {z})"])
            return template.format(x=self._test(depth - 1), y=self._test(depth - 1), z=self._test(depth - 2))
        template = r.choice(TESTS)
        constant = r.choice([0, 1, 5, 16, 33, 64, 128, 300])
        a = self._number(max(0, min(depth, 2)))
        return template.format(a=a, b=self._number(0), c=constant, d=constant * 2 + 1, e=constant % 5)

    def _key(self):
        a, b = self._field(), self._field()
        forms = [
            "Key({a}, {b})",
            "Key({a}, {b})",
            "Key({a})",
            "Key(b={b}, a={a})",
            "Key({a}, b={b})",
            "Key(**{{'a': {a}, 'b': {b}}})",
        ]
        return self._random.choice(forms).format(a=a, b=b)

    def _field(self):
        r, a = self._random, self._number(2)
        name = r.choice(self._ints)
        fields = [
            f"min({a}, 8)", f"{a} % 4", self._test(2), "dt", "k", f"f'{{k}}-{{{name} % 3}}'", f"str({a} % 3)",
            f"pick({a}, TABLE)", f"bucket({a})", f"({self._test(1)}, k)", f"self.names.get(max(min({a}, 9), 0), 'other')",
            f"min(cdiv({a}, 64), 5)", f"float({a} > 9)", f"min(max({a}, 0), 2) / 4",
            f"mode_of({a})", f"({a} % 3 - 1) * 0.0", f"({a} % 2 - 1) * 0.0 * (m % 3 + 1)", f"tuple(t for t in (1, 9) if t < {a})",
        ]  # fmt: skip
        return r.choice(fields)


def by_brute_force(program):
    """The texts of the keys at every point, or the class of the error that a point raises."""
    found = {}  # by repr, which is quicker than the canonical text and tells as much apart
    for point in program.points():
        try:
            if program.when and not program.when(**point):
                continue
            key = program.function(**point)
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


def _trace(program):
    return trace(program.function, *program.rows, when=program.when, max_points=300_000, **program.inputs)


def by_tracing(program):
    """The same by `trace`."""
    try:
        return {encode_key(key) for key in _trace(program).keys}
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
    OUTCOMES["keys" if isinstance(traced, set) else traced.__name__] += 1
    if traced is KeySpaceTooLargeError:
        return None
    expected = by_brute_force(program)
    if traced == expected:
        return None
    detail = f"expected {expected}, traced {traced}"
    if isinstance(traced, set) and isinstance(expected, set):
        detail = f"missing {sorted(expected - traced)}, extra {sorted(traced - expected)}"
    return f"seed {seed}: {detail}\n{program.text}inputs {program.inputs} {program.rows}"


if __name__ == "__main__":
    first, count = int(sys.argv[1]), int(sys.argv[2])
    n_bad = 0
    for seed in range(first, first + count):
        try:
            complaint = check(seed)
        except Exception:  # noqa: BLE001 - a soak goes on
            complaint = f"seed {seed}: {traceback.format_exc()}"
        linecache.cache.pop(f"<program {seed}>", None)
        if complaint:
            n_bad += 1
            print(complaint, flush=True)
        if (seed - first + 1) % 5000 == 0:
            print(f"{seed - first + 1} programs, {n_bad} disagreements", flush=True)
    print(f"{count} programs, {n_bad} disagreements; traced to {dict(OUTCOMES)}")
    sys.exit(n_bad > 0)
