"""Bad input: one clear sentence with the place and what would have been right, the documented code, and no traceback."""

import kits
import pytest

TINY = """
from dataclasses import dataclass
from jitwarm import IntRange, Outcome, hookimpl, trace_dispatch

class Tiny:
    name = "scale"

    @dataclass(frozen=True)
    class CompileKey:
        n: object

    def dispatch(self, *, n):
        return self.CompileKey({value})

    def get_warmup_keys(self, config):
        return trace_dispatch(self.dispatch, n={space})

    def compile(self, key):
        return Outcome.COMPILED

@hookimpl
def jitwarm_kernels():
    return [Tiny()]

@hookimpl
def jitwarm_compile():
    return Outcome.LOADED
"""
CUDA90 = ("--target", "cuda:90")


def tiny(site, value="n", space="IntRange(1, 3)"):
    """A package with one kernel, and a policy that answers before any compiler is asked."""
    kits.install(site, "tiny", TINY.format(value=value, space=space))


def said(done):
    """Everything that was printed, on one line: tables wrap."""
    text = " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in text, done.stderr
    return text


def refused(done, code, *words):
    """Check the code, and that stderr alone is one message of ours with these words in it."""
    text = said(done)
    assert done.returncode == code, text
    assert done.stdout == ""
    assert done.stderr.startswith("jitwarm: ")
    assert len(done.stderr.splitlines()) <= 3  # what, where, what would have been right
    for word in words:
        assert word in text


def test_good_input_is_exit_0_and_a_report(cli, site):
    tiny(site)
    done = cli("warm", *CUDA90)
    assert done.returncode == 0, done.stderr
    assert "tiny:scale" in done.stdout
    assert "all warm: 2 of 2 keys" in said(done)


@pytest.mark.parametrize(
    ("target", "right"),
    [
        ("cuda:90a", "write 'cuda:90'"),
        ("cuda:9.0", "write 'cuda:90'"),
        ("sm_90", "write 'cuda:90'"),
        ("gfx942", "write 'hip:gfx942'"),
        ("nonsense", "'cuda:90' (10 * major + minor) or an AMD target as 'hip:gfx942'"),
    ],
)
def test_an_unknown_target_is_told_the_right_spelling(cli, target, right):
    refused(cli("plan", "--target", target), 2, f"unknown target '{target}'", right)


@pytest.mark.parametrize("command", ["plugins", "warm", "doctor", "bake --out x"])
def test_an_unknown_target_is_a_usage_error_of_every_command(cli, tmp_path, command):
    refused(cli(*command.split(), "--target", "sm_90"), 2, "unknown target 'sm_90'", "write 'cuda:90'")
    assert not (tmp_path / "x").exists()


def test_an_unknown_target_in_the_environment_is_told_too(cli):
    refused(cli("plan", JITWARM_TARGET="sm_90"), 2, "unknown target 'sm_90'", "write 'cuda:90'")


def test_no_target_at_all_is_told_how_to_name_one(cli):
    refused(cli("plan"), 2, "no target", "--target cuda:90", "JITWARM_TARGET")


@pytest.mark.parametrize("command", ["plan", "warm"])
def test_a_kernel_glob_that_matches_nothing_is_told_the_kernels(cli, site, command):
    tiny(site)
    refused(cli(command, *CUDA90, "--kernel", "tiny:scael"), 2, "no kernel matches 'tiny:scael'", "tiny:scale")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('dtype = "float16"\nmax_num_seq = 4\n', ":2", ["unknown name 'max_num_seq'", "did you mean 'max_num_seqs'"]),
        ("[settings]\ncache_dri = 4\n", ":2", ["'cache_dri'", "did you mean 'cache_dir'"]),
        ("max_num_seqs = \n", "", ["is no TOML", "line 1"]),
        ('max_num_seqs = "x"\n', "", ["max_num_seqs: expected `int`, got `str`"]),
        ("[extra]\nhidden_sizes = [4096]\n", "", ["hidden_sizes"]),
    ],
)
def test_a_slip_in_a_file_is_told_with_its_place(cli, tmp_path, text, place, words):
    (tmp_path / "warm.toml").write_text(text)
    refused(cli("plan", *CUDA90, "--config", "warm.toml"), 2, f"warm.toml{place}", *words)


def test_a_missing_file_is_told(cli):
    refused(cli("plan", *CUDA90, "--config", "none.toml"), 2, "cannot read none.toml")


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("max_num_seq=4", ["--set max_num_seq=4", "did you mean 'max_num_seqs'"]),
        ("max_num_seqs=x", ["max_num_seqs: expected `int`", "--set"]),
        ("max_num_seqs", ["write --set name=value"]),
    ],
)
def test_a_slip_in_set_is_told(cli, assignment, words):
    refused(cli("plan", *CUDA90, "--set", assignment), 2, *words)


@pytest.mark.parametrize("arguments", [["plam"], ["plan", "--targte", "cuda:90"], ["bake", *CUDA90]])
def test_an_unknown_command_or_option_or_a_missing_one_is_a_usage_error(cli, arguments):
    done = cli(*arguments)
    assert done.returncode == 2
    assert said(done)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[n]", ["tiny:scale", "CompileKey.n holds a list: [1]", "store a tuple"]),
        ("{n}", ["CompileKey.n holds a set: {1}", "store a frozenset"]),
        ("__import__('torch').zeros(n)", ["CompileKey.n holds a tensor (torch.Tensor)", "dtype_name(x.dtype)"]),
    ],
)
def test_a_key_that_is_no_data_fails_its_kernel_with_the_field_and_what_to_store(cli, site, value, words):
    tiny(site, value)
    done = cli("plan", *CUDA90)
    assert done.returncode == 1
    assert all(word in said(done) for word in words)


@pytest.mark.parametrize("space", ["IntRange(8192, 0, -1)", "IntRange(1, 8193, -1)"])
def test_a_domain_with_a_negative_step_fails_its_kernel_with_a_range_that_works(cli, site, space):
    tiny(site, space=space)
    done = cli("plan", *CUDA90)
    assert done.returncode == 1
    assert "tiny:scale" in said(done)
    assert "step must be 1 or more" in said(done)
    assert "e.g. IntRange(1, 819" in said(done)


def test_a_division_by_zero_in_dispatch_is_told_with_inputs_and_line(cli, site):
    tiny(site, "64 // (n - 2)")
    done = cli("warm", *CUDA90, "--json")
    (key,) = kits.json_of(done)["kernels"][0]["keys"]
    assert done.returncode == 1
    assert key["outcome"] == "failed"
    assert "dispatch(n=2) failed: ZeroDivisionError" in key["error"]
    assert f"{site}/tiny.py:13" in key["error"]


def test_an_unfrozen_key_is_a_refused_plugin_and_an_empty_plan(cli, site):
    kits.install(site, "tiny", TINY.format(value="n", space="1").replace("frozen=True", "frozen=False"))
    done = cli("warm", *CUDA90)
    assert done.returncode == 1
    assert "plugin refused tiny (tiny 1.0)" in said(done)
    assert "put @dataclass(frozen=True) on Tiny.CompileKey" in said(done)


@pytest.mark.parametrize(
    ("arguments", "variables", "remedy"),
    [
        (["warm"], {"JITWARM_CACHE_DIR": "file/store"}, "JITWARM_CACHE_DIR"),
        (["bake", "--out", "file/store"], {}, "--out"),
    ],
)
def test_a_store_that_cannot_be_written_is_exit_4_with_what_to_change(
    cli, site, tmp_path, arguments, variables, remedy
):
    tiny(site)
    (tmp_path / "file").write_text("")
    refused(cli(*arguments, *CUDA90, **variables), 4, "file/store", "Not a directory", remedy)


def test_a_store_of_a_newer_format_is_exit_4(cli, site, tmp_path):
    tiny(site)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "STORE.json").write_text('{"schema": 99}')
    refused(cli("bake", *CUDA90, "--out", "out"), 4, "has format 99", "name another directory")


def test_a_disabled_kernel_is_skipped_and_only_strict_minds(cli, site):
    tiny(site)
    kits.install(site, "tiny_other", TINY.format(value="n", space="1"))
    for options, code in ((), 0), (("--strict",), 1):
        done = cli("warm", *CUDA90, *options, JITWARM_DISABLE="tiny_other:*")
        assert done.returncode == code
        assert "disabled by JITWARM_DISABLE" in said(done)


@pytest.mark.parametrize("command", ["plugins", "plan", "warm", "bake --out out", "doctor"])
def test_json_is_one_document_on_stdout_whatever_went_wrong(cli, site, command):
    tiny(site, "[n]")
    kits.install(site, "broken", "raise OSError('no [driver]')")
    done = cli(*command.split(), *CUDA90, "--json")
    assert isinstance(kits.json_of(done), dict)
    assert "no [driver]" in done.stdout
