"""Policies in MLflow: each iteration's a logged model, and what a run ended with a version in the model registry.

No weights are copied: a model says where its policy lies and what its digest is (``flows/tracking/served.py`` loads it
from there). MLflow gives models and versions ids of its own, so the store is asked for what it has before one is made.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from flows.tracking.served import write_model
from flows.versioning.dvc_lock import recorded_outputs
from flows.versioning.pipeline import node
from p2o_core.schemas import read_json
from tasks.registry import STAGES
from tasks.running.manifests import manifest_path, read_manifest

if TYPE_CHECKING:
    from flows.tracking.records import Finished
    from tasks.parameters.experiment import Experiment
    from tasks.running.layout import Layout

POLICY_TAG = "p2o.policy"
"""Digest of the policy's folder, on logged models and on versions."""
WORKSPACE_TAG = "p2o.workspace"
"""Where that folder was when it was last registered: a workspace may be moved or copied."""
DVC_TAG = "p2o.dvc"
"""On versions: JSON, the policy's files, its base and its problems by path, as DVC's cache calls them: `p2o gc` keeps
them, whatever becomes of the workspace."""
CANDIDATE, CHAMPION = "candidate", "champion"


def policy_digest(layout: Layout, iteration: int) -> str:
    """As the manifest of the stage that wrote it says."""
    folder = layout.iteration(iteration)
    made = read_manifest(manifest_path(folder, _maker(iteration)))
    return made.outputs[layout.relative(folder / "policy")]


def _maker(iteration: int) -> str:
    """The stage that writes an iteration's policy."""
    return "distill" if iteration else "init"


def cached_as(layout: Layout, iteration: int) -> dict[str, str]:
    """What the cache calls a policy, its base and its problems, by path, manifests included; not the optimiser's state,
    which is twice the weights. Empty where DVC has no record of them."""
    maker, folder = _maker(iteration), layout.iteration(iteration)
    manifest, base = manifest_path(folder, maker), manifest_path(layout.base, "prepare")
    made = recorded_outputs(layout.workspace, node(STAGES[maker], iteration), manifest)
    shared = recorded_outputs(layout.workspace, "prepare", base)
    if not (made and shared):
        return {}
    return {path: made[path] for path in map(layout.relative, (folder / "policy", manifest))} | shared


def base_digests(layout: Layout) -> dict[str, str]:
    """What a policy was trained from, and what it is measured on: tags of models."""
    outputs = read_manifest(manifest_path(layout.base, "prepare")).outputs
    names = {"base": "policy", "train": "train.parquet", "heldout": "heldout.parquet"}
    return {f"p2o.{name}": outputs[layout.relative(layout.base / file)] for name, file in names.items()}


def log_policy(client: MlflowClient, done: Finished) -> LoggedModel:
    """The iteration's policy as a logged model of its run and, by step, of the experiment's, with its accuracies."""
    model = find_model(client, done)
    if model is None:
        model = client.create_logged_model(
            done.parent.info.experiment_id,
            name=f"{done.experiment.experiment.replace('.', '-')}-{done.iteration}",
            source_run_id=done.child.info.run_id,
            tags=model_tags(done.experiment, done.layout, done.iteration),
            params={
                "arm": done.experiment.arm,
                "seed": str(done.experiment.seed),
                "iteration": str(done.iteration),
                "policy": done.experiment.policy.type,
            },
            model_type="policy",
        )
    for run, step in ((done.child, done.iteration), (done.parent, done.iteration)):
        known = client.get_run(run.info.run_id).outputs
        if not any(output.model_id == model.model_id for output in (known.model_outputs if known else [])):
            client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step)])
    has = {metric.key for metric in model.metrics or []}
    lacks = [metric for metric in _accuracies(done, model.model_id) if metric.key not in has]
    if lacks:
        client.log_batch(done.child.info.run_id, metrics=lacks)
    if model.status != LoggedModelStatus.READY:
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return model


def find_model(client: MlflowClient, done: Finished) -> LoggedModel | None:
    """The one of this run and these weights."""
    digest = policy_digest(done.layout, done.iteration)
    condition = f"source_run_id = '{done.child.info.run_id}'"
    found = client.search_logged_models([done.parent.info.experiment_id], condition)
    return next((model for model in found if model.tags.get(POLICY_TAG) == digest), None)


def model_tags(experiment: Experiment, layout: Layout, iteration: int) -> dict[str, str]:
    """By which a policy is found on disk, and known to be the same."""
    return {
        POLICY_TAG: policy_digest(layout, iteration),
        WORKSPACE_TAG: str(layout.workspace),
        "p2o.experiment": experiment.experiment,
        "p2o.arm": experiment.arm,
        "p2o.seed": str(experiment.seed),
        "p2o.iteration": str(iteration),
        **base_digests(layout),
    }


def _accuracies(done: Finished, model_id: str) -> list[Metric]:
    """The iteration's own points once more, as the model's: columns of MLflow's page of models."""
    metrics = read_json(done.folder / "metrics.json")
    accuracies = {f"accuracy/{tier}": value for tier, value in metrics.get("accuracy", {}).items()}
    return [Metric(key, value, done.at, done.iteration, model_id=model_id) for key, value in accuracies.items()]


def model_name(experiment: Experiment) -> str:
    """The registered model whose versions candidates become."""
    return experiment.tracking.model or re.sub(r"[/:.%\"']", "-", experiment.tracking.project)


def find_version(client: MlflowClient, name: str, digest: str) -> ModelVersion | None:
    """The registered version of these weights, the oldest if there are several; None too where nothing has the name."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{POLICY_TAG}` = '{digest}'")
    return min(found, key=lambda version: int(version.version), default=None)


def registered_versions(client: MlflowClient) -> list[ModelVersion]:
    """Those of all names that are policies of ours."""
    found, token = [], None
    while True:
        page = client.search_model_versions(page_token=token)
        found += [version for version in page if POLICY_TAG in version.tags]
        if not (token := page.token):
            return found


def aliased(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version with this alias, if any."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def register_candidate(client: MlflowClient, done: Finished) -> ModelVersion:
    """The iteration's policy as a version, made if need be, with the alias ``candidate``."""
    name = model_name(done.experiment)
    version = find_version(client, name, policy_digest(done.layout, done.iteration))
    tags = model_tags(done.experiment, done.layout, done.iteration)
    if cached := cached_as(done.layout, done.iteration):
        tags[DVC_TAG] = json.dumps(cached, sort_keys=True)
    if version is None:
        model = find_model(client, done) or log_policy(client, done)
        with tempfile.TemporaryDirectory() as folder:  # the same files if a kill comes before the version
            write_model(Path(folder), done.experiment, done.layout, done.iteration, model.tags[POLICY_TAG])
            client.log_model_artifacts(model.model_id, folder)
        _made_name(client, name)
        version = client.create_model_version(
            name,
            source=model.artifact_location,  # "models:/m-…" would be looked for in MLflow's default store
            run_id=done.child.info.run_id,
            tags=tags,
            description=f"{done.experiment.experiment} after iteration {done.iteration}",
            model_id=model.model_id,
        )
    else:
        for tag in {WORKSPACE_TAG, DVC_TAG} & tags.keys():
            if version.tags.get(tag) != tags[tag]:  # moved or copied since, or registered before DVC had it
                client.set_model_version_tag(name, version.version, tag, tags[tag])
        version = client.get_model_version(name, version.version)
    candidate = aliased(client, name, CANDIDATE)
    if candidate is None or candidate.version != version.version:
        client.set_registered_model_alias(name, CANDIDATE, version.version)
    return version


def _made_name(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name, description="Policies that runs ended with; `p2o promote` compares them.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
