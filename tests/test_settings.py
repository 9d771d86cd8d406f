"""Settings and configuration: who wins, and what a slip says."""

from pathlib import Path

import pytest

from jitwarm import AttentionGroup
from jitwarm.errors import SettingsError
from jitwarm.settings import Settings, matches, read, read_leniently


@pytest.fixture
def toml(tmp_path):
    """Write a configuration file."""

    def write(text):
        file = tmp_path / "warm.toml"
        file.write_text(text)
        return file

    return write


def refused(*args, **kwargs):
    with pytest.raises(SettingsError) as caught:
        read(*args, **{"environ": {}, **kwargs})
    return caught.value


def test_nothing_given_is_all_defaults():
    asked = read(environ={})
    assert asked.settings == Settings()
    assert asked.config.max_num_seqs == 256


def test_call_beats_variable_beats_file_beats_default(toml):
    file = toml('[settings]\ntarget = "cuda:80"\nlock_timeout_s = 5\n')
    variable = {"JITWARM_TARGET": "cuda:90"}
    assert read(environ={}).settings.target is None
    assert read(file, environ={}).settings.target == "cuda:80"
    assert read(file, environ=variable).settings.target == "cuda:90"
    assert read(file, environ=variable, target="cuda:100").settings.target == "cuda:100"
    assert read(file, environ=variable, target=None).settings.target == "cuda:90"
    assert read(file, environ=variable).settings.lock_timeout_s == 5


def test_set_beats_the_file(toml):
    asked = read(toml("max_num_seqs = 8\ntp_size = 2\n"), ["max_num_seqs=64"], environ={})
    assert (asked.config.max_num_seqs, asked.config.tp_size) == (64, 2)


def test_a_file_holds_fields_settings_and_each_plugins_own_values(toml):
    text = """
        dtype = "float16"
        cudagraph_capture_sizes = [1, 2, 4]
        [[attention]]
        n_heads = 32
        n_kv_heads = 8
        head_size = 128
        [settings]
        plugins = ["example"]
        [extra.example]
        hidden_sizes = [4096]
    """
    asked = read(toml(text), environ={})
    assert asked.config.dtype == "float16"
    assert asked.config.cudagraph_capture_sizes == (1, 2, 4)
    assert asked.config.attention == (AttentionGroup(32, 8, 128),)
    assert asked.settings.plugins == ("example",)
    assert asked.config.for_plugin("example") == {"hidden_sizes": [4096]}


# --- slips in a file ---------------------------------------------------------------------------------------------------


def test_a_misspelt_field_is_told_with_file_line_and_nearest_name(toml):
    file = toml('dtype = "float16"\n\nmax_num_seq = 4\n')
    error = refused(file)
    assert "unknown name 'max_num_seq'" in error.message
    assert error.where == f"{file}:3"
    assert "'max_num_seqs'" in error.hint


def test_a_misspelt_setting_is_told_with_file_line_and_nearest_name(toml):
    file = toml('[settings]\ncache_dri = "/x"\n')
    error = refused(file)
    assert "[settings] 'cache_dri'" in error.message
    assert error.where == f"{file}:2"
    assert "'cache_dir'" in error.hint


def test_the_line_is_that_of_the_section_that_holds_the_slip(toml):
    file = toml('dtype = "float16"\n[settings]\ndtype = "float16"\n')
    assert refused(file).where == f"{file}:3"


def test_a_misspelt_section_is_told_with_the_nearest_name(toml):
    file = toml('[setings]\ncache_dir = "/x"\n')
    error = refused(file)
    assert error.where == f"{file}:1"
    assert "settings" in error.hint.replace("setings", "")


@pytest.mark.parametrize(
    ("table", "wrong", "right"), [("attention", "sliding_windw", "sliding_window"), ("moe", "topk", "top_k")]
)
def test_a_misspelt_name_in_a_layer_is_not_passed_over(toml, table, wrong, right):
    whole = {
        "attention": "n_heads = 32\nn_kv_heads = 8\nhead_size = 128\n",
        "moe": "n_experts = 8\nn_local_experts = 8\ntop_k = 2\nhidden_size = 64\nintermediate_size = 64\n",
    }
    assert right in str(refused(toml(f"[[{table}]]\n{whole[table]}{wrong} = 4096\n")))


def test_a_plugins_own_name_at_the_top_is_told_where_it_goes(toml):
    assert "[extra.<plugin>]" in refused(toml("hidden_sizes = [4096]\n")).hint


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('max_num_seqs = "many"\n', ["max_num_seqs", "expected `int`", "`str`"]),
        ("dtype = 16\n", ["dtype", "expected `str`"]),
        ("cudagraph_capture_sizes = [1, 2.5]\n", ["cudagraph_capture_sizes[1]", "expected `int`"]),
        ("[[attention]]\nn_heads = 32\n", ["attention[0]", "n_kv_heads"]),
        ('[settings]\nplugins = "example"\n', ["plugins", "expected `array"]),
        ("[settings]\nmanage_caches = 1\n", ["manage_caches", "expected `bool`"]),
    ],
)
def test_a_value_of_the_wrong_type_is_told_with_its_name_and_the_file(toml, text, names):
    file = toml(text)
    error = refused(file)
    assert all(name in error.message for name in names)
    assert str(file) in error.where


@pytest.mark.parametrize(
    "text", ["[extra]\nhidden_sizes = [4096]\n", "extra = 3\n", "settings = 3\n", "[extra]\nexample = 1\n"]
)
def test_a_value_where_a_table_belongs_is_told_and_not_a_traceback(toml, text):
    file = toml(text)
    assert str(file) in refused(file).where


@pytest.mark.parametrize("text", ["max_num_seqs = \n", "[settings\n", "a = 1\na = 2\n"])
def test_a_file_that_is_no_toml_is_told_with_its_line(toml, text):
    file = toml(text)
    error = refused(file)
    assert f"{file} is no TOML" in error.message
    assert "line" in error.message


def test_a_file_of_bytes_is_no_toml(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    assert "is no TOML" in refused(tmp_path / "x.toml").message


def test_a_missing_file_is_told(tmp_path):
    assert str(refused(tmp_path / "none.toml")).startswith(f"cannot read {tmp_path / 'none.toml'}: No such file")


# --- slips in --set ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("max_num_seqs=64", "max_num_seqs", 64),
        (" max_num_seqs = 64", "max_num_seqs", 64),
        ("dtype=float16", "dtype", "float16"),
        ('dtype="float16"', "dtype", "float16"),
        ("cudagraph_capture_sizes=[1, 2]", "cudagraph_capture_sizes", (1, 2)),
        ("quantization=fp8=x", "quantization", "fp8=x"),
    ],
)
def test_a_value_is_toml_and_else_text(text, name, value):
    assert getattr(read(None, [text], environ={}).config, name) == value


def test_a_plugins_own_value_is_set_by_its_name_over_the_files(toml):
    file = toml("[extra.example]\nhidden_sizes = [1]\nfast = true\n")
    config = read(file, ["example.hidden_sizes=[4096]", "other.mode=fast"], environ={}).config
    assert config.extra == {"example": {"hidden_sizes": [4096], "fast": True}, "other": {"mode": "fast"}}


def test_a_misspelt_assignment_is_quoted_with_the_nearest_name():
    error = refused(None, ["max_num_seq=64"])
    assert error.where == "--set max_num_seq=64"
    assert "'max_num_seqs'" in error.hint


@pytest.mark.parametrize("text", ["max_num_seqs", "=64", ""])
def test_an_assignment_without_name_or_value_is_refused(text):
    assert "--set name=value" in refused(None, [text]).hint


def test_an_assignment_of_the_wrong_type_is_not_put_down_to_the_file(toml):
    file = toml("max_num_seqs = 8\n")
    error = refused(file, ["max_num_seqs=many"])
    assert "expected `int`" in error.message
    assert str(file) not in error.where


@pytest.mark.parametrize("text", ["extra={example={fast=true}}", "extra.example.fast=true", "settings.target=cuda:90"])
def test_an_assignment_is_taken_or_refused_and_never_passed_over(text):
    try:
        asked = read(None, [text], environ={})
    except SettingsError:
        return
    assert asked.config.for_plugin("example") == {"fast": True} or asked.settings.target == "cuda:90"


# --- variables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Settings()),
        ({"JITWARM_CACHE_DIR": "/x", "JITWARM_RUN_ID": "r"}, Settings(cache_dir="/x", run_id="r")),
        ({"JITWARM_CACHE_DIR": "", "JITWARM_TARGET": ""}, Settings()),
        ({"JITWARM_PLUGINS": ""}, Settings(plugins=())),
        ({"JITWARM_PLUGINS": "example, site-*,"}, Settings(plugins=("example", "site-*"))),
        ({"JITWARM_DISABLE": "1"}, Settings(disable=("*",))),
        ({"JITWARM_DISABLE": "ALL"}, Settings(disable=("*",))),
        ({"JITWARM_DISABLE": "true"}, Settings(disable=("*",))),
        ({"JITWARM_DISABLE": ""}, Settings()),
        ({"JITWARM_DISABLE": "0"}, Settings()),
        ({"JITWARM_DISABLE": "example,*:gemm"}, Settings(disable=("example", "*:gemm"))),
        ({"JITWARM_MANAGE_CACHES": "0"}, Settings(manage_caches=False)),
        ({"JITWARM_LOCK_TIMEOUT_S": "2.5"}, Settings(lock_timeout_s=2.5)),
        ({"JITWARM_POLICY": "strict"}, Settings(policy="strict")),
        ({"JITWARM_POLICY": "warn"}, Settings()),
        ({"JITWARM_ISOLATE": "0"}, Settings(isolate=False)),
        ({"JITWARM_ISOLATE": "on", "JITWARM_ADOPT": "1"}, Settings()),
        ({"JITWARM_ADOPT": "No"}, Settings(adopt=False)),
        ({"JITWARM_VERBOSE": "true"}, Settings(verbose=True)),
        ({"JITWARM_TIME_BUDGET_S": "120"}, Settings(time_budget_s=120.0)),
        ({"JITWARM_TIME_BUDGET_S": "0"}, Settings(time_budget_s=0.0)),
        ({"JITWARM_TIME_BUDGET_S": ""}, Settings()),
        ({"JITWARM_KEY_TIMEOUT_S": "9.5"}, Settings(key_timeout_s=9.5)),
        ({"JITWARM_PLAN_TIMEOUT_S": "5"}, Settings(plan_timeout_s=5.0)),
    ],
)
def test_what_a_variable_sets(environ, expected):
    assert read(environ=environ).settings == expected


SLIPS = [
    ("JITWARM_MANAGE_CACHES", "maybe"),
    ("JITWARM_LOCK_TIMEOUT_S", "soon"),
    ("JITWARM_LOCK_TIMEOUT_S", "nan"),
    ("JITWARM_POLICY", "stirct"),
    ("JITWARM_ISOLATE", "2"),
    ("JITWARM_ADOPT", "maybe"),
    ("JITWARM_VERBOSE", "loud"),
    ("JITWARM_TIME_BUDGET_S", "-1"),
    ("JITWARM_TIME_BUDGET_S", "inf"),
    ("JITWARM_KEY_TIMEOUT_S", "1min"),
    ("JITWARM_PLAN_TIMEOUT_S", "nan"),
]


@pytest.mark.parametrize(("name", "value"), SLIPS)
def test_a_variable_that_cannot_be_read_is_quoted(name, value):
    error = refused(environ={name: value})
    assert f"{name}={value}" in error.message
    assert error.hint


@pytest.mark.parametrize("name", ["lock_timeout_s", "time_budget_s", "key_timeout_s", "plan_timeout_s"])
@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
def test_a_time_in_a_file_is_0_seconds_or_more(toml, name, value):
    file = toml(f"[settings]\n{name} = {value}\n")
    error = refused(file)
    assert f"{name}: " in error.message
    assert error.where == f"{file}:2"


# --- a server's own settings: it starts, whatever they are -------------------------------------------------------------


def lenient(given=None, **environ):
    return read_leniently(given or {}, environ=environ)


def test_a_server_that_is_given_nothing_has_all_defaults_and_no_complaint():
    asked, problems = lenient()
    assert asked == read(environ={})
    assert problems == []


@pytest.mark.parametrize(("name", "value"), SLIPS)
def test_a_variable_that_cannot_be_read_is_one_sentence_and_the_others_count(name, value):
    asked, (problem,) = lenient(**{name: value, "JITWARM_RUN_ID": "mine"})
    assert f"{name}={value}: left out (give " in problem
    assert asked.settings == Settings(run_id="mine")


def test_additional_values_win_over_variables():
    given = {"policy": "strict", "time_budget_s": 30, "isolate": False, "plugins": ["site"]}
    asked, problems = lenient(given, JITWARM_POLICY="warn", JITWARM_TIME_BUDGET_S="60", JITWARM_RUN_ID="mine")
    expected = Settings(policy="strict", time_budget_s=30.0, isolate=False, plugins=("site",), run_id="mine")
    assert asked.settings == expected
    assert problems == []


def test_a_variable_counts_where_the_additional_value_is_left_out():
    asked, (problem,) = lenient({"policy": "stirct"}, JITWARM_POLICY="strict")
    assert asked.settings.policy == "strict"
    assert "stirct" in problem


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ({"time_budget": 60}, ["unknown name 'time_budget'", "'time_budget_s'"]),
        ({"polcy": "strict"}, ["unknown name 'polcy'", "'policy'"]),
        ({"zzz": 1}, ["unknown name 'zzz'", "known: cache_dir"]),
        ({"key_timeout_s": -1}, ["key_timeout_s", "-1"]),
        ({"plan_timeout_s": "soon"}, ["plan_timeout_s", "expected `float`"]),
        ({"isolate": "no"}, ["isolate", "expected `bool`"]),
        ({"plugins": "site"}, ["plugins", "expected `array"]),
        ({"policy": "fail"}, ["policy", "fail"]),
    ],
)
def test_an_additional_value_that_cannot_be_used_is_one_sentence_and_the_others_count(given, texts):
    asked, (problem,) = lenient({**given, "run_id": "mine"})
    assert all(text in problem for text in [*texts, "left out"])
    assert asked.settings == Settings(run_id="mine")


def test_every_slip_is_told_on_its_own():
    _, problems = lenient({"polcy": "strict", "isolate": "no"}, JITWARM_ADOPT="maybe")
    assert len(problems) == 3
    assert all("\n" not in problem for problem in problems)


def test_extra_is_each_plugins_own_and_nothing_else_of_the_configuration():
    asked, problems = lenient({"extra": {"example": {"hidden_sizes": [4096]}}})
    assert asked.config.extra == {"example": {"hidden_sizes": [4096]}}
    assert (asked.settings, problems) == (Settings(), [])


@pytest.mark.parametrize("extra", [3, ["example"], "example", {"example": 1}, {"hidden_sizes": [4096]}])
def test_extra_that_is_no_table_of_tables_is_one_sentence(extra):
    asked, (problem,) = lenient({"extra": extra, "run_id": "mine"})
    assert "extra" in problem
    assert "left out" in problem
    assert (asked.config.extra, asked.settings.run_id) == ({}, "mine")


@pytest.mark.parametrize("extra", [None, {}])
def test_no_extra_is_no_slip(extra):
    assert lenient({"extra": extra})[1] == []


def test_what_is_given_is_not_changed_and_not_shared():
    given = {"extra": {"example": {"fast": True}}}
    asked, _ = lenient(given)
    asked.config.extra["example"]["fast"] = False
    assert given == {"extra": {"example": {"fast": True}}}


# --- where the store is ------------------------------------------------------------------------------------------------


def test_variables_of_the_process_are_read_unless_others_are_given(monkeypatch):
    monkeypatch.setenv("JITWARM_RUN_ID", "mine")
    assert read().settings.run_id == "mine"
    assert read(environ={}).settings.run_id == ""


def test_the_root_is_what_was_named_else_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert Settings().root == tmp_path / ".cache" / "jitwarm"
    assert Settings(cache_dir="~/x").root == tmp_path / "x"
    assert Settings(cache_dir="x").root == Path.cwd() / "x"


def test_plugins_are_admitted_by_glob_and_case_counts():
    assert Settings().admits_plugin("anything")
    assert not Settings(plugins=()).admits_plugin("anything")
    assert matches("site-a", ["x", "site-*"])
    assert not matches("Site-a", ["site-*"])
