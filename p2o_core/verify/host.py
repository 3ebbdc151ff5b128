"""The process that owns the verifier's workers, a child of :class:`p2o_core.verify.verifier.Verifier`.

It imports neither torch nor the caller's main module, so its workers do not either, and its fork server is its own:
vLLM and torch may use multiprocessing as they like. On standard input come batches, on standard output go replies, a
line of JSON each: nothing that has been near model output is unpickled in the caller's process.

An answer is checked in one or two passes. The first look is limited in processor time: the kernel kills the worker,
also inside an integer power that never returns to Python. What outlasts it waits until all others have had theirs and
gets the full time-out then. Honest answers wait for nobody's time-out, and no answer is timed out because others use
the processors: in the second pass it has one of ``workers`` processes for itself, as if there were no first.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as PoolTimeout
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from pebble import CONSTS, ProcessExpired, ProcessFuture, ProcessPool

from p2o_core.types import Verdict, VerdictStatus
from p2o_core.verify.checking import checked, failed

Pair = tuple[str, str]

LOOK_CPU_S = 0.06
"""Processor seconds of the first look. Few answers need more (none of 200 from MATH-500, 11 of 200 from Minerva), and
get it in the second pass; more would cost honest answers their throughput beside hanging ones."""

LOOK_WALL_S = 0.5
"""Most seconds a first look may last on a busy machine; no verdict hangs on it, the second pass follows."""

WORKER_MEMORY_BYTES = 1024**3
"""Address space a worker may add to what it has at start (beyond it: MemoryError). Honest answers add some 20 MB."""

WORKER_ANSWERS = 2_000
"""Answers after which a worker is replaced, so that what sympy remembers does not pile up against the limit."""

WARM_UP_S = 120.0
"""Most seconds until the workers answer at all; not part of an answer's time-out."""

ATTEMPTS = 3
"""Pools in a row that may break down without one verdict (a worker's end is none: that is the answer's own doing)."""


def _start_worker() -> None:
    from p2o_core.verify import preload

    preload.die_with_parent()
    if preload.FORK_SERVER not in (os.getppid(), os.getpid()):
        os._exit(1)  # the fork server died before the kernel was told to watch it
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)  # a handler in Python would never run while C code hangs
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + WORKER_MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _check_alive() -> bool:
    return True


def _limited(pair: Pair, timer: int, seconds: float) -> Verdict:
    signal.setitimer(timer, seconds)  # the default action of both timers' signals ends the process
    try:
        return checked(pair)
    finally:
        signal.setitimer(timer, 0)  # off before the pool's locks are taken: dying with one would stop the pool


@dataclass(frozen=True)
class Effort:
    """What one call took: seconds until all had had their first look, answers that outlasted it, seconds of the second
    pass over these, workers killed and replaced, and pools that broke down and were made anew.

    >>> Effort(look_s=0.4, late=1, full_s=5.0, replaced=2).late
    1
    """

    look_s: float = 0.0
    late: int = 0
    full_s: float = 0.0
    replaced: int = 0
    broken: int = 0


class Host:
    """``workers`` processes, each answer limited to ``timeout_s`` seconds."""

    def __init__(self, workers: int, timeout_s: float) -> None:
        self.workers = workers
        self.timeout_s = timeout_s
        self._replaced = 0
        self._broken = 0
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["p2o_core.verify.preload"])
        self._pool: ProcessPool | None = None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def verify(self, pairs: Sequence[Pair]) -> tuple[list[Verdict], Effort]:
        """One verdict for each pair, in order."""
        self._started()
        started, self._replaced, self._broken = time.monotonic(), 0, 0
        verdicts = self._run(pairs, signal.ITIMER_PROF, LOOK_CPU_S, LOOK_WALL_S, None)
        looked = time.monotonic()
        late = [i for i, verdict in enumerate(verdicts) if verdict is None]
        # the pool's own limit is only there should the kernel's timer have been taken away
        wall_s, broken = self.timeout_s + 0.5, failed("the pool of workers broke down again and again")
        second = self._run([pairs[i] for i in late], signal.ITIMER_REAL, self.timeout_s, wall_s, broken)
        for i, verdict in zip(late, second, strict=True):
            verdicts[i] = verdict if verdict is not None else Verdict(VerdictStatus.TIMEOUT, 0.0, "")
        effort = Effort(looked - started, len(late), time.monotonic() - looked, self._replaced, self._broken)
        return [verdict for verdict in verdicts if verdict is not None], effort

    def _run(
        self, pairs: Sequence[Pair], timer: int, limit_s: float, wall_s: float, broken: Verdict | None
    ) -> list[Verdict | None]:
        """One pass; None for what outlasted it, ``broken`` for what no pool could say anything about."""
        verdicts: list[Verdict | None] = [broken] * len(pairs)
        open_, attempts = list(range(len(pairs))), ATTEMPTS
        while open_ and attempts:
            futures = self._scheduled([pairs[i] for i in open_], timer, limit_s, wall_s)
            left = open_[len(futures) :]
            for i, future in zip(open_, futures, strict=False):
                try:
                    verdicts[i] = self._outcome(future)
                except (BrokenProcessPool, CancelledError):
                    left.append(i)
            if left:  # on a starved machine pebble may see a worker's end before the message which answer it had
                self._broken += 1
                self.close()
            attempts = ATTEMPTS if len(left) < len(open_) else attempts - 1
            open_ = left
        return verdicts

    def _scheduled(
        self, pairs: Sequence[Pair], timer: int, limit_s: float, wall_s: float
    ) -> list[ProcessFuture[Verdict]]:
        """Futures of the pairs, of fewer if the pool breaks down meanwhile."""
        futures: list[ProcessFuture[Verdict]] = []
        try:
            pool = self._started()
            for pair in pairs:
                futures.append(pool.schedule(_limited, args=[pair, timer, limit_s], timeout=wall_s))
        except RuntimeError:  # BrokenProcessPool is one, a pool that is no longer active another
            pass
        return futures

    def _outcome(self, future: ProcessFuture[Verdict]) -> Verdict | None:
        try:
            return future.result()
        except PoolTimeout:
            self._replaced += 1
            return None
        except ProcessExpired as error:
            self._replaced += 1
            if error.exitcode in (-signal.SIGPROF, -signal.SIGALRM):
                return None
            return failed(f"worker died, exit code {error.exitcode}")

    def _started(self) -> ProcessPool:
        if self._pool is None:
            self._pool = ProcessPool(
                max_workers=self.workers,
                max_tasks=WORKER_ANSWERS,
                initializer=_start_worker,
                context=self._context,
            )
            for future in [self._pool.schedule(_check_alive, timeout=WARM_UP_S) for _ in range(self.workers)]:
                future.result(WARM_UP_S)
        return self._pool


def send(pipe: IO[bytes], message: object) -> None:
    """One line of JSON; lone surrogates survive it as escapes."""
    pipe.write(json.dumps(message).encode() + b"\n")
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """The next line. Raises EOFError where there is none, or not a whole one."""
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError("the other side is gone")
    return json.loads(line)


def _end_with(parent: int) -> None:
    """End when the parent does, also after its kill -9; the fork server and with it the workers follow."""
    while os.getppid() == parent:
        time.sleep(0.25)
    os._exit(0)


def _serve(host: Host, requests: IO[bytes], replies: IO[bytes]) -> None:
    while True:
        try:
            pairs = [(response, gold) for response, gold in receive(requests)]
        except EOFError:
            return
        verdicts, effort = host.verify(pairs)
        send(replies, [[[v.status.value, v.reward, v.extracted] for v in verdicts], asdict(effort)])


def main() -> None:
    """``host PARENT WORKERS TIMEOUT_S``, started by the verifier only."""
    parent, workers, timeout_s = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides what it means
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a library prints must not land among the replies
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    CONSTS.sleep_unit = 0.01  # how long until the pool notices a dead worker
    host = Host(workers, timeout_s)
    try:
        _serve(host, requests, replies)
    finally:
        host.close()
