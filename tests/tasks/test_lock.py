from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from p2o_core.schemas import BadInput
from tasks.running.lock import alone


def test_the_holder_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "w" / ".lock"
    with alone(path, "p2o run"):
        with pytest.raises(BadInput, match=rf"process {os.getpid()} \(p2o run\) has been at work here since 20.*Mend"):
            alone(path, "p2o stage").__enter__()
        assert path.exists()
    assert not path.exists()


def test_a_lock_that_was_left_lets_the_next_one_in(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text('{"pid": 1, "what": "killed", "since": "2026"}')
    with alone(path, "next"):
        assert "next" in path.read_text()
        assert "killed" not in path.read_text()


def test_many_who_wait_are_never_in_together(tmp_path: Path) -> None:
    """Deleting the file on the way out must not let two in on different files."""
    path, inside, most = tmp_path / ".lock", [0], [0]
    guard = threading.Lock()

    def work(number: int) -> None:
        for _ in range(20):
            with alone(path, str(number), wait=True):
                with guard:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.0005)
                with guard:
                    inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert most[0] == 1
