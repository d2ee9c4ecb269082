"""Write the small checkpoints of tests/golden/checkpoints/ with PyTorch and the gguf package, and their values.

    state_dict.pt   what `torch.save(module.state_dict())` writes, with every dtype, a tensor of no elements, a scalar,
                    a parameter, a transposed and a sliced view, and two views that share a storage
    nested.pth      a training checkpoint: `{"state_dict": ..., "model": ..., "epoch": ...}`
    protocol4.bin   the same tensors pickled by protocol 4
    expanded.pt     a view that repeats elements, which is refused
    sharded/        two shards and pytorch_model.bin.index.json
    FORMAT.gguf     one tensor per storage format, named after it, and one of every kind of metadata in f32.gguf
    values.npz      all values: `FILE|TENSOR`, dtypes that numpy lacks widened to float32

Usage: python tests/golden/make_checkpoints.py
"""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

HERE = Path(__file__).parent / "checkpoints"
GGUF_FORMATS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")
WIDENED = (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


def state_dict() -> OrderedDict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    shared = random(24)
    tensors: OrderedDict[str, torch.Tensor] = OrderedDict()
    tensors["f32"] = random(2, 3)
    tensors["f16"] = random(3, 2).half()
    tensors["bf16"] = random(4, 2).bfloat16()
    tensors["f64"] = random(3).double()
    tensors["i64"] = torch.tensor([1, -2, 3])
    tensors["i32"] = torch.tensor([[5, -6]], dtype=torch.int32)
    tensors["u8"] = torch.tensor([0, 255], dtype=torch.uint8)
    tensors["u16"] = torch.tensor([0, 65535], dtype=torch.uint16)
    tensors["bool"] = torch.tensor([True, False, True])
    tensors["f8"] = random(5).to(torch.float8_e4m3fn)
    tensors["f8_wide"] = random(5).to(torch.float8_e5m2)
    tensors["scalar"] = torch.tensor(42)
    tensors["empty"] = torch.zeros(0, 3)
    tensors["parameter"] = torch.nn.Parameter(random(2, 2))
    tensors["transposed"] = random(3, 4).t()
    tensors["permuted"] = random(2, 3, 4).permute(2, 0, 1)
    tensors["every_second"] = random(4, 6)[:, ::2]
    tensors["offset"] = random(5, 2)[2:]
    tensors["shared_head"] = shared[:12].view(3, 4)
    tensors["shared_tail"] = shared[12:]
    tensors["shared_all"] = shared.view(4, 6).t()
    # What a module's state_dict carries beside its tensors.
    tensors._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return tensors


def plain(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype in WIDENED else tensor).numpy()


def write_torch(values: dict[str, np.ndarray[Any, Any]]) -> None:
    tensors = state_dict()
    torch.save(tensors, HERE / "state_dict.pt")
    torch.save(tensors, HERE / "protocol4.bin", pickle_protocol=4)
    for name, tensor in tensors.items():
        values[f"state_dict.pt|{name}"] = plain(tensor)

    linear = torch.nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.arange(6).reshape(2, 3))
        linear.bias.copy_(torch.tensor([0.5, -0.5]))
    optimizer = torch.optim.AdamW(linear.parameters())
    linear(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    training = {
        "state_dict": linear.state_dict(),
        "model": {"blocks": [{"weight": torch.full((2,), 3.0)}, {"weight": torch.full((2,), 4.0)}]},
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "step": -70_000,
        "tokens": 1 << 40,
        "lr": 1e-3,
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "done": None,
    }
    torch.save(training, HERE / "nested.pth")
    values["nested.pth|state_dict.weight"] = plain(linear.weight)
    values["nested.pth|state_dict.bias"] = plain(linear.bias)
    values["nested.pth|model.blocks.0.weight"] = np.full(2, 3.0, np.float32)
    values["nested.pth|model.blocks.1.weight"] = np.full(2, 4.0, np.float32)

    torch.save({"w": torch.ones(1, 3).expand(4, 3)}, HERE / "expanded.pt")

    folder = HERE / "sharded"
    folder.mkdir(exist_ok=True)
    shards = {
        "pytorch_model-00001-of-00002.bin": {"a": tensors["f32"]},
        "pytorch_model-00002-of-00002.bin": {"b": tensors["bf16"], "c": tensors["i64"]},
    }
    for shard, content in shards.items():
        torch.save(content, folder / shard)
        values |= {f"sharded|{name}": plain(tensor) for name, tensor in content.items()}
    weight_map = {name: shard for shard, content in shards.items() for name in content}
    index = {"metadata": {"total_size": 64}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")


def write_gguf(values: dict[str, np.ndarray[Any, Any]]) -> None:
    matrix = np.random.default_rng(7).standard_normal((3, 64)).astype(np.float32)
    matrix[0, :32] = 0  # a block whose scale is zero
    for name in GGUF_FORMATS:
        kind = gguf.GGMLQuantizationType[name]
        data = gguf.quantize(matrix, kind)
        writer = gguf.GGUFWriter(HERE / f"{name.lower()}.gguf", "test")
        if name == "F32":
            writer.add_uint8("test.u8", 200)
            writer.add_int64("test.i64", -(1 << 40))
            writer.add_float32("test.f32", 0.5)
            writer.add_bool("test.bool", True)
            writer.add_string("test.text", "gewöhnlich")
            writer.add_array("test.texts", ["a", "ß", ""])
            writer.add_array("test.floats", [1.0, 2.5])
        writer.add_tensor(name.lower(), data, raw_dtype=kind)
        # A second one, so that its place depends on the first one's size and the padding after it.
        writer.add_tensor("last", np.arange(5, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        values[f"{name.lower()}.gguf|{name.lower()}"] = gguf.dequantize(data, kind)


def main() -> None:
    HERE.mkdir(exist_ok=True)
    values: dict[str, np.ndarray[Any, Any]] = {}
    write_torch(values)
    write_gguf(values)
    np.savez_compressed(HERE / "values.npz", **values)


if __name__ == "__main__":
    main()
