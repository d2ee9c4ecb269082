"""How large images are, by layer: `python -m benchmarks.images [--minilm DIR] [--cuda]`.

Builds archives and their OCI images, and prints what a registry has to hold: compressed layers by kind, with weights
and without. `--minilm` adds MiniLM, `--cuda` the small Llama for an H100 with CUDA's plugin, whose compiler must be in
the cache already. Sizes do not depend on the machine, but for the system libraries beside the plugin.
"""

import argparse
import tempfile
from pathlib import Path

import namedtensor as nt
from namedtensor import zoo
from namedtensor.export import archive, oci

CPUS = ["cpu:x86-64-v2", "cpu:x86-64-v3", "cpu:x86-64-v4"]


def show(name: str, program: nt.Program, targets: list[str], directory: Path) -> None:
    for where in ("inside", "outside"):
        packed = directory / f"{where}.tar.zst"
        outside = directory / "weights.safetensors" if where == "outside" else None
        archive.build(program, packed, targets, weights_outside=outside)
        (image,) = oci.build([packed], directory / f"{program.name}-{where}").images
        layers = ", ".join(f"{layer.title} {layer.descriptor['size'] / 1e6:.2f}" for layer in image.layers)
        total = image.bytes / 1e6
        print(f"{name}, weights {where}: {total:.2f} MB ({layers})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", type=Path, metavar="DIR", help="the checkpoint of all-MiniLM-L6-v2")
    parser.add_argument("--cuda", action="store_true", help="the small Llama for an H100, too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = iter(range(9))

        def place() -> Path:
            directory = Path(temporary) / str(next(work))
            directory.mkdir()
            return directory

        show("digits", zoo.find("digits").program(), CPUS, place())
        show("shakespeare", zoo.find("shakespeare").program(), CPUS, place())
        if chosen.minilm is not None:
            show("MiniLM", zoo.find("minilm").program(chosen.minilm), CPUS, place())
        if chosen.cuda:
            show("shakespeare on CUDA", zoo.find("shakespeare").program(), ["cuda:h100"], place())


if __name__ == "__main__":
    main()
