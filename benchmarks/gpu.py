"""S1 to S5 on a card: absolute numbers in bfloat16 with random weights of Qwen3's shapes, and their share of the card's
peak. ``python -m benchmarks.gpu`` (`make bench-gpu`) writes results/gpu.json.

There is no other side here: what is measured is how near the card's limit ours is. ``--device cpu --small`` runs the
same code on a processor with a tiny shape, to see that it runs.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.row import REPOSITORY, RESULTS, commit, versions

SHAPES: Mapping[str, Mapping[str, int]] = {
    "Qwen3-0.6B": {
        "vocabulary": 151_936,
        "hidden": 1024,
        "layers": 28,
        "heads": 16,
        "key_value_heads": 8,
        "head_size": 128,
        "feed_forward": 3072,
    },
    "Qwen3-4B": {
        "vocabulary": 151_936,
        "hidden": 2560,
        "layers": 36,
        "heads": 32,
        "key_value_heads": 8,
        "head_size": 128,
        "feed_forward": 9728,
    },
}
TINY = {"vocabulary": 500, "hidden": 32, "layers": 2, "heads": 2, "feed_forward": 64}


def card(device: str) -> tuple[str, float | None]:
    """Its name and bfloat16 peak in FLOP a second, from recipes/machines.yaml; None for one that is not there."""
    import torch
    import yaml

    if not device.startswith("cuda"):
        return "no card", None
    name = torch.cuda.get_device_name()
    known = yaml.safe_load((REPOSITORY / "recipes" / "machines.yaml").read_text())
    found = next((entry for key, entry in known.items() if key.lower() in name.lower().replace(" ", "")), None)
    return name, found and float(found["tflops"]) * 1e12


def check_card(device: str, command: str, console: Console) -> None:
    """Say so and end with status 1 where the command wants a card and there is none."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        console.print(
            f"{command} needs a CUDA card, and torch sees none on this machine: nothing was measured. "
            "Mend: run it where `nvidia-smi` shows a card and torch is a CUDA build."
        )
        raise SystemExit(1)


class Timed:
    """Seconds and peak device memory above start, in GiB, of its block."""

    def __init__(self, device: str) -> None:
        self.on_card = device.startswith("cuda")
        self.seconds = self.peak_gib = 0.0

    def __enter__(self) -> Timed:
        import torch

        if self.on_card:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._held = torch.cuda.memory_allocated()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        import torch

        if self.on_card:
            torch.cuda.synchronize()
            self.peak_gib = (torch.cuda.max_memory_allocated() - self._held) / 2**30
        self.seconds = time.perf_counter() - self._began


def update_rows(policy: Any, shape: Any, device: str, small: bool, lora: bool) -> dict[str, Any]:
    """S1 and S2: one optimiser step over 16 groups of 8, completions of 32 to 4,096 tokens, with a warm-up before."""
    from benchmarks.inputs import random_groups
    from p2o_core.config import DistillConfig
    from p2o_core.groups import with_advantages
    from p2o_core.optimizer import PolicyOptimizer
    from p2o_core.update import update_policy

    found: dict[str, Any] = {}
    for row, signal in (("S1", 1.0), ("S2", 0.25)):
        size = {"groups": 4, "longest": 64, "prompt": 16} if small else {"groups": 16, "longest": 4096, "prompt": 128}
        groups = random_groups(**size, samples=8, shortest=32, vocabulary=shape.vocabulary, signal=signal, seed=0)
        config = DistillConfig(groups_per_minibatch=len(groups), tokens_per_microbatch=16_384, learning_rate=1e-9)
        optimizer = PolicyOptimizer(policy, config)
        update_policy(policy, optimizer, groups[:2], config, temperature=1.0, seed=0)
        with Timed(device) as timed:
            update_policy(policy, optimizer, groups, config, temperature=1.0, seed=0)
        trained = [sample for group in with_advantages(groups, normalize_std=True) for sample in group]
        tokens = sum(len(sample.completion_ids) for group in groups for sample in group)
        flop = shape.update_flop(trained, trains_all=not lora)
        found[row] = _entry(timed, tokens / timed.seconds, flop / timed.seconds)
    return found


def passes_row(policy: Any) -> dict[str, Any]:
    """S3: counted as on a processor, with this policy's own engine."""
    from benchmarks.passes import TokenCounter, templated_groups
    from p2o_core.config import DistillConfig
    from p2o_core.update import with_old_logps

    groups = templated_groups(policy, {"groups": 4, "samples": 8, "longest": 32})
    counter = TokenCounter(policy)
    with_old_logps(policy, groups, DistillConfig(tokens_per_microbatch=16_384), 1.0)
    rows = [sample for group in groups for sample in group if sample.templated]
    tokens = sum(len(sample.prompt_ids) + len(sample.completion_ids) for sample in rows)
    return {"S3": {"passes": round(counter.scored / tokens, 3)}}


def engine_row(policy: Any, shape: Any, device: str, small: bool) -> dict[str, Any]:
    """S4: 64 prompts, n = 8, 256 new tokens at most."""
    from benchmarks.decoding import questions
    from p2o_core.engines.base import RolloutRequest, Sampling
    from p2o_core.engines.embedded import EmbeddedEngine

    asked = questions("micro", 2 if small else 64)
    requests = [RolloutRequest(str(i), q, "", tuple(range(8)), 1) for i, q in enumerate(asked)]
    engine = EmbeddedEngine(policy, rows_per_batch=512)
    engine.generate(requests[:2], Sampling(1.0, 4))
    with Timed(device) as timed:
        written = engine.generate(requests, Sampling(1.0, 8 if small else 256))
    tokens = sum(len(completion.token_ids) for completion in written)
    flop = 2.0 * tokens * (shape.body + shape.vocabulary * shape.hidden)
    return {"S4": _entry(timed, tokens / timed.seconds, flop / timed.seconds)}


def vllm_row(base: Path, shape: Any, device: str) -> dict[str, Any]:
    """S5: the same through vLLM, where it is installed."""
    try:
        import vllm  # noqa: F401
    except ImportError:
        return {"S5": {"not_run": "no vllm here. Mend: pip install vllm"}}
    from benchmarks.decoding import questions
    from p2o_core.config import FullPolicy, VllmEngineConfig
    from p2o_core.engines.base import RolloutRequest, Sampling
    from p2o_core.engines.vllm import VllmEngine

    config = VllmEngineConfig(max_model_len=2048, max_sequences=512, gpu_memory=0.5, sleep=False)
    engine = VllmEngine(base, FullPolicy(dtype="bfloat16", device=device), config)
    requests = [RolloutRequest(str(i), q, "", tuple(range(8)), 1) for i, q in enumerate(questions("micro", 64))]
    engine.generate(requests, Sampling(1.0, 8))
    with Timed(device) as timed:
        written = engine.generate(requests, Sampling(1.0, 256))
    engine.close()
    tokens = sum(len(completion.token_ids) for completion in written)
    flop = 2.0 * tokens * (shape.body + shape.vocabulary * shape.hidden)
    return {"S5": _entry(timed, tokens / timed.seconds, flop / timed.seconds)}


def _entry(timed: Timed, tokens: float, flop: float) -> dict[str, Any]:
    return {
        "tokens_a_second": round(tokens, 1),
        "seconds": round(timed.seconds, 3),
        "peak_gib_above_start": round(timed.peak_gib, 2),
        "flop_a_second": flop,
    }


def main(
    device: Annotated[str, typer.Option(help="torch device.")] = "cuda",
    small: Annotated[bool, typer.Option(help="A tiny shape; writes nothing.")] = False,
) -> None:
    """All shapes: full fine-tuning where it fits the card's memory, LoRA otherwise."""
    import torch

    console = Console(width=140)
    check_card(device, "make bench-gpu", console)
    from benchmarks.inputs import Shape, random_policy

    name, peak = card(device)
    results: dict[str, Any] = {}
    for model, given in ({"tiny": TINY} if small else SHAPES).items():
        shape = Shape(**given, architecture="qwen3")
        weights = 2 * (shape.body + shape.vocabulary * shape.hidden)
        room = torch.cuda.get_device_properties(0).total_memory if device.startswith("cuda") else 2**62
        lora = 6 * weights > room  # weights, gradient and AdamW's moments in bfloat16, and as much for activations
        with tempfile.TemporaryDirectory(prefix="p2o-gpu-") as scratch:
            dtype = "float32" if small else "bfloat16"
            policy = random_policy(shape, Path(scratch) / "base", lora=lora, dtype=dtype, device=device)
            found = update_rows(policy, shape, device, small, lora)
            found |= passes_row(policy) | engine_row(policy, shape, device, small)
            del policy
            if device.startswith("cuda"):
                torch.cuda.empty_cache()
                found |= vllm_row(Path(scratch) / "base", shape, device)
        for entry in found.values():
            if peak and "flop_a_second" in entry:
                entry["share_of_peak"] = round(entry["flop_a_second"] / peak, 4)
        results[model] = {"trains": "LoRA" if lora else "all weights", **found}
    shown = Table("model", "row", "tokens a second", "peak GiB above start", "share of peak", title=name)
    for model, found in results.items():
        for row, entry in found.items():
            if isinstance(entry, dict):
                columns = ("tokens_a_second", "peak_gib_above_start", "share_of_peak")
                shown.add_row(model, row, *(str(entry.get(column, "–")) for column in columns))
    console.print(shown)
    if not small:
        about = {"card": name, "peak_flop_a_second": peak, "commit": commit(), "versions": versions()}
        (RESULTS / "gpu.json").write_text(json.dumps({**about, "models": results}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
