"""Write tests/golden/sampling/filters.npz: what transformers' logits processors make of some rows of logits.

    logits  (6, 64) float32  from nearly uniform to nearly certain
    history (6, 12) int32    ids so far, with repetitions
    tied    (2, 16) float32  rows whose best values are equal
    NAME_VALUE               the processor NAME with that parameter, applied to `logits`; removed ids are -inf
    tied_NAME_VALUE          the same, applied to `tied`
    chain                    repetition 1.2, temperature 0.7, top_k 20, top_p 0.9, min_p 0.02 in the order of `generate`

Usage: python tests/golden/make_sampling.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import seeded
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

HERE = Path(__file__).parent / "sampling"
PROCESSORS: dict[str, tuple[type[LogitsProcessor], list[float]]] = {
    "temperature": (TemperatureLogitsWarper, [0.5, 0.8, 1.5]),
    "top_k": (TopKLogitsWarper, [1, 5, 20, 64, 1000]),
    "top_p": (TopPLogitsWarper, [0.0, 0.1, 0.5, 0.9, 0.99, 1.0]),
    "min_p": (MinPLogitsWarper, [0.0, 0.01, 0.1, 0.5, 1.0]),
    "repetition": (RepetitionPenaltyLogitsProcessor, [0.8, 1.0, 1.3]),
}


def top_p_margin(logits: np.ndarray) -> float:
    """How close the cumulative probability of any prefix comes to a threshold in use: too close is not portable."""
    exp = np.sort(np.exp(logits.astype(np.float64)), axis=-1)
    tail = np.cumsum(exp, axis=-1) / exp.sum(-1, keepdims=True)
    thresholds = [1 - p for p in PROCESSORS["top_p"][1] if 0 < p < 1]
    return min(float(np.abs(tail - threshold).min()) for threshold in thresholds)


def main() -> None:
    HERE.mkdir(exist_ok=True)
    spread = np.array([0.1, 0.7, 1.5, 3.0, 6.0, 12.0], np.float32)
    logits = seeded.normal("logits", (6, 64)) * spread[:, None] + seeded.normal("shift", (6, 1), 2.0)
    assert top_p_margin(logits) > 1e-5
    history = seeded.state("history").randint(0, 64, (6, 12)).astype(np.int32)
    history[:, -3:] = history[:, :3]
    tied = np.round(seeded.normal("tied", (2, 16)), 0)
    tied[0, [2, 7, 11]] = 4.0
    tied[1] = 0.5

    def apply(processor: LogitsProcessor, rows: np.ndarray) -> np.ndarray:
        ids = torch.from_numpy(history[: len(rows)]).long()
        return processor(ids, torch.from_numpy(rows)).numpy()

    arrays = {"logits": logits, "history": history, "tied": tied}
    for name, (processor, values) in PROCESSORS.items():
        for value in values:
            arrays[f"{name}_{value}"] = apply(processor(value), logits)
    arrays["tied_top_k_2"] = apply(TopKLogitsWarper(2), tied)
    arrays["tied_min_p_0.9"] = apply(MinPLogitsWarper(0.9), tied)
    chain = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(1.2),
            TemperatureLogitsWarper(0.7),
            TopKLogitsWarper(20),
            TopPLogitsWarper(0.9),
            MinPLogitsWarper(0.02),
        ]
    )
    arrays["chain"] = apply(chain, logits)
    np.savez_compressed(HERE / "filters.npz", **arrays)
    for name, array in arrays.items():
        print(name, array.shape, array.dtype, "kept", np.isfinite(array).sum(-1).tolist())


if __name__ == "__main__":
    main()
