"""Targets: every chip that comes with the package, one of a person's own, and what is refused."""

from pathlib import Path

import pytest

import namedtensor as nt
from namedtensor import compilers
from namedtensor.compilers._target import target_config

H100 = Path(compilers.__file__).parents[1] / "targets" / "h100.toml"


def test_every_chip_of_the_package_is_a_target() -> None:
    names = [one.name for one in compilers.known()]
    for name in ("a100", "l4", "l40s", "h100", "h200", "b200", "rtx4090"):
        assert f"cuda:{name}" in names
    for name in ("mi250x", "mi300x", "mi325x", "mi355x"):
        assert f"rocm:{name}" in names
    for name in ("v4", "v5e", "v5p", "v6e"):
        for chips in (1, 2, 4, 8):
            assert f"tpu:{name}-{chips}" in names


def test_cpus_are_targets_by_instruction_level() -> None:
    levels = [one.level for one in compilers.known() if one.platform == "cpu"]
    assert levels == ["x86-64-v2", "x86-64-v3", "x86-64-v4", "native"]
    assert compilers.target("cpu:x86-64-v3").chip is None
    with pytest.raises(nt.InputError, match="did you mean 'cpu:x86-64-v3'"):
        compilers.target("cpu:x86-64-v33")


CHIPS = [one for one in compilers.known() if one.platform != "cpu"]


@pytest.mark.parametrize("one", CHIPS, ids=lambda one: one.name)
def test_a_target_says_all_that_its_compiler_asks(one: compilers.Target) -> None:
    topology, options = one.topology()
    assert one.chip is not None
    if one.platform == "tpu":
        assert topology.startswith(one.chip.compiler["generation"] + ":")
        sides = [int(side) for side in topology.partition(":")[2].split("x")]
        product = 1
        for side in sides:
            product *= side
        assert product == one.chips
        assert len(options.get("chips_per_host_bounds", [1, 1, 1])) == 3
        return
    text = options["target_config"]
    assert text.count("{") == text.count("}")
    for line in ("core_count: ", "memory_bandwidth: ", "device_memory_size: ", "shared_memory_per_block_optin: "):
        assert line in text
    assert f'platform_name: "{one.platform.upper()}"' in text
    assert ("cuda_compute_capability" in text) == (one.platform == "cuda")


def test_one_chip_is_meant_where_a_tpu_has_no_number() -> None:
    assert compilers.target("tpu:v5e") == compilers.target("tpu:v5e-1")


def test_hoppers_own_instructions_are_asked_for_by_the_letter() -> None:
    for name, feature in (("cuda:h100", "ACCELERATED_FEATURES"), ("cuda:l4", "NONE")):
        chip = compilers.target(name).chip
        assert chip is not None
        assert f"feature_extension: {feature}" in target_config(chip)


def test_a_file_describes_a_chip_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "h100pcie.toml"
    path.write_text(H100.read_text().replace("core_count = 132", "core_count = 114"))
    own = compilers.target(str(path))
    assert (own.name, own.platform) == ("cuda:h100pcie", "cuda")
    assert "core_count: 114" in own.topology()[1]["target_config"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:h10", "there is no target 'cuda:h10': did you mean 'cuda:h100'?"),
        ("tpu:v5e-3", "there is no target 'tpu:v5e-3': did you mean 'tpu:v5e-"),
    ],
)
def test_an_unknown_target_is_refused_with_the_nearest_one(name: str, message: str) -> None:
    with pytest.raises(nt.InputError) as error:
        compilers.target(name)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("[compiler]", "[compilers]"), "has unknown compilers"),
        (lambda text: text.replace('platform = "cuda"', 'platform = "metal"'), "platform 'metal' is not one of"),
        (lambda text: text.replace("architecture =", "arch ="), "[compiler] lacks architecture"),
        (lambda text: text.replace("memory_bytes", "memory_size", 1), "lacks memory_bytes"),
        (lambda text: text + "\n= 3", "not a target that can be read"),
    ],
)
def test_a_file_that_is_no_target_is_refused(tmp_path: Path, change, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(change(H100.read_text()))
    with pytest.raises(nt.InputError) as error:
        compilers.target(str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_architecture_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(H100.read_text().replace('"9.0a"', '"hopper"'))
    with pytest.raises(nt.InputError, match="'hopper' is not a compute capability"):
        compilers.target(str(path)).topology()
