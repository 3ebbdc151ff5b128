"""One complete iteration of a recipe with a tiny random policy: every stage, the recipe's own hyper-parameters."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from p2o_core.mining import MiningReport
from p2o_core.schemas import read_record
from p2o_core.types import TemplateSearch
from p2o_core.update_report import ENGINE_METRICS, IterationUpdate
from tasks.parameters.experiment import Experiment, check_experiment
from tasks.registry import plan
from tasks.running.layout import Layout
from tasks.running.manifests import manifest_path, read_manifest
from tasks.running.plan import run_plan
from tasks.running.runtime import Runtime

TOKENS = 8
"""Tokens a completion: a random policy never comes to an end, and more of its tokens check nothing more."""

Facts = dict[str, str]


def stand_in(experiment: Experiment) -> tuple[Experiment, list[str]]:
    """The experiment with everything replaced that a machine without GPU, network and weights lacks, and what that
    was. Batch and group sizes, mini-batches, warm-up, masks, clips, the search's gate and its budget stay."""
    import torch

    content = experiment.model_dump(mode="json")
    changed = ["base policy: a random Qwen3 of two layers", "problems: sums of one digit, some of which luck solves"]
    problems = {"type": "arithmetic", "digits": [1, 2], "shard": 0}
    content["prepare"] = {
        "type": "files",
        "policy": {"type": "random"},
        "train": {"generator": problems | {"count": experiment.rollout.problems}},
        "heldout": {"generator": problems | {"count": 8, "shard": 1}},
        "phrases": ["Work step by step.", "Check the result.", "Write the number only."],
    }
    content["iterations"] = content["threads"] = 1  # a model this small is slower with more threads
    content["verify"]["workers"] = min(content["verify"]["workers"], os.cpu_count() or 1)
    _shorten(content, changed)
    if experiment.policy.device != "cpu" and not torch.cuda.is_available():
        content["policy"]["device"] = "cpu"
        changed.append("policy.device: cpu")
    devices = 2 if content["policy"]["device"] == "cpu" else torch.cuda.device_count()
    if content["policy"]["processes"] > devices:  # two on the processor: shards and their exchanges as on GPUs
        content["policy"]["processes"] = devices
        changed.append(f"policy.processes: {devices}")
    _replace_engine(content, changed)
    if content["evolve"]["reflector"]["type"] != "phrases":
        # a random policy writes no template: nothing would ever be accepted, and the budget go in steps of one parent
        content["evolve"]["reflector"] = {"type": "phrases"}
        changed.append("evolve.reflector: phrases")
    return check_experiment(_yaml(content), name="the dry run"), changed


def _shorten(content: dict[str, Any], changed: list[str]) -> None:
    evolve, evaluate = content["evolve"], content["evaluate"]
    for section in ("rollout", "evaluate"):
        content[section]["max_new_tokens"] = min(content[section]["max_new_tokens"], TOKENS)
    content["distill"]["tokens_per_microbatch"] = min(content["distill"]["tokens_per_microbatch"], 4096)
    evolve["first"] = evaluate["every"] = 1
    changed += [f"completions: {TOKENS} tokens", "micro-batches: 4,096 tokens", "search and evaluation: at once"]


def _replace_engine(content: dict[str, Any], changed: list[str]) -> None:
    engine = content["engine"]
    if engine["type"] == "ray" and importlib.util.find_spec("ray"):  # the same path, on this machine
        engine |= {"address": "", "actors": min(engine["actors"], 2), "verifiers": min(engine["verifiers"], 1)}
        engine |= {"gpus_per_actor": None}
        changed.append(f"engine: a local cluster, {engine['actors']} actors")
        _replace_engine(engine, changed)
    elif engine["type"] == "vllm" and importlib.util.find_spec("vllm"):
        engine |= {"max_model_len": min(engine["max_model_len"], 4096), "max_sequences": 256, "tensor_parallel": 1}
        changed.append("engine.max_model_len: 4096 at most")
    elif engine["type"] != "embedded":
        content["engine"] = {"type": "embedded"}
        changed.append("engine: embedded")


def _yaml(content: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(content), sort_keys=False)


def dry_run(experiment: Experiment, folder: Path, on_stage: Callable[[str, float], None]) -> Facts:
    """Run the stand-in's baseline, iteration and report in ``folder``; returns what happened, for people.

    Raises:
        whatever a stage raises: the recipe does not run.
    """
    layout = Layout(folder, experiment.experiment)
    layout.sources.mkdir(parents=True)
    layout.params.write_text(_yaml(experiment.model_dump(mode="json")))
    with Runtime() as runtime:
        for step in run_plan(plan(1), experiment, layout, runtime):
            on_stage(f"{step.stage.name}@{step.iteration}", step.took.seconds if step.took else 0.0)
    return _facts(experiment, layout)


def _facts(experiment: Experiment, layout: Layout) -> Facts:
    folder, distill = layout.iteration(1), experiment.distill
    update = read_record(folder / "update.json", IterationUpdate)
    search = read_record(folder / "templates.json", TemplateSearch)
    mining = read_record(folder / "mining.json", MiningReport)
    rollout = read_manifest(manifest_path(folder, "rollout")).counts
    facts = {
        "rollouts": f"{rollout['completions']} completions of {rollout['problems']} problems",
        "hard set": f"{mining.hard} (gate {experiment.evolve.min_hard}), {mining.near_hard} of them near-hard",
        "search": f"{search.status}, {search.cost.metric_calls:,} metric calls of "
        f"{experiment.evolve.max_metric_calls:,}, {len(search.templates)} candidates",
        "groups with signal": f"{update.groups_with_signal} of {update.groups}",
        "update": f"{update.status}, {update.steps} of {update.planned_steps} optimiser steps planned "
        f"for mini-batches of {distill.groups_per_minibatch}{_spread(experiment)}",
        "learning rate": f"{distill.learning_rate:.3g} after {distill.warmup_steps} warm-up steps",
    }
    return facts | metric_facts(experiment, update)


def _spread(experiment: Experiment) -> str:
    processes = experiment.policy.processes
    return f", by {processes} processes" if processes > 1 else ""


def metric_facts(experiment: Experiment, update: IterationUpdate) -> Facts:
    """Every metric of the update, and for those that are not there the reason."""
    shown = {name: f"{value:.3g}" for name, value in update.metrics.items()}
    if not update.steps:
        why = "distillation is off" if update.status == "off" else "no group carried a signal"
        return shown | {"metrics": f"none: no optimiser step was made, since {why}"}
    if not any(name in ENGINE_METRICS for name in update.metrics):
        off = experiment.distill.engine_ratio == "off"
        why = "distill.engine_ratio is off" if off else "no completion was compared"
        shown["engine metrics"] = f"none ({', '.join(ENGINE_METRICS)}): {why}"
    return shown
