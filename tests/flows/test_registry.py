"""What MLflow keeps beside points: templates, policies, traces, notes. Delivered from the artefacts, once, whatever is
killed when."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import PromptVersion
from sqlalchemy import event
from sqlalchemy.engine import Engine

from flows.tracking.models import CANDIDATE
from flows.tracking.notes import MARK
from flows.tracking.prompts import BEST, POSTERIOR_TAG
from flows.tracking.store import make_store
from flows.tracking.tracker import Tracker
from p2o_core.digests import digest
from tasks.parameters.experiment import Experiment, load_experiment
from tasks.running.layout import Layout
from tests.flows.finished import BOXED, TEMPLATES, written_experiment

TABLES = {  # the table, and what may be in it once only
    "metrics": "run_uuid, key, step",
    "logged_models": "name, source_run_id",
    "logged_model_metrics": "model_id, metric_name, metric_step",
    "inputs": "source_type, source_id, destination_type, destination_id",
    "registered_models": "name",
    "model_versions": "name, version",
    "registered_model_aliases": "name, alias",
    "trace_info": "request_id",
    "spans": "trace_id, span_id",
    "assessments": "trace_id, name",
    "entity_associations": "source_id, destination_id",
    "runs": "name",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: making one takes longer than a delivery."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    make_store(f"sqlite:///{path}")
    return path


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def opened(store: Path, root: Path, solved: list[float]) -> tuple[Experiment, Layout]:
    experiment, layout = written_experiment(root, solved=solved)
    shutil.copyfile(store, root / "mlflow.db")
    return experiment, layout


def told(root: Path) -> dict[str, int]:
    """Rows by table; none there twice."""
    counts = {}
    with sqlite3.connect(root / "mlflow.db") as database:
        for table, key in TABLES.items():
            counts[table] = database.execute(f"select count(*) from {table}").fetchone()[0]
            unique = database.execute(f"select count(*) from (select distinct {key} from {table})").fetchone()[0]
            assert unique == counts[table], table
    return counts


@pytest.fixture(scope="module")
def delivered(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two iterations, after the second of which less is solved."""
    root = tmp_path_factory.mktemp("delivered") / "clone"
    experiment, layout = opened(store, root, [0.25, 0.75, 0.5])
    delivery = Tracker(experiment, layout, patient=True).log_finished()
    assert (delivery.ok, delivery.logged) == (True, 3), str(delivery)
    return root


@pytest.fixture
def client(delivered: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{delivered / 'mlflow.db'}")


def test_again_changes_nothing(delivered: Path, tmp_path: Path) -> None:
    before = told(delivered)
    root = tmp_path / "clone"
    shutil.copytree(delivered, root)
    layout = Layout(root, "tiny")
    assert Tracker(load_experiment(root / "params.yaml"), layout, patient=True).log_finished().ok
    assert told(root) == before
    with sqlite3.connect(root / "mlflow.db") as database:  # as a kill before the tags
        database.execute("delete from tags where key in ('p2o.logged', 'p2o.recorded')")
    tracker = Tracker(load_experiment(root / "params.yaml"), layout, patient=True)
    assert tracker.log_finished().logged == 3
    assert told(root) == before
    assert tracker.register(1)[1] is not None, "p2o promote --candidate --iteration 1"
    assert Tracker(tracker.experiment, layout, patient=True).log_finished().ok
    candidate = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_model_version_by_alias("tests", CANDIDATE)
    assert candidate.tags["p2o.iteration"] == "1", "a later delivery does not take it back"


def prompt_versions(client: MlflowClient) -> dict[str, PromptVersion]:
    return {version.template: version for version in client.search_prompt_versions("tiny-templates")}


def test_templates_are_prompt_versions_as_they_are_written(client: MlflowClient, delivered: Path) -> None:
    versions = prompt_versions(client)
    assert set(versions) == set(TEMPLATES), "the empty template is no prompt"
    assert [int(versions[text].version) for text in TEMPLATES] == [1, 2, 3]
    for text, version in versions.items():
        again = client.get_prompt_version("tiny-templates", str(version.version))
        assert again is not None
        assert again.template == text
    assert versions[BOXED].tags["p2o.parents"] == "the empty template"
    assert versions[TEMPLATES[1]].tags["p2o.parents"] == "version 1"
    assert versions[TEMPLATES[1]].tags["p2o.dev_score"] == "0.5000"
    assert "as of iteration 2" in versions[BOXED].tags[POSTERIOR_TAG]
    tags = versions[TEMPLATES[2]].tags
    assert (tags["p2o.iteration"], tags["p2o.seed"], tags["p2o.arm"]) == ("2", "0", "p2o")
    assert tags["p2o.policy"] == digest(delivered / "data/runs/tiny/1/policy"), "the search read iteration 1's policy"
    assert client.get_prompt_version_by_alias("tiny-templates", BEST).template == TEMPLATES[2]
    (experiment,) = (e for e in client.search_experiments() if e.name == "tests")
    prompt = client.get_prompt("tiny-templates")
    assert prompt is not None
    assert prompt.tags["_mlflow_experiment_ids"] == f",{experiment.experiment_id},"
    runs = {run.data.tags.get("p2o.iteration"): run for run in client.search_runs([experiment.experiment_id])}
    assert runs["1"].data.tags["mlflow.linkedPrompts"].count("tiny-templates") == 2
    assert runs[None].data.tags["mlflow.linkedPrompts"] == runs["2"].data.tags["mlflow.linkedPrompts"]


def test_policies_are_models_without_their_weights(client: MlflowClient, delivered: Path) -> None:
    (experiment,) = (e for e in client.search_experiments() if e.name == "tests")
    models = {m.name: m for m in client.search_logged_models([experiment.experiment_id])}
    assert set(models) == {"tiny-0", "tiny-1", "tiny-2"}
    for iteration in range(3):
        model = models[f"tiny-{iteration}"]
        assert str(model.status) == "READY"
        assert model.tags["p2o.policy"] == digest(delivered / "data/runs/tiny" / str(iteration) / "policy")
        assert {metric.key for metric in model.metrics or []} == {"accuracy/easy", "accuracy/hard"}
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`p2o.key` LIKE '%'")
    assert parent.outputs is not None
    assert sorted(output.step for output in parent.outputs.model_outputs) == [0, 1, 2]
    candidate = client.get_model_version_by_alias("tests", CANDIDATE)
    assert candidate.tags["p2o.policy"] == models["tiny-2"].tags["p2o.policy"]
    assert not list((delivered / "mlartifacts").rglob("*.safetensors"))
    assert {path.name for path in (delivered / "mlartifacts" / "models").rglob("*") if path.is_file()} == {
        *("MLmodel", "policy.json")
    }


def test_a_sample_of_rollouts_is_traced(client: MlflowClient) -> None:
    (experiment,) = (e for e in client.search_experiments() if e.name == "tests")
    traces = client.search_traces(locations=[experiment.experiment_id])
    by_iteration = {i: [t for t in traces if t.info.tags["p2o.iteration"] == str(i)] for i in (1, 2)}
    assert [len(found) for found in by_iteration.values()] == [6, 6]
    kinds = {trace.info.tags["p2o.kind"] for trace in by_iteration[2]}
    assert kinds == {"rescued", "hard", "lost", "masked"}
    (run,) = client.search_runs([experiment.experiment_id], "tags.`p2o.iteration` = '2'")
    linked = client.search_traces(locations=[experiment.experiment_id], run_id=run.info.run_id)
    assert {trace.info.trace_id for trace in linked} == {trace.info.trace_id for trace in by_iteration[2]}
    for trace in traces:
        (span,) = trace.data.spans
        verdict, answer = sorted(trace.info.assessments, key=lambda a: a.name, reverse=True)
        assert (verdict.source.source_type, verdict.source.source_id) == ("CODE", "math-verify")
        assert verdict.feedback is not None
        assert verdict.feedback.value == (trace.info.tags["p2o.kind"] in ("rescued", "masked"))
        assert answer.expectation is not None
        assert answer.expectation.value in verdict.rationale
        template = span.inputs["template"]
        assert (trace.info.tags.get("mlflow.linkedPrompts") is not None) == bool(template)
    version = prompt_versions(client)[TEMPLATES[0]]
    found = client.search_traces(
        locations=[experiment.experiment_id], filter_string=f"prompt = 'tiny-templates/{version.version}'"
    )
    assert found, "the prompt's page shows its traces"


def test_the_pages_say_which_arm_at_how_many_tokens(client: MlflowClient, delivered: Path) -> None:
    (experiment,) = (e for e in client.search_experiments() if e.name == "tests")
    note = experiment.tags["mlflow.note.content"]
    assert "| tiny | p2o | 1 | " in note
    assert note.startswith(MARK)
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`p2o.key` LIKE '%'")
    assert parent.info.run_name == "tiny · p2o · seed 0"
    assert {entry.dataset.name for entry in parent.inputs.dataset_inputs} == {"train.parquet", "heldout.parquet"}
    tokens = [p.value for p in client.get_metric_history(parent.info.run_id, "tokens/cumulative")]
    steps = [p.step for p in client.get_metric_history(parent.info.run_id, "by_tokens/accuracy/hard")]
    assert steps == tokens


def test_what_a_person_wrote_above_the_note_stays(delivered: Path, tmp_path: Path) -> None:
    from flows.tracking.notes import write_note

    root = tmp_path / "clone"
    shutil.copytree(delivered, root)
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "tests")
    client.set_experiment_tag(experiment.experiment_id, "mlflow.note.content", "Mine.\n\n")
    for _ in range(2):
        write_note(client, experiment.experiment_id)
    note = client.get_experiment(experiment.experiment_id).tags["mlflow.note.content"]
    assert note.startswith("Mine.\n\n" + MARK)
    assert note.count("| tiny | p2o |") == 1


def test_switched_off(store: Path, tmp_path: Path) -> None:
    experiment, layout = opened(store, tmp_path / "clone", [0.25, 0.5])
    tracking = experiment.tracking.model_copy(update={"registry": False, "traces": 0})
    assert (
        Tracker(experiment.model_copy(update={"tracking": tracking}), layout, patient=True).log_finished().logged == 2
    )
    counts = told(tmp_path / "clone")
    assert counts["metrics"] > 0
    assert not any(counts[name] for name in ("logged_models", "model_versions", "trace_info", "spans"))


def killed_at(statement: int, experiment: Experiment, layout: Layout) -> bool:
    """Deliver in a process that kills itself (-9) before so many SQL statements. Returns whether it came to that."""
    child = os.fork()
    if child == 0:
        seen = [0]

        def count(*_: object) -> None:
            seen[0] += 1
            if seen[0] == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(Engine, "before_cursor_execute", count)
        event.listen(Engine, "commit", count)
        ok = Tracker(experiment, layout, patient=True).log_finished().ok
        os._exit(0 if ok else 1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_killed_anywhere_and_delivered_once(store: Path, tmp_path: Path) -> None:
    """kill -9 between any two statements to the store, then another process's delivery."""
    experiment, layout = opened(store, tmp_path / "whole", [0.25, 0.5])
    assert not killed_at(10**9, experiment, layout)
    whole, kills = told(tmp_path / "whole"), 0
    for statement in (150, 210, 250, 300, 350, 420, 480, 550):
        root = tmp_path / str(statement)
        experiment, layout = opened(store, root, [0.25, 0.5])
        kills += killed_at(statement, experiment, layout)
        assert not killed_at(10**9, experiment, layout)
        assert told(root) == whole, statement
    assert kills > 5
