"""The processors and the memory that a container may use, from the files that the kernel shows."""

import pytest

from jitwarm.engine.container import usable_cpus, usable_memory_bytes


@pytest.fixture
def cgroup(tmp_path):
    """A tree of cgroup files; the function that asks it."""

    def with_files(files, own="0::/pod/app\n"):
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "own").write_text(own)
        return usable_cpus(tmp_path / "cgroup", tmp_path / "own")

    return with_files


SET = {"pod/app/cpuset.cpus.effective": "0-15,32-47\n"}


def test_the_set_of_processors_counts(cgroup):
    assert cgroup(SET) == 32


def test_a_quota_counts_whole_processors(cgroup):
    assert cgroup({**SET, "pod/app/cpu.max": "350000 100000\n"}) == 3


def test_a_quota_of_a_group_above_counts(cgroup):
    assert cgroup({**SET, "pod/app/cpu.max": "max 100000\n", "pod/cpu.max": "800000 100000\n"}) == 8


def test_a_quota_below_one_processor_is_one(cgroup):
    assert cgroup({**SET, "pod/app/cpu.max": "20000 100000\n"}) == 1


def test_version_1_quotas_count(cgroup):
    files = {"cpu/docker/x/cpu.cfs_quota_us": "200000\n", "cpu/docker/x/cpu.cfs_period_us": "100000\n"}
    assert cgroup(files, "3:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x\n") <= 2


def test_files_that_say_nonsense_or_nothing_are_no_limit(cgroup):
    assert cgroup({**SET, "pod/app/cpu.max": "much\n"}) == 32
    assert cgroup({}, own="nonsense") >= 1


def test_the_memory_that_the_cgroup_leaves_counts_also_that_of_a_group_above(tmp_path):
    machine = usable_memory_bytes(tmp_path / "none", tmp_path / "none")
    for name, text in {"pod/memory.max": "1000000\n", "pod/app/memory.max": "max\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text("0::/pod/app\n")
    assert usable_memory_bytes(tmp_path, tmp_path / "own") == 1_000_000 < machine


def test_version_1_memory_counts_and_no_limit_is_the_machine(tmp_path):
    for name, text in {"docker/x": "2000000\n", "docker/y": "9223372036854771712\n"}.items():
        (tmp_path / "memory" / name).mkdir(parents=True)
        (tmp_path / "memory" / name / "memory.limit_in_bytes").write_text(text)
        (tmp_path / name[-1]).write_text(f"4:memory:/{name}\n")
    assert usable_memory_bytes(tmp_path, tmp_path / "x") == 2_000_000
    assert usable_memory_bytes(tmp_path, tmp_path / "y") == usable_memory_bytes(tmp_path / "none", tmp_path / "none")
