"""The iteration in memory is the staged one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from p2o_core import IterationConfig, Memory, p2o_iteration
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.optimizer import STATE_FILE, PolicyOptimizer
from p2o_core.policy import Policy
from p2o_core.schemas import read_json, read_problems, read_record, read_rows
from p2o_core.transfer import TemplatedOutcome
from p2o_core.types import Assignment, Completion, HardSample, Judged, TemplateSearch
from p2o_core.update_report import IterationUpdate
from p2o_core.verify import Verifier
from tasks.parameters.experiment import load_experiment
from tests.platform.workspace import Workspace


@pytest.fixture
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)


def test_in_memory_and_staged_iterations_are_the_same_to_the_bit(
    trained: Workspace, verifier: Verifier, one_thread: None, tmp_path: Path
) -> None:
    """Token ids, templates, weights and AdamW's moments, over two iterations with one policy kept in memory."""
    experiment, base = load_experiment(trained.root / "params.yaml"), trained.root / "data" / "base"
    config = IterationConfig(experiment.rollout, experiment.mine, experiment.evolve, experiment.distill)
    policy = Policy.load(trained.run / "0" / "policy", base / "policy", experiment.policy)
    optimizer = PolicyOptimizer(policy, config.distill)
    engine = EmbeddedEngine(policy, rows_per_batch=experiment.engine.rows_per_batch)
    memory = Memory()
    for number in (1, 2):
        done = p2o_iteration(
            policy,
            optimizer,
            engine,
            verifier,
            read_problems(base / "train.parquet"),
            read_json(base / "phrases.json"),
            config,
            memory,
            iteration=number,
            seed=experiment.seed,
        )
        memory = done.memory
        staged = trained.run / str(number)
        assert done.bare == read_rows(staged / "rollouts.parquet", Completion)
        assert done.hard == read_rows(staged / "hard.parquet", HardSample)
        assert done.search == read_record(staged / "templates.json", TemplateSearch)
        assert done.plan == read_rows(staged / "assignment.parquet", Assignment)
        assert done.templated == read_rows(staged / "templated.parquet", Completion)
        verdicts = [*read_rows(staged / "verdicts.parquet", Judged)]
        assert done.outcomes == read_rows(staged / "transfer.parquet", TemplatedOutcome)
        assert any(outcome.log_ratio is not None for outcome in done.outcomes)
        assert done.verdicts == verdicts + read_rows(staged / "templated_verdicts.parquet", Judged)
        for folder, save, file in (
            ("policy", policy.save, "model.safetensors"),
            ("optimizer", optimizer.save, STATE_FILE),
        ):
            save(tmp_path / str(number) / folder)
            assert (tmp_path / str(number) / folder / file).read_bytes() == (staged / folder / file).read_bytes()
        assert done.report.steps > 0
        assert done.report.metrics == read_record(staged / "update.json", IterationUpdate).metrics
