"""The iteration in memory is the staged one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from p2o_core import Iteration, IterationConfig, Memory, p2o_iteration
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.optimizer import STATE_FILE, PolicyOptimizer
from p2o_core.policy import Policy
from p2o_core.schemas import read_json, read_problems, read_record, read_rows
from p2o_core.transfer import TemplatedOutcome
from p2o_core.types import Assignment, Completion, HardSample, Judged, SearchCost, TemplateSearch
from p2o_core.update_report import IterationUpdate
from p2o_core.verify import Verifier
from tasks.parameters.experiment import Experiment, load_experiment
from tasks.running.layout import Layout
from tests.platform.workspace import Workspace


@pytest.fixture
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)


def test_in_memory_and_staged_iterations_are_the_same_to_the_bit(
    trained: Workspace, verifier: Verifier, one_thread: None, tmp_path: Path
) -> None:
    """Token ids, templates, weights and AdamW's moments, over two iterations with one policy kept in memory."""
    experiment = load_experiment(trained.root / "params.yaml")
    for done in compared(experiment, Layout(trained.root, "tiny"), verifier, tmp_path):
        assert done.search.status == "searched"


def test_so_are_those_of_a_search_online(
    online: Workspace, verifier: Verifier, one_thread: None, tmp_path: Path
) -> None:
    """The second iteration knows what the first one's templated rollouts solved."""
    experiment = load_experiment(online.root / "params.yaml")
    first, second = compared(experiment, Layout(online.root, "tiny"), verifier, tmp_path)
    assert first.search.status == second.search.status == "reflected"
    assert first.search.cost == second.search.cost == SearchCost()
    tried = sum(template.trials for template in second.search.templates)
    assert tried == len(first.templated) > 0
    solved = sum(evidence.solved for template in second.search.templates for evidence in template.evidence.values())
    assert solved == sum(trial.reward for trial in first.tried)
    assert {kind for template in second.search.templates for kind in template.evidence} == {"sum", "product"}
    assert any(template.parents for template in second.search.templates)


def compared(experiment: Experiment, layout: Layout, verifier: Verifier, drafts: Path) -> list[Iteration]:
    """Two iterations in memory, each the same to the bit as the stages' artefacts."""
    base = layout.base
    config = IterationConfig(experiment.rollout, experiment.mine, experiment.evolve, experiment.distill)
    policy = Policy.load(layout.iteration(0) / "policy", base / "policy", experiment.policy)
    optimizer = PolicyOptimizer(policy, config.distill)
    engine = EmbeddedEngine(policy, rows_per_batch=experiment.engine.rows_per_batch)
    memory, iterations = Memory(), []
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
        staged = layout.iteration(number)
        assert done.bare == read_rows(staged / "rollouts.parquet", Completion)
        assert done.hard == read_rows(staged / "hard.parquet", HardSample)
        assert done.search == read_record(staged / "templates.json", TemplateSearch)
        assert done.plan == read_rows(staged / "assignment.parquet", Assignment)
        assert done.templated == read_rows(staged / "templated.parquet", Completion)
        verdicts = [*read_rows(staged / "verdicts.parquet", Judged)]
        assert done.verdicts == verdicts + read_rows(staged / "templated_verdicts.parquet", Judged)
        outcomes = read_rows(staged / "transfer.parquet", TemplatedOutcome)
        assert [trial.log_ratio for trial in done.tried] == [outcome.log_ratio for outcome in outcomes]
        assert any(outcome.log_ratio is not None for outcome in outcomes)
        for folder, save, file in (
            ("policy", policy.save, "model.safetensors"),
            ("optimizer", optimizer.save, STATE_FILE),
        ):
            save(drafts / str(number) / folder)
            assert (drafts / str(number) / folder / file).read_bytes() == (staged / folder / file).read_bytes()
        assert done.report.steps > 0
        assert done.report.metrics == read_record(staged / "update.json", IterationUpdate).metrics
        iterations.append(done)
    return iterations
