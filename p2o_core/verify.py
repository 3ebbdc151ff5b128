"""Verification with math-verify in a pool of processes that can be killed.

Model output is hostile input: an answer can hang sympy or eat all memory. Every answer is parsed in a worker
with an address-space limit; one that outlasts the time-out costs its worker (pebble kills and replaces it) and
gets the status ``timeout``. Nothing becomes a silent 0: every failure is a typed status.
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
from collections.abc import Sequence
from concurrent.futures import TimeoutError as PoolTimeout
from pathlib import Path
from types import TracebackType

from pebble import ProcessExpired, ProcessPool

from p2o_core.equivalence import contradict, equivalent, last_boxed
from p2o_core.types import Verdict, VerdictStatus

WORKER_MEMORY_BYTES = 2 * 1024**3
"""Address space a worker may add to what it needs at start; beyond it sympy gets a MemoryError."""

WARM_UP_S = 120.0
"""Most seconds a worker may take to import math-verify; not part of an answer's time-out."""


def _start_worker() -> None:
    import math_verify  # noqa: F401  (pay for the import once, outside any answer's time-out)

    # math-verify warns at every call that its own time-outs are off; ours is the kill from outside
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + WORKER_MEMORY_BYTES,) * 2)


def _check_alive() -> bool:
    return True


def check_answer(pair: tuple[str, str]) -> Verdict:
    """Compare one response with its gold answer. Runs in a worker; math-verify's own time-outs are off.

    The gold answer is read as LaTeX inside a box. The response is read by math-verify's default extraction: a
    boxed answer first, otherwise the last expression that looks like one. Where math-verify says no, signs and units
    on one side only are taken off (:mod:`p2o_core.equivalence`).
    """
    from math_verify import parse, verify

    response, gold = pair
    gold_parsed = parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
    parsed = parse(response, parsing_timeout=None)
    answer = last_boxed(response)
    if answer is None and parsed:
        answer = str(parsed[-1])  # what math-verify took for the answer, as it stood
    if answer is not None and contradict(answer, gold):
        return Verdict(VerdictStatus.WRONG, 0.0, answer[:200])
    if gold_parsed and parsed and verify(gold_parsed, parsed, timeout_seconds=None):
        return Verdict(VerdictStatus.CORRECT, 1.0, str(parsed[-1])[:200])
    if answer is None:
        return Verdict(VerdictStatus.UNPARSABLE, 0.0, "")

    def same(one: str, other: str) -> bool:
        left, right = (parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (one, other))
        return bool(left and right) and bool(verify(right, left, timeout_seconds=None))

    if equivalent(answer, gold, same):
        return Verdict(VerdictStatus.CORRECT, 1.0, answer[:200])
    if not gold_parsed:
        return Verdict(VerdictStatus.ERROR, 0.0, f"gold answer unreadable: {gold[:80]}")
    status = VerdictStatus.WRONG if parsed else VerdictStatus.UNPARSABLE
    return Verdict(status, 0.0, answer[:200] if parsed else "")


class Verifier:
    """A pool of ``workers`` processes, each answer limited to ``timeout_s`` seconds.

    Use as a context manager; the workers start with the first call and end with the block.

    >>> with Verifier(workers=1, timeout_s=5.0) as verifier:  # doctest: +SKIP
    ...     verifier.verify([("so \\\\boxed{52}", "52")])[0].reward
    1.0
    """

    def __init__(self, workers: int, timeout_s: float) -> None:
        if workers < 1 or timeout_s <= 0:
            raise ValueError(f"workers must be at least 1 and timeout_s positive, got {workers} and {timeout_s}")
        self.workers = workers
        self.timeout_s = timeout_s
        self._pool: ProcessPool | None = None

    def __enter__(self) -> Verifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def _started(self) -> ProcessPool:
        if self._pool is None:
            # spawn: forking a process in which torch runs threads can deadlock the child
            self._pool = ProcessPool(
                max_workers=self.workers,
                initializer=_start_worker,
                context=multiprocessing.get_context("spawn"),
            )
            for future in [self._pool.schedule(_check_alive, timeout=WARM_UP_S) for _ in range(self.workers)]:
                future.result()
        return self._pool

    def verify(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """One verdict for each ``(response, gold)``, in order. Equal pairs are checked once."""
        distinct = list(dict.fromkeys(pairs))
        pool = self._started()
        futures = [pool.schedule(check_answer, args=[pair], timeout=self.timeout_s) for pair in distinct]
        verdicts = {}
        for pair, future in zip(distinct, futures, strict=True):
            try:
                verdicts[pair] = future.result()
            except PoolTimeout:
                verdicts[pair] = Verdict(VerdictStatus.TIMEOUT, 0.0, "")
            except ProcessExpired as error:
                verdicts[pair] = Verdict(VerdictStatus.ERROR, 0.0, f"worker died, exit code {error.exitcode}")
            except Exception as error:  # raised inside math-verify or sympy: typed, counted, never a silent 0
                verdicts[pair] = Verdict(VerdictStatus.ERROR, 0.0, f"{type(error).__name__}: {error}"[:200])
        return [verdicts[pair] for pair in pairs]
