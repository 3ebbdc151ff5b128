"""Can this machine run this experiment? One small function a question; none of them starts anything."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import httpx
import psutil

from flows.lifecycle.secrets import prefect_secret
from flows.preflight.shapes import GIB, Shape, disk_need, engine_memory, shape_of, trainer_memory
from p2o_core.cluster.connection import INSTALL, resources
from p2o_core.config import RayEngineConfig, SelfReflectorConfig, TeacherReflectorConfig
from p2o_core.schemas import BadInput
from tasks.parameters.experiment import Experiment, FilesPrepare
from tasks.prepare import asked_of, is_prepared
from tasks.problems.base_policy import FolderPolicy, GgufPolicy, HubPolicy
from tasks.problems.catalogue import entry_named
from tasks.problems.sources import ProblemSource
from tasks.running.layout import Layout

PROBE_S = 5.0


class Health(StrEnum):
    """How a check ended."""

    OK = "ok"
    UNSURE = "unsure"
    FAILED = "failed"
    REFUSED = "refused"
    """Bad input: what `prepare` would end at with status 2."""


@dataclass(frozen=True)
class Check:
    """One question's answer; ``mend`` says what to do about one that is not ok."""

    what: str
    health: Health
    found: str
    mend: str = ""


def examine(experiment: Experiment, layout: Layout, sources: Path) -> list[Check]:
    """Every check of the experiment on this machine. ``sources`` holds the user's files: a workspace that does not
    exist yet will copy them."""
    policy = [*_base_policy(experiment, layout, sources)]
    shape = None if any(check.health is Health.REFUSED for check in policy) else shape_of(experiment, layout)
    machine = [*_packages(experiment), *_devices(experiment), *_memory(experiment, shape)]
    machine += _disk(experiment, layout, shape)
    return [
        *machine,
        *_endpoints(experiment),
        *policy,
        *_problems(experiment, layout, sources),
    ]


def _packages(experiment: Experiment) -> Iterator[Check]:
    wanted = {"torch": "", "transformers": "", "peft": "", "math-verify": "", "gepa": ""}
    if experiment.sampler.type == "vllm":
        wanted["vllm"] = "`make vllm` on a machine without CUDA, `pip install vllm` with it; or engine.type: embedded"
    if isinstance(experiment.prepare, FilesPrepare):
        if isinstance(experiment.prepare.policy, GgufPolicy):
            wanted |= {"gguf": "`make smollm2`", experiment.prepare.policy.package.replace("_", "-"): "`make smollm2`"}
        if any(source.generator and source.generator.type == "reasoning-gym" for source in experiment.prepare.train):
            wanted["reasoning-gym"] = "pip install reasoning-gym"
    if isinstance(experiment.evolve.reflector, TeacherReflectorConfig) and experiment.evolve.enabled:
        wanted["openai"] = ""
    for name, mend in wanted.items():
        version = _version(name)
        health = Health.OK if version else Health.FAILED
        yield Check(f"package {name}", health, version or "not installed", mend or "`make install`")
    if experiment.engine.type == "ray":
        version = _version("ray")
        yield Check("package ray", Health.OK if version else Health.REFUSED, version or "not installed", INSTALL)


def _version(name: str) -> str | None:
    for distribution in (name, f"{name}-cpu"):  # vllm's build for machines without CUDA has a name of its own
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _devices(experiment: Experiment) -> Iterator[Check]:
    import torch

    device = experiment.policy.device
    if device == "cpu":
        yield Check("device", Health.OK, f"cpu, {os.cpu_count()} cores, {experiment.threads} threads asked for")
        return
    wanted, there = torch.device(device), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted.type == "cuda" and (wanted.index or 0) < there:
        yield Check("device", Health.OK, torch.cuda.get_device_name(wanted))
    else:
        mend = "a machine with a GPU; or policy.device: cpu, for models that small"
        yield Check("device", Health.FAILED, f"{device} is not here ({there} CUDA devices)", mend)
    if experiment.engine.type == "ray" and not experiment.engine.address:
        wanted_gpus = experiment.engine.actors * experiment.engine.gpus(experiment.policy)
        health = Health.OK if wanted_gpus <= there else Health.FAILED
        yield Check("actors' GPUs", health, f"{wanted_gpus:g} of {there}", "fewer engine.actors, or engine.address")
    if experiment.policy.processes > max(1, there):
        yield Check("processes", Health.FAILED, f"{there} GPUs, one for each", f"policy.processes: {max(1, there)}")
    if experiment.engine.type == "vllm" and experiment.engine.tensor_parallel > max(1, there):
        yield Check("tensor_parallel", Health.FAILED, f"{there} GPUs", f"engine.tensor_parallel: {max(1, there)}")


def _memory(experiment: Experiment, shape: Shape | None) -> Iterator[Check]:
    if shape is None:
        yield Check("memory", Health.UNSURE, "the model's shape is not known", "add it to recipes/models.yaml")
        return
    on_cpu = experiment.policy.device == "cpu"
    parts = trainer_memory(experiment, shape), engine_memory(experiment, shape)
    trainer, engine = (memory.total for memory in parts)
    if experiment.engine.type == "ray":  # on a local cluster's processors all actors share what there is; cards are own
        engine *= experiment.engine.actors if on_cpu and not experiment.engine.address else 0
    if on_cpu:
        trainer *= experiment.policy.processes
    takes_turns = experiment.engine.type == "vllm" and experiment.engine.sleep and not on_cpu
    needed = max(trainer, engine) if takes_turns else trainer + engine
    found = f"about {needed / GIB:.1f} GiB needed: trainer {parts[0]}, engine {parts[1]}"
    there = _free_memory() if on_cpu else _gpu_memory(experiment.policy.device)
    if there is None:
        yield Check("memory", Health.UNSURE, f"{found}; no device to compare it with", "see `device`")
        return
    mend = "lower distill.tokens_per_microbatch, policy.checkpointing: true, or an adapter (policy.type: lora)"
    health = Health.OK if needed <= there else Health.FAILED
    yield Check("memory", health, f"{found}; {there / GIB:.1f} GiB there", mend)


def _free_memory() -> int:
    return int(psutil.virtual_memory().available)


def _gpu_memory(device: str) -> int | None:
    import torch

    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def _disk(experiment: Experiment, layout: Layout, shape: Shape | None) -> Iterator[Check]:
    folder = next(path for path in (layout.workspace, *layout.workspace.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if shape is None:
        yield Check("disk", Health.UNSURE, f"{free / GIB:.0f} GiB free", "add the model to recipes/models.yaml")
        return
    needed = disk_need(experiment, shape)
    mend = "a larger disk, fewer iterations, or an adapter (policy.type: lora), whose checkpoints are small"
    found = f"about {needed / GIB:,.1f} GiB for {experiment.iterations} checkpoints, {free / GIB:,.0f} GiB free"
    yield Check("disk", Health.OK if needed <= free else Health.FAILED, found, mend)


def _endpoints(experiment: Experiment) -> Iterator[Check]:
    if experiment.engine.type == "server":
        for url in experiment.engine.urls:
            mend = "start it: `p2o serve` in a prepared workspace"
            yield _probe(f"server {url}", f"{url}/health", "", mend, by_proxy=False)  # as the engine asks it
    if experiment.engine.type == "ray" and experiment.engine.address and _version("ray"):
        yield _cluster(experiment, experiment.engine)
    reflector = experiment.evolve.reflector
    if not experiment.evolve.enabled or not isinstance(reflector, TeacherReflectorConfig):
        return
    try:
        key = prefect_secret(reflector.key_env, reflector.secret_block)
    except BadInput as error:
        yield Check("teacher's key", Health.FAILED, str(error).split(" Mend:")[0], f"set {reflector.key_env}")
        return
    mend = "correct evolve.reflector.base_url, or the key"
    yield _probe(f"teacher {reflector.base_url}", f"{reflector.base_url}/models", key, mend)


def _cluster(experiment: Experiment, engine: RayEngineConfig) -> Check:
    """It answers, and has room for all actors; with less, some of them wait for ever and the others do their work."""
    what = f"cluster {engine.address}"
    try:
        there = resources(engine.address)
    except BadInput as error:
        found, _, mend = str(error).partition(" Mend: ")
        return Check(what, Health.REFUSED, found, mend)
    wanted = {
        "GPU": engine.actors * engine.gpus(experiment.policy),
        "CPU": engine.processors(experiment.threads, experiment.verify.workers),
    }
    found = ", ".join(f"{there.get(kind, 0):g} {kind}s, {count:g} asked for" for kind, count in wanted.items())
    health = Health.OK if all(there.get(kind, 0) >= count for kind, count in wanted.items()) else Health.UNSURE
    return Check(what, health, found, "fewer engine.actors or engine.verifiers, or more nodes")


def _probe(what: str, url: str, key: str, mend: str, *, by_proxy: bool = True) -> Check:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(url, headers=headers, timeout=PROBE_S, follow_redirects=True, trust_env=by_proxy)
        answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        return Check(what, Health.FAILED, f"answers with status {error.response.status_code}", mend)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # ValueError: a key that no header can hold
        said = "" if key else f": {str(error)[:120]}"  # httpx quotes a header that it cannot send
        return Check(what, Health.FAILED, f"{type(error).__name__}{said}", mend)
    return Check(what, Health.OK, f"answers ({answer.status_code})")


def _base_policy(experiment: Experiment, layout: Layout, sources: Path) -> Iterator[Check]:
    if is_prepared(experiment, layout) and (layout.base / "policy" / "config.json").exists():
        yield _looked_at("base policy", layout.base / "policy", experiment, "prepared")
        return
    policy = experiment.prepare.policy if isinstance(experiment.prepare, FilesPrepare) else None
    if isinstance(policy, HubPolicy):
        what, otherwise = f"base policy {policy.id}", "or put its folder into data/sources/ (type: folder)"
        found = _hub(what, f"models/{policy.id}", otherwise)
        yield _looked_at(what, folder, experiment, found.found) if (folder := _downloaded(policy)) else found
    elif isinstance(policy, FolderPolicy):
        yield _looked_at("base policy", sources / policy.path, experiment, str(sources / policy.path))
    else:
        yield Check("base policy", Health.OK, "made or unpacked here by prepare")


def _looked_at(what: str, folder: Path, experiment: Experiment, found: str) -> Check:
    """As `prepare` looks at it, every value of the weights included."""
    from tasks.problems.policy_check import SAMPLE, check_policy  # torch
    from tasks.problems.position_check import check_positions

    asked = asked_of(experiment)
    try:
        chat, model = check_policy(folder, [style for style, _ in asked.values()])
        warning = check_positions(chat, model, folder, asked, [SAMPLE])
    except BadInput as error:
        wrong, _, mend = str(error).partition(" Mend: ")
        return Check(what, Health.REFUSED, wrong, mend)
    if warning:
        return Check(what, Health.UNSURE, f"{found}; {warning}", "lower max_new_tokens")
    return Check(what, Health.OK, found)


def _downloaded(policy: HubPolicy) -> Path | None:
    """The model's folder in the hub's cache, if all of it is there."""
    try:
        folder = policy.folder(offline=True)
    except BadInput:
        return None
    return folder if any(folder.glob("*.safetensors")) else None


def _problems(experiment: Experiment, layout: Layout, sources: Path) -> Iterator[Check]:
    if not isinstance(experiment.prepare, FilesPrepare):
        yield Check("problems", Health.OK, "made here by prepare")
        return
    if is_prepared(experiment, layout):
        yield Check("problems", Health.OK, "prepared")
        return
    for source in (*experiment.prepare.train, *experiment.prepare.heldout):
        yield _problem_source(source, sources)
    if isinstance(experiment.evolve.reflector, SelfReflectorConfig) or experiment.prepare.phrases is None:
        return
    if isinstance(experiment.prepare.phrases, Path) and not (sources / experiment.prepare.phrases).exists():
        yield Check("phrases", Health.FAILED, f"{experiment.prepare.phrases} is not there", "write it to data/sources/")


def _problem_source(source: ProblemSource, sources: Path) -> Check:
    what = f"problems {source.label}"
    if source.path is not None:
        path = source.path if source.path.is_absolute() else sources / source.path
        return Check(what, Health.OK if path.exists() else Health.FAILED, str(path), "put the file there")
    if source.generator is not None:
        return Check(what, Health.OK, "made here")
    hub = source.hub or entry_named(source.name).hub
    return _hub(what, f"datasets/{hub}", "or put a copy on disk and add `path:` to the source")


def _hub(what: str, place: str, otherwise: str) -> Check:
    """Asks the hub for the entry's description; a copy in its cache is as good."""
    # read at import: where the cache is, which the environment of a command says
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    kind, _, name = place.partition("/")
    cached = Path(constants.HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}"
    if cached.exists():
        return Check(what, Health.OK, "in the hub's cache on this disk")
    ask = HfApi().model_info if kind == "models" else HfApi().dataset_info
    try:
        ask(name, timeout=PROBE_S)
    except HfHubHTTPError as error:
        return Check(what, Health.FAILED, f"the hub says: {str(error)[:120]}", f"correct the id, {otherwise}")
    except Exception as error:  # offline in one of many ways; each is the same answer here
        found = f"the hub cannot be reached ({type(error).__name__})"
        return Check(what, Health.FAILED, found, f"go online, {otherwise}")
    return Check(what, Health.OK, "on the hub")
