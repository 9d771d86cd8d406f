"""One store directory: private, of a known format, and never half written."""

import json
import os
import stat
from dataclasses import asdict, replace

import pytest

from jitwarm.errors import LockTimeoutError, StoreError
from jitwarm.store import Entry, Store


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    made.settle()
    return made


def entry_of(store, **files):
    """An entry over files that are written under the store."""
    paths = []
    for name, content in files.items():
        path = store.root / "objects" / "an-entry" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        paths.append(path)
    return Entry("f" * 64, "p:k", "{}", "cuda:90", "triton 3.9.0", store.digests(paths), 1.5)


def names_in(store):
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())


def test_a_new_store_is_private_and_says_its_format_and_place(tmp_path):
    store = Store(tmp_path / "a" / "store")
    store.settle()
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    assert json.loads((store.root / "STORE.json").read_text()) == {"schema": 1, "root": str(store.root)}
    assert Store(store.root).moved_from is None


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o722])
def test_a_store_that_others_can_write_is_refused_with_the_remedy(store, mode):
    store.root.chmod(mode)
    with pytest.raises(StoreError, match=f"can be written by others \\(mode {mode:o}\\)") as caught:
        Store(store.root)
    assert caught.value.hint == f"chmod go-w {store.root}"


def test_a_directory_of_somebodys_own_that_others_can_write_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    tmp_path.chmod(0o777)
    with pytest.raises(StoreError, match="written by others"):
        Store(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o777
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_store_that_others_can_read_is_fine(store):
    store.root.chmod(0o755)
    assert Store(store.root).moved_from is None


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1', "[]", "3", "\x00" * 64])
def test_a_damaged_format_file_is_refused_by_name(store, text):
    (store.root / "STORE.json").write_text(text)
    with pytest.raises(StoreError, match=r"STORE\.json"):
        Store(store.root)


@pytest.mark.parametrize("schema", [2, 0, "1", None])
def test_a_store_of_another_format_is_refused_with_both_numbers(store, schema):
    (store.root / "STORE.json").write_text(json.dumps({"schema": schema, "root": str(store.root)}))
    with pytest.raises(StoreError, match=f"has format {schema}, this jitwarm writes 1"):
        Store(store.root)


def test_a_store_that_was_moved_knows_where_it_was_until_it_has_settled(store, tmp_path):
    moved = store.root.rename(tmp_path / "elsewhere")
    assert Store(moved).moved_from == tmp_path / "store"
    assert Store(moved).moved_from == tmp_path / "store"
    Store(moved).settle()
    assert Store(moved).moved_from is None


def test_a_place_below_a_file_is_refused_with_what_to_set(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Not a directory") as caught:
        Store(tmp_path / "file" / "store")
    assert "JITWARM_CACHE_DIR" in caught.value.hint


def test_what_is_published_is_found_again_by_another_process_view(store):
    entry = entry_of(store, a="cubin")
    store.publish(entry)
    assert Store(store.root).find(entry.fingerprint) == entry
    assert store.find("0" * 64) is None


def test_publishing_leaves_the_manifest_and_no_temporary_file(store):
    store.publish(entry_of(store))
    assert names_in(store) == ["STORE.json", f"manifest/{'f' * 64}.json"]


def test_publishing_that_fails_leaves_the_old_manifest_and_no_temporary_file(store):
    entry = entry_of(store)
    store.publish(entry)
    with pytest.raises(TypeError):
        store.publish(replace(entry, compile_s={1.0}))
    assert store.find(entry.fingerprint) == entry
    assert names_in(store) == ["STORE.json", f"manifest/{'f' * 64}.json"]


def test_a_manifest_that_cannot_be_written_is_a_store_error(store):
    entry = entry_of(store)
    (store.root / "manifest" / f"{entry.fingerprint}.json").mkdir()
    with pytest.raises(StoreError, match="cannot write"):
        store.publish(entry)
    assert list((store.root / "manifest").glob(".*")) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: "",
        lambda record: json.dumps(record)[:40],
        lambda record: "[]",
        lambda record: json.dumps({name: value for name, value in record.items() if name != "files"}),
        lambda record: json.dumps({**record, "unknown": 1}),
        lambda record: json.dumps({**record, "files": ["a"]}),
        lambda record: json.dumps({**record, "files": None}),
    ],
)
def test_a_corrupt_manifest_counts_as_none(store, damage):
    entry = entry_of(store, a="cubin")
    (store.root / "manifest" / f"{entry.fingerprint}.json").write_text(damage(asdict(entry)))
    assert store.find(entry.fingerprint) is None


def test_a_manifest_of_bytes_counts_as_none(store):
    (store.root / "manifest" / "f.json").write_bytes(b"\xff\xfe")
    assert store.find("f") is None


def test_files_that_changed_or_are_gone_are_damaged(store):
    entry = entry_of(store, same="x", changed="x", gone="x")
    assert store.damaged(entry) == []
    (store.root / "objects" / "an-entry" / "changed").write_text("y")
    (store.root / "objects" / "an-entry" / "gone").unlink()
    assert sorted(path.name for path in store.damaged(entry)) == ["changed", "gone"]


def test_files_outside_the_store_are_not_its_own(store, tmp_path):
    (tmp_path / "foreign").write_text("x")
    assert store.digests([tmp_path / "foreign", store.root / "objects", store.root / "missing"]) == {}


def test_what_is_forgotten_is_not_found_and_may_be_forgotten_twice(store):
    entry = entry_of(store, a="cubin")
    store.publish(entry)
    store.forget(entry.fingerprint)
    store.forget(entry.fingerprint)
    assert store.find(entry.fingerprint) is None
    assert (store.root / "objects" / "an-entry" / "a").exists()


def test_every_part_decides_the_fingerprint_and_parts_do_not_run_together(store):
    parts = ("p:k", "{}", "cuda:90", "triton 3.9.0", "source")
    names = {store.fingerprint(*parts)}
    names |= {
        store.fingerprint(*(part + "x" if i == j else part for j, part in enumerate(parts))) for i in range(len(parts))
    }
    names |= {store.fingerprint("ab", "c"), store.fingerprint("a", "bc")}
    assert len(names) == len(parts) + 3


def test_the_lock_of_one_key_does_not_hold_up_another(store):
    with store.lock("a", 0):
        with store.lock("b", 0):
            pass
        with pytest.raises(LockTimeoutError), store.lock("a", 0):
            pass


@pytest.mark.parametrize("name", ["STORE.json", "triton/cubin", "/etc/some/passwd", "objects/../../x/y"])
def test_a_manifest_that_names_files_outside_an_entry_counts_as_none(store, name):
    """What is damaged is removed with its directory: that must be an entry's own."""
    store.publish(Entry("f" * 64, "p:k", "{}", "cuda:90", "triton 3.9.0", {name: "0" * 64}, 1.5))
    assert store.find("f" * 64) is None


# --- quarantine --------------------------------------------------------------------------------------------------------

RECORD = {"kernel": "p:k", "key": "{}", "target": "cuda:90", "why": "the compile process ended: killed by SIGSEGV"}


def test_what_is_quarantined_is_known_to_every_process_with_its_reason_and_its_file(store):
    file = store.quarantine("f", RECORD)
    assert Store(store.root).quarantined("f", {}) == (file, RECORD["why"])
    assert json.loads(file.read_text()) == RECORD
    assert store.quarantined("0", {}) is None
    assert names_in(store) == ["STORE.json", "quarantine/f.json"]


def test_nothing_is_quarantined_before_and_after_its_file_is_removed(store):
    assert store.quarantined("f", {}) is None
    store.quarantine("f", RECORD).unlink()
    assert store.quarantined("f", {}) is None


def test_the_last_reason_counts(store):
    store.quarantine("f", RECORD)
    file = store.quarantine("f", {**RECORD, "why": "it hung"})
    assert store.quarantined("f", {}) == (file, "it hung")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b"null", b"{}", b"\xff\xfe", b"\x00" * 64])
def test_a_damaged_quarantine_counts_as_none(store, data):
    store.quarantine("f", RECORD).write_bytes(data)
    assert store.quarantined("f", {}) is None


def test_a_quarantine_that_cannot_be_written_is_a_store_error(store):
    (store.root / "quarantine" / "f.json").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot write"):
        store.quarantine("f", RECORD)


@pytest.mark.parametrize(
    ("limits", "is_known"),
    [
        ({"key_timeout_s": 300.0}, True),
        ({"key_timeout_s": 200.0, "worker_memory_bytes": 1 << 40}, True),
        ({"key_timeout_s": 300.1}, False),
        ({}, False),  # no limit at all now
    ],
)
def test_a_key_that_may_take_more_than_it_took_is_tried_again(store, limits, is_known):
    store.quarantine("f", {**RECORD, "limits": {"key_timeout_s": 300.0}})
    assert (store.quarantined("f", limits) is not None) is is_known


# --- timings -----------------------------------------------------------------------------------------------------------


def test_timings_are_those_of_every_entry_that_can_be_read(store):
    for n, seconds in enumerate((1.5, 2.5)):
        store.publish(Entry(str(n) * 64, "p:k", f"key {n}", "cuda:90", "triton 3.9.0", {}, seconds))
    (store.root / "manifest" / "broken.json").write_text("{")
    (store.root / "manifest" / "strange.json").write_text("[]")
    assert sorted(store.timings()) == [("p:k", "key 0", 1.5), ("p:k", "key 1", 2.5)]


def test_what_killed_writers_left_is_removed_after_an_hour(store):
    old, new = store.root / "manifest" / ".f.json.old", store.root / "manifest" / ".f.json.new"
    for file in (old, new):
        file.touch()
    os.utime(old, (0, 0))
    store.settle()
    assert (old.exists(), new.exists()) == (False, True)


def test_hidden_files_of_others_in_the_same_directory_are_left_alone(store):
    """`bake --out` takes any directory."""
    for name in (".env", "src/.gitignore", "manifest/.keep"):
        file = store.root / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (0, 0))
    store.settle()
    assert all((store.root / name).exists() for name in (".env", "src/.gitignore", "manifest/.keep"))
