"""`jitwarm doctor`: what it looks at, and that each thing it finds comes with what to do."""

import importlib.metadata

import kits
import pytest


@pytest.fixture
def doctor(cli):
    """The findings by what was looked at, and the exit code."""

    def run(*arguments, **variables):
        done = cli("doctor", "--json", *(arguments or ("--target", "cuda:90")), **variables)
        findings = kits.json_of(done)["findings"]
        return {finding["check"]: finding for finding in findings}, done.returncode

    return run


def errors(findings):
    return {check for check, finding in findings.items() if finding["level"] == "error"}


def test_everything_that_a_bake_needs_is_looked_at(doctor):
    findings, code = doctor()
    expected = {"target", "cc", "ptxas", "nvcc", "triton", "cutedsl", "tilelang", "store"}
    assert expected <= findings.keys()
    assert {"cache of triton", "cache of tilelang", "cache of cutedsl"} <= findings.keys()
    assert (errors(findings), code) == (set(), 0)


@pytest.mark.parametrize("backend", ["triton", "cutedsl", "tilelang"])
def test_each_dsl_is_shown_with_its_version(doctor, backend):
    distribution = {"cutedsl": "nvidia-cutlass-dsl"}.get(backend, backend)
    version = importlib.metadata.version(distribution)
    assert f"{distribution} {version}" in doctor()[0][backend]["detail"]


def test_every_finding_that_is_not_ok_says_what_to_do(doctor, site):
    kits.install(site, "broken", "raise OSError('no driver')")
    findings, _ = doctor("--target", "hip:gfx942", CUDA_HOME="/nonexistent", TRITON_PTXAS_PATH="/nonexistent")
    not_ok = [finding for finding in findings.values() if finding["level"] != "ok"]
    assert {finding["level"] for finding in not_ok} == {"warning", "error"}
    assert [finding["check"] for finding in not_ok if not finding["fix"]] == []


def test_no_nvcc_is_an_error_for_tilelang_and_exit_3(doctor):
    findings, code = doctor(CUDA_HOME="/nonexistent")
    assert code == 3
    assert errors(findings) == {"nvcc", "tilelang for cuda:90"}
    assert "nvidia-cuda-nvcc" in findings["nvcc"]["fix"]


def test_a_plugin_that_cannot_be_imported_is_named_and_exit_3(doctor, site):
    kits.install(site, "broken", "raise OSError('no driver')", version="2.0")
    findings, code = doctor()
    assert code == 3
    assert errors(findings) == {"plugin broken"}
    assert findings["plugin broken"]["detail"] == "cannot import broken: OSError: no driver"
    assert "broken 2.0" in findings["plugin broken"]["fix"]


def test_the_advice_to_disable_a_broken_plugin_can_be_followed(doctor, site):
    kits.install(site, "broken", "raise OSError('no driver')")
    findings, code = doctor(JITWARM_DISABLE="broken")
    assert (errors(findings), code) == (set(), 0)


def test_no_target_is_an_error_that_says_how_to_name_one(doctor):
    findings, code = doctor("--config", "/dev/null")
    assert code == 3
    assert errors(findings) == {"target"}
    assert "--target cuda:90" in findings["target"]["fix"]
    assert "JITWARM_TARGET" in findings["target"]["fix"]


def test_a_backend_that_cannot_build_for_the_target_is_a_warning_and_what_becomes_of_its_keys(doctor):
    finding = doctor("--target", "hip:gfx942")[0]["cutedsl for hip:gfx942"]
    assert finding["level"] == "warning"
    assert "unresolved" in finding["fix"]


def test_a_store_that_others_can_write_is_an_error_with_the_command_that_mends_it(doctor, tmp_path):
    store = tmp_path / "user-cache"
    store.mkdir()
    store.chmod(0o777)
    findings, code = doctor()
    assert code == 3
    assert findings["store"]["level"] == "error"
    assert findings["store"]["fix"] == f"chmod go-w {store}"


@pytest.mark.parametrize(
    ("variable", "check"),
    [
        ("JITWARM_CACHE_DIR", "store"),
        ("TRITON_CACHE_DIR", "cache of triton"),
        ("TILELANG_CACHE_DIR", "cache of tilelang"),
    ],
)
def test_a_cache_that_cannot_be_written_is_told_with_its_variable(doctor, tmp_path, variable, check):
    (tmp_path / "file").write_text("")
    findings, code = doctor(**{variable: tmp_path / "file" / "cache"})
    assert code == 3
    assert check in errors(findings)
    assert "cannot be written" in findings[check]["detail"]
    assert variable in findings[check]["fix"]


def test_a_ptxas_that_is_not_there_is_an_error(doctor):
    findings, code = doctor(TRITON_PTXAS_PATH="/nonexistent/ptxas")
    assert (errors(findings), code) == ({"ptxas"}, 3)
    assert "unset it" in findings["ptxas"]["fix"]


def test_without_a_c_compiler_there_is_a_warning(doctor, tmp_path):
    findings, _ = doctor(PATH=tmp_path)
    assert findings["cc"]["level"] == "warning"
    assert "install gcc" in findings["cc"]["fix"]


def test_a_look_makes_no_directory(doctor, tmp_path):
    doctor()
    assert not (tmp_path / "user-cache").exists()


def test_findings_are_printed_with_what_to_do_below(cli):
    done = cli("doctor", "--target", "cuda:90", CUDA_HOME="/nonexistent")
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    nvcc = next(i for i, line in enumerate(lines) if line.startswith("error   nvcc:"))
    assert lines[nvcc + 1].strip().startswith("-> install CUDA")


def test_a_vllm_that_will_not_load_us_is_told(doctor):
    finding = doctor(VLLM_PLUGINS="lora_resolver")[0]["vllm plugin"]
    assert finding["level"] == "warning"
    assert finding["fix"] == "set VLLM_PLUGINS=lora_resolver,jitwarm"
    assert doctor(VLLM_PLUGINS="")[0]["vllm plugin"]["fix"] == "set VLLM_PLUGINS=jitwarm"


def test_a_vllm_that_loads_us_is_fine_unless_we_are_switched_off(doctor):
    assert doctor(VLLM_PLUGINS="lora_resolver,jitwarm")[0]["vllm plugin"]["level"] == "ok"
    off = doctor(VLLM_PLUGINS="jitwarm", JITWARM_DISABLE="1")[0]["vllm plugin"]
    assert (off["level"], "JITWARM_DISABLE" in off["detail"]) == ("warning", True)
