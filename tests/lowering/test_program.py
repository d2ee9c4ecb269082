"""A program of named entry points: what it refuses, what it lowers to, and that it runs as written."""

import re
from typing import Any, cast

import jax
import numpy as np
import pytest

import namedtensor as nt


class Block(nt.Module):
    weight: nt.Tensor

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        return x + x.dot(self.weight, "d").rename("e -> d").tanh()


class Counter(nt.Module):
    """Looks rows up, runs blocks over them, and counts its calls in a state."""

    table: nt.Tensor
    layers: list[Block]

    def __call__(self, ids: nt.Tensor, state: nt.Tensor) -> dict[str, nt.Tensor]:
        x = self.table.gather("v", ids)
        for layer in self.layers:
            x = layer(x)
        return {"y": x, "state": state + 1.0}


def counter(depth: int = 3) -> Counter:
    rng = np.random.default_rng(0)

    def normal(axes: str, *shape: int) -> nt.Tensor:
        return nt.wrap(rng.standard_normal(shape, np.float32), axes)

    return Counter(normal("v d", 50, 8), [Block(normal("e d", 8, 8)) for _ in range(depth)])


def program(model: Counter | None = None) -> nt.Program:
    run = nt.entry(
        Counter.__call__,
        donate="state",
        buckets={"s": (16, 4)},
        ids=nt.spec("b s", "int32", b=1, s=4),
        state=nt.spec("d", d=8),
    )
    return nt.Program(model or counter(), {"run": run}, name="counter")


def test_every_bucket_becomes_a_variant_in_order_of_size() -> None:
    assert [v.name for v in program().variants()] == ["run.s4", "run.s16"]


def test_results_are_those_of_the_model_called_eagerly_whatever_order_the_input_is_stored_in() -> None:
    model = counter()
    executable = program(model).compile()
    ids = nt.wrap(np.arange(4, dtype=np.int32).reshape(4, 1), "s b")
    out = executable.call("run", program(model).weights(), ids=ids, state=nt.zeros("d", d=8))
    expected = model(ids, nt.zeros("d", d=8))
    np.testing.assert_allclose(out["y"].numpy("b s d"), expected["y"].numpy("b s d"), rtol=1e-5, atol=1e-6)
    assert out["state"].numpy("d").tolist() == [1.0] * 8


def test_results_are_stored_in_an_order_that_sizes_do_not_change() -> None:
    class Project(nt.Module):
        weight: nt.Tensor

        def __call__(self, x: nt.Tensor, state: nt.Tensor) -> dict[str, nt.Tensor]:
            # Which side of a contraction is the larger one decides how its result is stored.
            return {"y": x.dot(self.weight, "d"), "state": state.transpose("k b") + 1.0}

    buckets = {"b": (1, 64)}
    for order in ("out d", "d out"):
        model = Project(nt.ones(order, out=8, d=4))
        run = nt.entry(Project.__call__, buckets=buckets, x=nt.spec("b d", b=1, d=4), state=nt.spec("b k", b=1, k=2))
        p = nt.Program(model, {"run": run})
        for b in buckets["b"]:
            out = p.compile().call("run", p.weights(), x=nt.ones("b d", b=b, d=4), state=nt.zeros("b k", b=b, k=2))
            assert out["y"].axes == ("b", "out")
            assert out["state"].axes == ("b", "k")


def test_a_donated_input_is_consumed() -> None:
    p = program()
    state = nt.zeros("d", d=8)
    p.compile().call("run", p.weights(), ids=nt.zeros("b s", "int32", b=1, s=4), state=state)
    assert state.array.is_deleted()


def test_a_program_lowers_from_shapes_alone() -> None:
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), counter())
    assert "stablehlo.dot_general" in program(shapes).lower()["run.s4"].text()


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_a_program_lowers_for_platforms_that_this_machine_lacks(platform: str) -> None:
    lowered = program().lower(platform)
    assert list(lowered) == ["run.s4", "run.s16"]
    assert lowered["run.s16"].bytecode().startswith(b"ML\xefR")


def test_the_portable_artifact_reads_back_as_stablehlo_alone() -> None:
    from jax._src.interpreters import mlir
    from jaxlib import _jax

    class Activations(nt.Module):
        scale: nt.Tensor

        def __call__(self, x: nt.Tensor) -> tuple[nt.Tensor, ...]:
            # Operations for which jax emits CHLO, an extension of StableHLO that is promised to nobody.
            return (x.erf(), x.square(), *x.top_k("d", 2), x * self.scale)

    p = nt.Program(Activations(nt.ones("d", d=8)), {"run": nt.entry(Activations.__call__, x=nt.spec("b d", b=2, d=8))})
    lowered = p.lower("cuda")["run"]
    assert re.search(r"(?<!stable)chlo\.square", lowered.text())
    with mlir.make_ir_context():
        text = str(_jax.mlir.deserialize_portable_artifact(lowered.bytecode()))
    # Named composites are StableHLO's own, and bring their decomposition along.
    assert re.search(r"(?<!stable)(?<!\")(?<!@)chlo\.", text) is None
    assert "composite" in text


def test_arguments_carry_the_names_of_weights_and_inputs() -> None:
    text = program().lower()["run.s4"].text()
    for name in ("weights['layers.1.weight']", "donated['state']", "inputs['ids']"):
        assert f'loc("{name}")' in text


def test_operations_carry_the_path_of_their_module_and_the_line_of_the_model() -> None:
    text = program().lower()["run.s4"].text()
    assert "Counter/layers.2/" in text
    assert '"lowering/test_program.py":' in text
    assert "_elementwise.py" not in text


def test_locations_do_not_depend_on_where_the_files_lie() -> None:
    import os

    assert os.getcwd() not in program().lower()["run.s4"].text()


def test_repeated_layers_become_one_function_that_each_layer_calls() -> None:
    text = program(counter(depth=6)).lower()["run.s4"].text(locations=False)
    assert text.count("func.func private @Block") == 1
    assert text.count("call @Block") == 6
    assert text.count("stablehlo.tanh") == 1


def test_layers_of_different_shapes_are_not_mistaken_for_one_another() -> None:
    class Widths(nt.Module):
        layers: list[Block]

        def __call__(self, x: nt.Tensor) -> list[nt.Tensor]:
            return [layer(x) for layer in self.layers]

    model = Widths([Block(nt.ones("e d", e=8, d=8)), Block(nt.ones("e d", e=8, d=8) * 2.0)])
    p = nt.Program(model, {"run": nt.entry(Widths.__call__, x=nt.spec("d", d=8))})
    one, two = p.compile().call("run", p.weights(), x=nt.ones("d", d=8) * 0.01)
    expected_one, expected_two = model(nt.ones("d", d=8) * 0.01)
    np.testing.assert_allclose(one.numpy("d"), expected_one.numpy("d"), rtol=1e-6)
    np.testing.assert_allclose(two.numpy("d"), expected_two.numpy("d"), rtol=1e-6)


def test_cost_counts_contractions_exactly_and_only_the_rows_that_are_looked_up() -> None:
    cost = program().lower()["run.s4"].cost()
    dots = 3 * 2 * 4 * 8 * 8
    assert dots <= cost.flops <= dots + 3 * 2 * 4 * 8 * 2 + 100
    assert cost.weight_bytes == 4 * (3 * 8 * 8 + 4 * 8)
    assert cost.state_bytes == 4 * 8
    assert cost.io_bytes == 4 * 4 + 4 * 4 * 8
    assert cost.bound(1.0, 1e12)[1] == "compute"
    assert cost.bound(1e15, 1.0) == (float(cost.bytes), "memory")


def inputs(**changes: Any) -> dict[str, Any]:
    return {"ids": nt.zeros("b s", "int32", b=1, s=4), "state": nt.zeros("d", d=8), **changes}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: {"ids": nt.zeros("b s", "int32", b=1, s=4)}, "run: input 'state' is missing"),
        (lambda: inputs(idz=nt.zeros("d", d=8)), "run: there is no input 'idz'"),
        (lambda: inputs(ids=nt.zeros("b s", "int32", b=1, s=5)), "run: no variant was compiled for s=5"),
        (lambda: inputs(ids=nt.zeros("b s", b=1, s=4)), "run: input 'ids' has other type than the entry point"),
        (lambda: inputs(state=nt.zeros("d", d=9)), "run: input 'state' has other sizes than the entry point"),
        (lambda: inputs(state=nt.zeros("k", k=8)), "run: input 'state' has other axes than the entry point"),
        (lambda: inputs(state=np.zeros(8, np.float32)), "run: input 'state' has no axis names"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(given, message: str) -> None:
    p = program()
    with pytest.raises(nt.InputError) as error:
        p.compile().call("run", p.weights(), **given())
    assert error.value.headline == message


def test_a_bucket_is_the_smallest_size_that_fits() -> None:
    executable = program().compile()
    assert [executable.bucket("run", "s", n) for n in (1, 4, 5, 16)] == [4, 4, 16, 16]
    with pytest.raises(nt.InputError, match="s=17 is more than the largest size that was compiled"):
        executable.bucket("run", "s", 17)


def test_variants_can_be_compiled_up_front_or_when_they_are_first_called() -> None:
    p = program()
    executable = p.compile(only=["run.s16"])
    assert set(executable._compiled) == {"run.s16"}
    executable.call("run", p.weights(), **inputs())
    assert set(executable._compiled) == {"run.s16", "run.s4"}
    assert set(p.compile(only=["run"])._compiled) == {"run.s16", "run.s4"}
    with pytest.raises(nt.ModelError, match=r"there is no entry point 'run\.s5'"):
        p.compile(only=["run.s5"])


def test_unknown_entry_points_and_platforms_are_refused_by_name() -> None:
    p = program()
    with pytest.raises(nt.ModelError, match="there is no entry point 'rum'"):
        p.compile().call("rum", {})
    with pytest.raises(nt.ModelError, match="counter has no entry point 'rum'"):
        p.lower(entry="rum")
    with pytest.raises(nt.ModelError, match="'metal' is not a platform"):
        p.lower("metal")
    with pytest.raises(nt.ModelError, match=r"there is no variant 'run'"):
        p.lower()["run"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nt.entry(Counter.__call__, donate="x", ids=nt.spec("b", b=1)),
            "entry: 'x' is donated but is no input",
        ),
        (lambda: nt.entry(Counter.__call__, ids=3), "entry: an input is not a spec with named axes"),
        (
            lambda: nt.entry(Counter.__call__, buckets={"k": (1,)}, ids=nt.spec("b", b=1)),
            "entry: no input has the axis 'k' of the buckets",
        ),
        (
            lambda: nt.entry(Counter.__call__, buckets={"b": (0,)}, ids=nt.spec("b", b=1)),
            "entry: buckets of 'b' must be whole numbers from 1",
        ),
        (lambda: nt.Program(counter(), {}), "Program: at least one entry point is needed"),
        (lambda: nt.Program(counter(), cast(Any, {"run": 3})), "Program: 'run' is not an entry point"),
        (lambda: nt.Program(cast(Any, 3), {}), "Program: the model must be an nt.Module"),
    ],
)
def test_programs_that_make_no_sense_are_refused(make, message: str) -> None:
    with pytest.raises(nt.ModelError) as error:
        make()
    assert error.value.headline == message


def test_executables_are_found_again_on_disk(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NAMEDTENSOR_CACHE", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()
    try:
        program(counter(depth=5)).compile()
        assert list((tmp_path / "xla").glob("jit_run_s4-*"))
    finally:
        compilation_cache.reset_cache()
    assert jax.config.jax_compilation_cache_dir == before
