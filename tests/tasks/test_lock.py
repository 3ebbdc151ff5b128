from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from p2o_core.schemas import BadInput
from tasks.running.lock import file_lock, words
from tests.clock import PATIENCE_S

HOLDER = """
import os, subprocess, sys, time
from pathlib import Path
from tasks.running.lock import file_lock

with file_lock(Path(sys.argv[1]), "the holder"):
    if sys.argv[2] == "exec":
        subprocess.Popen(["sleep", "900"], close_fds=False)
    # the child speaks: before that it may not have closed what it inherited
    if sys.argv[2] != "fork" or os.fork() == 0:
        print("in", flush=True)
    time.sleep(900)
"""


def test_the_holder_is_named_and_its_words_go_with_it(tmp_path: Path) -> None:
    path = tmp_path / "w" / ".lock"
    with file_lock(path, "p2o run"):
        with pytest.raises(BadInput, match=rf"process {os.getpid()} \(p2o run\) has been at work here since 20.*Mend"):
            file_lock(path, "p2o stage").__enter__()
        assert words(path).exists()
    assert [left.name for left in path.parent.iterdir()] == [".lock"]
    assert path.read_bytes() == b""


def test_words_that_were_left_let_the_next_one_in(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    words(path).write_text('{"pid": 1, "what": "killed", "since": "2026"}')
    with file_lock(path, "next"):
        assert "next" in words(path).read_text()
        assert "killed" not in words(path).read_text()


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), file_lock(tmp_path / ".lock", "first"):
        _ = 1 / 0
    with file_lock(tmp_path / ".lock", "next"):
        pass


@pytest.mark.parametrize("child", ["none", "fork", "exec"])
def test_a_kill_frees_it_whatever_children_live_on(tmp_path: Path, child: str) -> None:
    path = tmp_path / ".lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), child], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        with pytest.raises(BadInput, match=rf"process {process.pid} \(the holder\)"):
            file_lock(path, "next").__enter__()
        process.kill()
        process.wait()
        with file_lock(path, "next"):
            assert "next" in words(path).read_text()
        if child != "none":
            os.killpg(process.pid, 0)  # the child is still there
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("where", ["threads", "processes"])
def test_many_who_wait_are_never_in_together(tmp_path: Path, where: str) -> None:
    work = in_threads if where == "threads" else in_processes
    assert work(tmp_path / ".lock") == 1


def in_threads(path: Path) -> int:
    """How many were in at most."""
    inside, most, guard = [0], [0], threading.Lock()

    def work(number: int) -> None:
        for _ in range(10):
            with file_lock(path, str(number), wait=True):
                with guard:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.0005)
                with guard:
                    inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    return most[0]


WAITER = """
import sys, time
from pathlib import Path
from tasks.running.lock import file_lock

count = Path(sys.argv[1]).with_name("count")
for _ in range(10):
    with file_lock(Path(sys.argv[1]), "waiter", wait=True):
        seen = int(count.read_text())
        time.sleep(0.0005)
        count.write_text(str(seen + 1))
"""


def in_processes(path: Path) -> int:
    """1 when none of their additions was lost."""
    count = path.with_name("count")
    count.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", WAITER, str(path)]) for _ in range(4)]
    assert [process.wait(PATIENCE_S) for process in processes] == [0] * 4
    return 1 if count.read_text() == "40" else 2
