"""The vLLM integration finds its place in a released vLLM for GPUs: `seam.py` looks at the wheel's Python files."""


def test_the_seam_and_every_field_that_is_read_are_there(run_over_wheel):
    assert run_over_wheel("seam.py") == {
        "init_device": True, "Worker": True, "CPUWorker": True, "XPUWorker": True, "missing": [],
    }  # fmt: skip
