"""Seconds, memory and limits, inside the process that is measured. Linux only: they come from /proc."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    import torch

LIMIT_S = 0.4
"""Processor seconds for which a limit is measured."""
COPIED = 2**28
"""Bytes of the array that is copied: far beyond any cache."""


class Meter:
    """Measures its ``with`` block, once.

    ``wall_s`` and ``cpu_s`` are seconds, the latter of this process, its ended children and ``beside`` (further
    processes that work for it); ``peak_bytes`` is this process's largest resident set *above the one at the start*.
    With ``profile`` the operators of torch that take longest are kept in ``operators``; then the seconds are no
    measurement.
    """

    def __init__(self, profile: bool = False) -> None:
        self.wall_s = self.cpu_s = 0.0
        self.peak_bytes = 0
        self.operators: list[dict[str, Any]] = []
        self.beside: Callable[[], list[int]] = list
        self._profiler: Any = None
        self._profile = profile

    def __enter__(self) -> Meter:
        gc.collect()
        if self._profile:
            from torch.profiler import ProfilerActivity, profile

            self._profiler = profile(activities=[ProfilerActivity.CPU])
            self._profiler.__enter__()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc(5))
        self._resident = _status("VmRSS")
        self._cpu, self._wall = self._spent(), time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.wall_s, self.cpu_s = time.perf_counter() - self._wall, self._spent() - self._cpu
        self.peak_bytes = max(0, _status("VmHWM") - self._resident)
        if self._profiler is not None:
            self._profiler.__exit__(None, None, None)
            spent = self._profiler.key_averages()
            total = sum(event.self_cpu_time_total for event in spent) or 1
            longest = sorted(spent, key=lambda event: -event.self_cpu_time_total)[:8]
            self.operators = [{"operator": e.key, "share": round(e.self_cpu_time_total / total, 3)} for e in longest]

    def numbers(self) -> dict[str, float]:
        """For a side's result."""
        return {"wall_s": self.wall_s, "cpu_s": self.cpu_s, "peak_bytes": float(self.peak_bytes)}

    def _spent(self) -> float:
        times = os.times()
        spent = times.user + times.system + times.children_user + times.children_system
        for pid in self.beside():
            try:
                other = psutil.Process(pid).cpu_times()
            except psutil.NoSuchProcess:
                continue
            spent += other.user + other.system + other.children_user + other.children_system
        return spent


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}. Mend: run the benchmarks on Linux.")


def repeated(work: Callable[[], object], units: float) -> float:
    """``units`` of ``work`` a processor second: the best of three rounds, after one that warms up."""
    work()
    best = 0.0
    for _ in range(3):
        count, started = 0, time.process_time()
        while (spent := time.process_time() - started) < LIMIT_S / 3:
            work()
            count += 1
        best = max(best, count * units / spent)
    return best


def product_rate(rows: int, inner: int, columns: int, dtype: torch.dtype) -> float:
    """FLOP a processor second that a matrix product [rows, inner] @ [inner, columns] reaches here."""
    import torch

    left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
    out = torch.empty(rows, columns, dtype=dtype)
    return repeated(lambda: torch.mm(left, right.T, out=out), 2.0 * rows * inner * columns)


def copy_rate() -> float:
    """Bytes read and written a processor second in a copy of :data:`COPIED` bytes."""
    import torch

    source = torch.ones(COPIED, dtype=torch.uint8)
    target = torch.empty_like(source)
    return repeated(lambda: target.copy_(source), 2.0 * COPIED)


def linear_rate(model: torch.nn.Module, rows: int) -> float:
    """Tokens a processor second if decoding ``rows`` side by side were nothing but the model's linear layers."""
    import torch

    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    inputs = [torch.randn(rows, layer.in_features, dtype=layer.weight.dtype) for layer in layers]

    @torch.inference_mode()
    def all_layers() -> None:
        for layer, x in zip(layers, inputs, strict=True):
            torch.nn.functional.linear(x, layer.weight, layer.bias)

    return repeated(all_layers, float(rows))
