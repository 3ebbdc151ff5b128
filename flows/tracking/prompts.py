"""MLflow's prompt registry: every kept template a version, as it is written, with where it comes from and what it is
worth.

A prompt an experiment, whose name says arm and seed; a version a run and text. The registry numbers versions itself, so
a version sent twice would be two: the store is asked for those it has before anything is sent, and nothing is sent
again within an attempt. Nobody renders a template through MLflow, to which ``\\boxed{{x}}`` has a variable.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities.model_registry import PromptVersion
from mlflow.prompt.constants import PROMPT_EXPERIMENT_IDS_TAG_KEY
from mlflow.tracing.constant import TraceTagKey
from mlflow.utils.validation import MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH

from flows.tracking.notes import KEY_TAG
from p2o_core.schemas import read_record
from p2o_core.types import Template, TemplateSearch
from tasks.running.manifests import manifest_path, read_manifest

if TYPE_CHECKING:
    from flows.tracking.records import Finished

BEST = "best"
POSTERIOR_TAG = "p2o.posterior"
LINKED = 100
"""Versions a run names at most: a tag of MLflow's holds 8,000 characters."""


@dataclass
class Prompts:
    """What the store has of a run's templates: versions by text, and which of them was named the best."""

    name: str
    versions: dict[str, PromptVersion] = field(default_factory=dict)
    best: str = ""

    @classmethod
    def known(cls, client: MlflowClient, name: str, key: str, experiment_id: str) -> Prompts:
        """Those of the run with this key; the prompt is made where there is none."""
        prompts = cls(name)
        found = client.get_prompt(name)
        shown = found.tags.get(PROMPT_EXPERIMENT_IDS_TAG_KEY, "") if found else ""
        if found is None:
            client.create_prompt(
                name,
                "Templates that searches kept, as they are.",
                {PROMPT_EXPERIMENT_IDS_TAG_KEY: f",{experiment_id},"},
            )
            return prompts
        if f",{experiment_id}," not in shown:  # runs of this name in two MLflow experiments: shown on both pages
            client.set_prompt_tag(
                name,
                PROMPT_EXPERIMENT_IDS_TAG_KEY,
                f",{','.join([*shown.strip(',').split(','), experiment_id]).strip(',')},",
            )
        token: str | None = None
        while token != "":
            page = client.search_prompt_versions(name, page_token=token)
            for version in page:
                if version.tags.get(KEY_TAG) == key:
                    prompts.versions.setdefault(version.template, version)
            token = page.token or ""
        return prompts


def prompt_name(experiment: str) -> str:
    """Models and prompts share their names in the registry, so this is never a model's."""
    return f"{experiment}-templates"


def register_templates(client: MlflowClient, prompts: Prompts, done: Finished) -> None:
    """Register what the iteration's search kept and the run does not have yet; name the best; link them to the
    iteration's run, and the last iteration's to the experiment's."""
    if not done.iteration:  # the baseline has an empty set
        return
    search = read_record(done.folder / "templates.json", TemplateSearch)
    kept = [template for template in search.kept if _fits(template.text)]
    policy = _policy_digest(done)
    for template in kept:
        if template.text not in prompts.versions:
            tags = version_tags(template, search, prompts.versions, done) | {"p2o.policy": policy}
            described = f"Kept in iteration {done.iteration} of {done.experiment.experiment}"
            version = client.create_prompt_version(prompts.name, template.text, described, tags)
            prompts.versions[template.text] = version
        elif template.evidence:
            version = prompts.versions[template.text]
            client.set_prompt_version_tag(
                prompts.name, version.version, POSTERIOR_TAG, posterior(template, done.iteration)
            )
    if not kept:
        return
    best = max(kept, key=lambda template: template.mean_score)
    if prompts.best != best.text:
        client.set_prompt_alias(prompts.name, BEST, prompts.versions[best.text].version)
        prompts.best = best.text
    linked = linked_prompts([prompts.versions[template.text] for template in kept])
    for run in (done.child, done.parent):
        client.set_tag(run.info.run_id, TraceTagKey.LINKED_PROMPTS, linked)


def linked_prompts(versions: list[PromptVersion]) -> str:
    """The value of the tag by which MLflow's pages link a run or a trace to prompt versions."""
    return json.dumps([{"name": version.name, "version": str(version.version)} for version in versions[:LINKED]])


def version_tags(
    template: Template, search: TemplateSearch, versions: dict[str, PromptVersion], done: Finished
) -> dict[str, str]:
    """Where a template comes from, and what it was worth when it was first kept."""
    parents = [search.templates[index].text for index in template.parents]
    tags = {
        KEY_TAG: done.key,
        "p2o.run": done.parent.info.run_id,
        "p2o.arm": done.experiment.arm,
        "p2o.seed": str(done.experiment.seed),
        "p2o.iteration": str(done.iteration),
        "p2o.search": done.experiment.evolve.search,
        "p2o.parents": "; ".join(_named(text, versions) for text in parents) or "none",
    }
    if template.scores:
        tags["p2o.dev_score"] = f"{template.mean_score:.4f}"
    else:
        tags[POSTERIOR_TAG] = posterior(template, done.iteration)
    measured = {"transfer": template.transfer, "log_ratio": template.log_ratio, "fresh": template.fresh}
    return tags | {f"p2o.{name}": f"{value:.4f}" for name, value in measured.items() if value is not None}


def posterior(template: Template, iteration: int) -> str:
    """What an online search knows of a template, in words.

    >>> from p2o_core.types import Evidence
    >>> posterior(Template(0, "Go on.", (), (), True, evidence={"sum": Evidence(3.0, 4.0)}), 7)
    'solved 3.0 of 4.0 rollouts, discounted; as of iteration 7'
    """
    solved = sum(evidence.solved for evidence in template.evidence.values())
    tried = sum(evidence.tried for evidence in template.evidence.values())
    return f"solved {solved:.1f} of {tried:.1f} rollouts, discounted; as of iteration {iteration}"


def _named(text: str, versions: dict[str, PromptVersion]) -> str:
    """A parent by its version, by its text where it was not kept."""
    if not text.strip():
        return "the empty template"
    return f"version {versions[text].version}" if text in versions else f"not kept: {text[:500]}"


def _fits(text: str) -> bool:
    """The empty template is the bare prompt, and no prompt of the registry."""
    return bool(text.strip()) and len(text) <= MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH


def _policy_digest(done: Finished) -> str:
    """Of the policy that the search sampled from: the last iteration's."""
    searched = read_manifest(manifest_path(done.folder, "evolve"))
    policy = done.layout.relative(done.layout.iteration(done.iteration - 1) / "policy")
    return searched.inputs.get(policy, "none")
