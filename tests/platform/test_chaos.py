"""A few kills of stress/chaos.py; `make chaos` makes a hundred."""

from __future__ import annotations

import random

import pytest
from rich.console import Console

from stress.chaos import delete_from, kill_at_random, points
from stress.chaos import digests as everything
from tests.platform.workspace import Workspace


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(copy: Workspace, trained: Workspace) -> None:
    delete_from(copy.root, random.Random(1))
    (copy.root / "mlflow.db").unlink()
    done = kill_at_random(copy.root, kills=3, seed=3, console=Console())
    assert sum(done.kills.values()) == 3
    assert done.failures == []
    assert everything(copy.root) == everything(trained.root)
    told = points(copy.root)
    assert told == points(trained.root)
    assert max(told.values()) == 1
    assert not list((copy.root / "data").rglob(".*.tmp"))
    assert "up to date" in copy.sh("dvc status").stdout
