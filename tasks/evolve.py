"""evolve: templates for the hard set, and which templated rollout gets which."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2o_core.config import PhraseReflector as PhraseReflectorConfig
from p2o_core.config import SelfReflector, TeacherReflector
from p2o_core.cover import assign_templates, solvers
from p2o_core.engines.base import Sampling
from p2o_core.schemas import BadInput, read_json, read_problems, read_rows, write_json, write_rows
from p2o_core.types import Assignment, Completion, HardSample, Problem, Template
from tasks.parameters.secrets import secret
from tasks.running.journal import JournaledModel
from tasks.running.stage import Artifact, Stage, StageIO

if TYPE_CHECKING:
    from p2o_core.search.language_models import LanguageModel


def run(io: StageIO) -> None:
    """Write ``templates.json`` (every candidate with parents and scores, the kept ones marked, the cost),
    ``assignment.parquet``, and ``winners.parquet``, what the search sampled under the kept templates.
    The status says what happened: ``searched``, ``drawn`` (at random), ``carried``, ``too_few_hard``, ``off``."""
    settings = io.experiment.evolve
    problems = {problem.id: problem for problem in read_problems(io.inputs["train"])}
    samples = read_rows(io.inputs["hard"], HardSample)
    hard = [problems[sample.problem_id] for sample in samples]
    previous = read_json(io.inputs["previous"])
    searched_at = previous["searched_at"]
    due = io.iteration - searched_at >= settings.every if searched_at else io.iteration >= settings.first
    winners: list[Completion] = []
    if not settings.enabled:
        result = _nothing("off", 0)
    elif not due:
        result = previous | {"status": "carried", "cost": {}}
    elif len(hard) < settings.min_hard:
        result = _nothing("too_few_hard", 0)
    elif settings.search == "random":
        result = _draw(io)
    else:
        result, winners = _search(io, hard, previous)
    write_json(io.outputs["templates"], result)

    kept = [template for template in load_templates(result) if template.kept]
    assignments = assign_templates(
        [sample.problem_id for sample in samples if sample.mined_at == io.iteration],
        kept,
        solvers(kept, result["dev_ids"], settings.solved_at),
        rollouts=io.experiment.distill.templated_samples,
        one_per_group=settings.one_template_per_group,
        rng=random.Random(io.seed("assignment")),
    )
    io.counts["assignments"] = write_rows(io.outputs["assignment"], assignments, Assignment)
    write_rows(io.outputs["winners"], winners, Completion)
    io.counts["kept"] = len(kept)
    io.counts["tokens"] = result["cost"].get("tokens", 0)


def _nothing(status: str, searched_at: int) -> dict[str, Any]:
    return {"status": status, "searched_at": searched_at, "dev_ids": [], "templates": [], "cost": {}}


def _draw(io: StageIO) -> dict[str, Any]:
    """As many random templates as a search has parents, all kept, none scored: they cost nothing but what they do."""
    from p2o_core.search.reflectors import PhraseReflector

    settings = io.experiment.evolve
    if not isinstance(settings.reflector, PhraseReflectorConfig):
        raise BadInput(
            f"{io.layout.params}: field 'evolve.search' is random, which draws phrases, and the reflector is "
            f"{settings.reflector.type!r}. Mend: evolve.reflector: {{type: phrases}}, or evolve.search: gepa."
        )
    reflector = PhraseReflector(
        read_json(io.inputs["phrases"]), **settings.reflector.options(), rng=random.Random(io.seed("draw"))
    )
    texts = dict.fromkeys(reflector.random_template() for _ in range(settings.parents))
    templates = [Template(index, text, (), (), kept=True) for index, text in enumerate(texts)]
    return _nothing("drawn", io.iteration) | {"templates": [asdict(t) | {"mean_score": 0.0} for t in templates]}


def _search(io: StageIO, hard: list[Problem], previous: dict[str, Any]) -> tuple[dict[str, Any], list[Completion]]:
    from p2o_core.search.evolve import evolve_templates

    experiment = io.experiment
    evolution = evolve_templates(
        hard,
        io.engine(),
        io.verifier(),
        read_json(io.inputs["phrases"]),
        experiment.evolve,
        Sampling(experiment.rollout.temperature, experiment.rollout.max_new_tokens),
        seed=io.seed("search"),
        style=experiment.rollout.prompt,
        model=_language_model(io),
        archive=[t.text for t in load_templates(previous) if t.kept and t.text] if experiment.evolve.archive else (),
        on_calls=io.progress,
    )
    result = {
        "status": "searched",
        "searched_at": io.iteration,
        "dev_ids": evolution.dev_ids,
        "templates": [asdict(t) | {"mean_score": t.mean_score} for t in evolution.templates],
        "cost": evolution.cost.to_json(),
    }
    return result, evolution.winners


def _language_model(io: StageIO) -> LanguageModel | None:
    """Who reflects; None for the phrases."""
    from p2o_core.search.language_models import EngineModel, TeacherModel

    settings, seed = io.experiment.evolve.reflector, io.seed("reflection")
    if isinstance(settings, TeacherReflector):
        teacher = TeacherModel(settings, secret(settings.key_env, settings.secret_block), seed=seed)
        return JournaledModel(teacher, io.journal)
    if isinstance(settings, SelfReflector):
        # the reference policy: the trained one's templates lose their variety late in training (official code)
        return EngineModel(
            io.engine(policy=io.inputs["base"]),
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            seed=seed,
        )
    return None


def load_templates(result: dict[str, Any]) -> list[Template]:
    """The candidates of a ``templates.json``."""
    return [
        Template(t["index"], t["text"], tuple(t["parents"]), tuple(t["scores"]), t["kept"], t["found_at"])
        for t in result["templates"]
    ]


def best_template(path: Path) -> Template | None:
    """The candidate with the highest mean dev score, None when there is none."""
    return max(load_templates(read_json(path)), key=lambda template: template.mean_score, default=None)


STAGE = Stage(
    name="evolve",
    run=run,
    inputs={
        "train": Artifact("train.parquet", "base"),
        "phrases": Artifact("phrases.json", "base"),
        "base": Artifact("policy", "base"),
        "policy": Artifact("policy", "previous"),
        "previous": Artifact("templates.json", "previous"),
        "hard": Artifact("hard.parquet", "current"),
    },
    outputs={
        "templates": "templates.json",
        "assignment": "assignment.parquet",
        "winners": "winners.parquet",
    },
    params=(
        "seed",
        "threads",
        "policy",
        "engine",
        "rollout.prompt",
        "rollout.temperature",
        "rollout.max_new_tokens",
        "verify.timeout_s",
        "evolve",
        "distill.templated_samples",
    ),
)
