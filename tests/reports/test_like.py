"""A configuration that was written down is one to begin with."""

import json

import pytest
from made_logs import make

from jitwarm.errors import UsageError
from jitwarm.reports.like import config_like
from jitwarm.settings import read

CONFIG = {"max_num_seqs": 77, "tp_size": 4, "attention": [{"n_heads": 8, "n_kv_heads": 2, "head_size": 64}]}


@pytest.mark.parametrize("wrapped", [False, True])
def test_of_a_file_bare_or_as_a_report_has_it(tmp_path, wrapped):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"config": CONFIG, "format": "jitwarm-report"} if wrapped else CONFIG))
    asked = read(like=config_like(str(file), tmp_path), assignments=["max_num_seqs=5"])
    assert (asked.config.max_num_seqs, asked.config.tp_size, asked.config.attention[0].head_size) == (5, 4, 64)


def test_of_a_run_the_first_ranks_and_not_a_builders(tmp_path):
    run = make(tmp_path / "events" / "run", n_ranks=2, config=CONFIG)
    builder = {"v": 1, "t_ns": 1, "mono_ns": 1, "pid": 1, "run": "made", "event": "config"}
    (run / "node1-1.jsonl").write_text(
        json.dumps({**builder, "config": {"max_num_seqs": 1, "has_layers": False}}) + "\n"
    )
    assert config_like("run", tmp_path)["max_num_seqs"] == 77


def test_a_models_path_is_left_out_where_there_is_none(tmp_path):
    """The start may have been on another machine."""
    file = tmp_path / "start.json"
    for place, kept in ((tmp_path, str(tmp_path)), ("/nonexistent/mixtral", "")):
        file.write_text(json.dumps({**CONFIG, "model": str(place)}))
        assert read(like=config_like(str(file), tmp_path)).config.model == kept


@pytest.mark.parametrize("text", ["[1]", "no json", '{"config": 3}'])
def test_a_file_without_one_is_refused(tmp_path, text):
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"config\.json"):
        config_like(str(file), tmp_path)
