"""A backend whose package is not installed. Proven where that is so: in the environments of other Triton versions."""

import importlib.util

import pytest

from jitwarm.backends._cutedsl import CuteBackend, CuteKernel
from jitwarm.backends._tilelang import TileLangBackend, TileLangKernel
from jitwarm.contract.kernel import RegisteredKernel
from jitwarm.contract.target import Target
from jitwarm.engine.compiler import BuiltinPolicy
from jitwarm.errors import ToolchainError

pytestmark = pytest.mark.triton
CASES = [(CuteBackend, CuteKernel, "cutlass"), (TileLangBackend, TileLangKernel, "tilelang")]


@pytest.mark.parametrize(("backend_type", "kernel_type", "package"), CASES)
def test_it_is_inert_and_says_how_to_install_it(backend_type, kernel_type, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed here")

    class Kernel(kernel_type):
        dispatch = get_warmup_keys = lambda *_: None

    kernel, backend = Kernel(), backend_type()
    assert backend.missing() == f"pip install 'jitwarm[{backend.name}]'"
    assert [finding.level for finding in backend.examine()] == ["warning"]
    assert backend.device_target() is None
    policy = BuiltinPolicy([backend], lambda *_, **__: None, 1.0)
    policy.know([RegisteredKernel("tests:Kernel", kernel, "tests", "")])
    with (
        pytest.raises(ToolchainError, match=f"{backend.name} is not installed") as caught,
        policy.pinned(kernel, Target("cuda", "90")),
    ):
        pass
    assert caught.value.hint == backend.missing()
