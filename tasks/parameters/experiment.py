"""params.yaml as one typed object; a wrong one is refused with file, line, field and the mend."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from p2o_core.config import (
    AnyEngine,
    AnyPolicy,
    DistillConfig,
    EmbeddedEngineConfig,
    EvaluateConfig,
    EvolveConfig,
    FullPolicy,
    HealthConfig,
    MineConfig,
    RayEngineConfig,
    RolloutConfig,
    Section,
    ServerEngineConfig,
    VerifyConfig,
    VllmEngineConfig,
    variant_of,
)
from p2o_core.schemas import BadInput
from tasks.parameters.reading import explain, read_yaml, refuse_truth_for_numbers
from tasks.parameters.worlds import MicroworldPrepare, ReflectivePrepare, WorldPrepare
from tasks.problems.base_policy import BasePolicy
from tasks.problems.sources import ProblemSource

PARAMS_FILE = "params.yaml"


def _sources(value: Any) -> Any:
    """``train.jsonl`` for ``[{path: train.jsonl}]``, and one source for a list of one."""
    listed = value if isinstance(value, (list, tuple)) else [value]
    return [{"path": entry} if isinstance(entry, str) else entry for entry in listed]


def _folder(value: Any) -> Any:
    return {"type": "folder", "path": value} if isinstance(value, str) else value


Sources = Annotated[tuple[ProblemSource, ...], BeforeValidator(_sources)]


def _counted(value: Any) -> Any:
    """The number of iterations of ``{"1": 0, "2": 1}``, as earlier versions wanted it."""
    if not isinstance(value, dict):
        return value
    for position, (key, start) in enumerate(value.items(), start=1):
        if (str(key), start) != (str(position), position - 1):
            raise ValueError(
                f"iteration out of order: expected '{position}': {position - 1} at place {position}, got "
                f"'{key}': {start}; write the number of iterations instead, as iterations: {len(value)}"
            )
    return len(value)


class FilesPrepare(Section):
    """Bring your own problems and policy; relative paths start at ``data/sources/``."""

    type: Literal["files"] = "files"
    seed: int = Field(
        0, ge=0, description="of generators and limits; apart from the experiment's, so seeds share a base"
    )
    train: Sources = Field(..., description="one source or a list of them; a bare text is a path")
    heldout: Sources = Field(..., description="the same, for evaluation: the benchmarks")
    contamination: Literal["drop", "refuse", "report"] = Field(
        "drop", description="what becomes of train problems that share their text or 13 words with a held-out one"
    )
    phrases: tuple[str, ...] | Path | None = Field(
        None,
        description="for the phrases reflector, and the demonstrations reflector with written: a list of sentences or "
        "whole templates (demonstrations behind marker lines), or a file with a JSON list of them",
    )
    policy: Annotated[BasePolicy, BeforeValidator(_folder)] = Field(..., description="a bare text is a folder")


class TrackingConfig(Section):
    """MLflow and DVC. MLflow's store is MLFLOW_TRACKING_URI, or mlflow.db beside the file ``mlproject``."""

    project: str = Field("p2o", description="MLflow experiment that holds the runs")
    push: bool = Field(False, description="push every finished iteration to DVC's default remote")
    registry: bool = Field(
        True, description="kept templates and policies in MLflow's registries; off: metrics and files alone"
    )
    model: str = Field(
        "", pattern=r"^[^/:.%\"']*$", description="registered model that `p2o promote` compares within; blank: project"
    )
    traces: int = Field(6, ge=0, le=100, description="rollouts an iteration that MLflow shows whole, drawn by seed")


class Experiment(Section):
    """One experiment: what params.yaml holds."""

    experiment: str = Field(..., pattern=r"^[a-z0-9][a-z0-9._-]*$", description="name of the experiment and its folder")
    arm: str = Field("p2o", description="name of the arm, for tables and tags")
    seed: int = Field(0, ge=0, description="of all training randomness, with iteration and stage")
    threads: PositiveInt = Field(
        1, description="torch threads; one beats two for tiny models; part of what decides the bytes"
    )
    iterations: Annotated[PositiveInt, BeforeValidator(_counted)] = Field(
        ..., description="iterations of training; finished ones stay when the number is raised"
    )
    prepare: Annotated[
        MicroworldPrepare | ReflectivePrepare | FilesPrepare, Field(discriminator="type"), variant_of("microworld")
    ] = MicroworldPrepare()
    policy: AnyPolicy = FullPolicy()
    engine: AnyEngine = EmbeddedEngineConfig()
    rollout: RolloutConfig
    verify: VerifyConfig = VerifyConfig()
    mine: MineConfig = MineConfig()
    evolve: EvolveConfig = EvolveConfig()
    distill: DistillConfig = DistillConfig()
    evaluate: EvaluateConfig
    health: HealthConfig = HealthConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="before")
    @classmethod
    def _empty_sections_are_defaults(cls, content: Any) -> Any:
        """``mine:`` with all of its fields commented out is None to YAML."""
        return {k: v for k, v in content.items() if v is not None} if isinstance(content, dict) else content

    @model_validator(mode="after")
    def _strangers_live_in_the_reflective_world(self) -> Experiment:
        online = self.evolve.enabled and self.evolve.search == "online"
        if online and self.evolve.online.reads == "stranger" and self.prepare.type != "reflective":
            raise ValueError(
                f"evolve.online.reads is stranger, and prepare.type {self.prepare.type} makes no strangers; set "
                "evolve.online.reads: own, or prepare.type: reflective"
            )
        return self

    @model_validator(mode="after")
    def _demonstrations_need_turns(self) -> Experiment:
        if self.evolve.reflector.type == "demonstrations" and self.prepare.type == "microworld":
            raise ValueError(
                "evolve.reflector is demonstrations, and the micro-world's language has no chat turns; set "
                "evolve.reflector: {type: phrases}, or prepare a chat model (prepare: {type: files, …})"
            )
        return self

    @model_validator(mode="after")
    def _enough_problems(self) -> Experiment:
        if isinstance(self.prepare, WorldPrepare) and self.rollout.problems > self.prepare.train_problems:
            raise ValueError(
                f"rollout.problems={self.rollout.problems}, but the train split has {self.prepare.train_problems} "
                "problems; lower it, or raise prepare.train_easy or prepare.train_hard"
            )
        return self

    @property
    def sampler(self) -> EmbeddedEngineConfig | VllmEngineConfig | ServerEngineConfig:
        """What samples: the engine, or the one that each of a cluster's actors holds."""
        return self.engine.engine if isinstance(self.engine, RayEngineConfig) else self.engine

    def deciding(self) -> dict[str, Any]:
        """Every parameter, defaults included, but those that say where and by how many the work is done: a run goes on
        with more processes, fewer actors or on another cluster, and nothing finished is made again."""
        places = set(getattr(self.engine, "places", ()))
        return self.model_dump(mode="json", exclude={"policy": {"processes"}, "engine": places})

    def digest_of(self, names: Sequence[str]) -> str:
        """Of the parameters with these dotted names, whole sections included."""
        content: dict[str, Any] = {}
        everything = self.deciding()
        for name in names:
            value: Any = everything
            for part in name.split("."):
                value = value[part]
            content[name] = value
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def digest(self) -> str:
        """Of everything but the number of iterations: a longer experiment continues the same run."""
        content = self.deciding()
        content = {name: content[name] for name in content if name not in ("iterations", "tracking")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_experiment(path: Path) -> Experiment:
    """Read and check params.yaml. Raises BadInput naming file, line, field and the mend."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "no such file"
        raise BadInput(f"{path}: {found}. Mend: run in a folder with params.yaml, or name one with --workspace.")
    try:
        return check_experiment(path.read_text(encoding="utf-8-sig"), name=path)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}: line {line}: no UTF-8 text. Mend: write the file as UTF-8.") from error


@lru_cache(maxsize=4)
def check_experiment(text: str, *, name: object) -> Experiment:
    """Check the text of a params.yaml; messages say it stands in ``name``. A run asks before and after every stage
    whether the file still says the same: it is read each time, and parsed when its text is another one."""
    content = read_yaml(text, name)
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"is {str(content)[:40]!r}, no mapping of parameters"
        raise BadInput(f"{name}: {found}. Mend: copy one of recipes/ there, or write `parameter: value` lines.")
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        raise BadInput(explain(error, Experiment, text, name)) from error
    refuse_truth_for_numbers(content, experiment, text, name)
    return experiment
