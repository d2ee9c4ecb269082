"""What is recorded of a run: every module's result and first input, under its path."""

import numpy as np
import pytest

import namedtensor as nt
from tests.porting.scorer import recorded


class Double(nt.Module):
    factor: nt.Tensor

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        return x * self.factor


class Pair(nt.Module):
    double: Double

    def __call__(self, x: nt.Tensor) -> tuple[nt.Tensor, dict[str, nt.Tensor]]:
        return self.double(x), {"twice": self.double(self.double(x))}


class Loop(nt.Module):
    double: Double

    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        def step(carry: nt.Tensor, _: nt.Tensor) -> tuple[nt.Tensor, nt.Tensor]:
            carry = self.double(carry)
            return carry, carry

        return nt.scan(step, x, nt.arange("t", 3), axis="t")[0]


class Inherits(Double):
    def __call__(self, x: nt.Tensor) -> nt.Tensor:
        return super().__call__(x) + 1


@pytest.fixture
def double() -> Double:
    return Double(nt.wrap(2.0, "").cast("float32"))


@pytest.fixture
def x() -> nt.Tensor:
    return nt.wrap(np.ones(3, np.float32), "d")


def test_every_module_is_recorded_under_its_path() -> None:
    found = recorded()
    assert "blocks.1.attention.qkv" in found
    assert found["blocks.1.attention.qkv"].sizes == {"b": 2, "s": 5, "three": 3, "heads": 3, "hd": 4}
    assert found["blocks.1.attention:input"].sizes == {"b": 2, "s": 5, "d": 12}
    assert next(iter(found)) == "tokens:input"
    assert "Tensor(b=2, s=5, vocab=20) float32" in repr(found)


def test_several_results_and_calls_have_names_of_their_own(double: Double, x: nt.Tensor) -> None:
    found = nt.activations(Pair(double), x)
    assert [name for name in found if not name.endswith(":input")] == [
        *("double", "double#2", "double#3"),
        *("(model)[0]", "(model)[1][twice]"),
    ]
    assert found["double#3:input"].numpy("d").tolist() == [2, 2, 2]
    assert found["(model)[1][twice]"].numpy("d").tolist() == [4, 4, 4]


def test_steps_of_a_loop_are_calls(double: Double, x: nt.Tensor) -> None:
    found = nt.activations(Loop(double), x)
    assert [found[name].numpy("d")[0] for name in ("double", "double#2", "double#3")] == [2, 4, 8]


def test_a_call_through_super_is_not_a_second_one(x: nt.Tensor) -> None:
    inner = Inherits(nt.wrap(2.0, "").cast("float32"))
    found = nt.activations(Pair(inner), x)
    assert found["double"].numpy("d").tolist() == [3, 3, 3]
    assert "double#4" not in found


def test_an_entry_point_is_recorded_with_its_named_results(double: Double, x: nt.Tensor) -> None:
    def entry(model: Double, x: nt.Tensor) -> dict[str, nt.Tensor]:
        y = model(x)
        return {"y": y, "total": y.sum("d")}

    found = nt.activations(double, x=x, call=entry)
    assert set(found) == {"(model):input", "(model)[y]", "(model)[total]"}


def test_a_model_that_is_not_called_is_an_error(double: Double) -> None:
    with pytest.raises(nt.ModelError, match="no module of the model was called"):
        nt.activations(double, call=lambda model: None)
