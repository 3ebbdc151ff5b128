"""Verification with math-verify in a pool of processes that can be killed.

Model output is hostile input: an answer can hang sympy or eat all memory. Every answer is parsed in a worker
with an address-space limit; one that outlasts the time-out costs its worker (the kernel kills it, pebble replaces it)
and gets the status ``timeout``. Nothing becomes a silent 0: every failure is a typed status. What one answer goes
through is in :mod:`p2o_core.verify.checking`, the processes are in :mod:`p2o_core.verify.host`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import gettempdir
from types import TracebackType

from p2o_core.types import Verdict, VerdictStatus
from p2o_core.verify.checking import Pair, window
from p2o_core.verify.host import Effort, receive, send

PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONHASHSEED")
"""Environment variables that the workers have too."""
CLOSE_S = 5.0
"""Most seconds the host may take to end its workers before it is killed, and they with it."""


class VerifierUnavailable(RuntimeError):
    """Nothing can be verified on this machine now. A silent reward of 0 for everything would be taken for hardness."""


class Verifier:
    """A pool of ``workers`` processes, each answer limited to ``timeout_s`` seconds.

    Use as a context manager; the workers start with the first call and end with the block, or with this process,
    however it ends. Calls from several threads wait for one another.

    >>> with Verifier(workers=1, timeout_s=5.0) as verifier:  # doctest: +SKIP
    ...     verifier.verify([("so \\\\boxed{52}", "52")])[0].reward
    1.0
    """

    def __init__(self, workers: int, timeout_s: float) -> None:
        if workers < 1 or timeout_s <= 0:
            raise ValueError(f"workers must be at least 1 and timeout_s positive, got {workers} and {timeout_s}")
        self.workers = workers
        self.timeout_s = timeout_s
        self.effort = Effort()
        """What the last call took."""
        self._host: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Verifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        host, self._host = self._host, None
        if host is None:
            return
        assert host.stdin is not None
        assert host.stdout is not None
        host.stdin.close()  # the host reads its end
        try:
            host.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            host.kill()
            host.wait()
        host.stdout.close()

    def verify(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """One verdict for each ``(response, gold)``, in order. Equal pairs are checked once.

        An answer that does not hang is judged before the time-out of one that does has begun.

        Raises:
            VerifierUnavailable: the workers cannot be started; no answer can bring that about.
        """
        distinct = list(dict.fromkeys(pairs))
        verdicts = dict(zip(distinct, self._asked(distinct), strict=True)) if distinct else {}
        return [verdicts[pair] for pair in pairs]

    def _asked(self, pairs: Sequence[Pair]) -> list[Verdict]:
        with self._lock:
            for _ in range(2):  # a host that was killed, by the kernel for memory for example, is started once more
                try:
                    return self._exchange([(window(response), gold) for response, gold in pairs])
                except (EOFError, OSError, ValueError):
                    self._kill()
                except BaseException:  # Ctrl-C: the reply to this batch must not answer the next
                    self._kill()
                    raise
        raise VerifierUnavailable(
            "the verifier's host process died twice; its last words are above. Mend: look for free memory and a full "
            f"{gettempdir()}, and start again."
        )

    def _exchange(self, pairs: list[Pair]) -> list[Verdict]:
        if self._host is None:
            self._host = self._started()
        assert self._host.stdin is not None
        assert self._host.stdout is not None
        send(self._host.stdin, pairs)
        verdicts, effort = receive(self._host.stdout)
        self.effort = Effort(**effort)
        return [Verdict(VerdictStatus(status), reward, extracted) for status, reward, extracted in verdicts]

    def _started(self) -> subprocess.Popen[bytes]:
        path = [folder or str(Path.cwd()) for folder in sys.path]
        settings = (os.getpid(), self.workers, self.timeout_s)
        return subprocess.Popen(
            # -P: the working directory is nothing to import from unless it is in our own path
            [sys.executable, "-P", "-c", "from p2o_core.verify.host import main; main()", *map(str, settings)],
            # no keys and passwords beside hostile answers; the fork server takes its path from there too
            env={n: v for n, v in os.environ.items() if n in PASSED_ON} | {"PYTHONPATH": os.pathsep.join(path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def _kill(self) -> None:
        host, self._host = self._host, None
        if host is None:
            return
        host.kill()
        host.wait()
        for pipe in (host.stdin, host.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what was still buffered has nowhere to go
                    pipe.close()
