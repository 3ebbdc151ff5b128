"""evolve: templates for the hard set, and which templated rollout gets which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2o_core.config import SelfReflectorConfig, TeacherReflectorConfig
from p2o_core.cover import plan_templated
from p2o_core.demonstrations import Demonstration, pool_of
from p2o_core.schemas import read_json, read_problems, read_record, read_rows, write_record, write_rows
from p2o_core.search.posterior import trials
from p2o_core.search.schedule import search_templates
from p2o_core.transfer import TemplatedOutcome
from p2o_core.types import Assignment, Completion, HardSample, Judged, TemplateSearch
from tasks.running.journal import JournaledModel
from tasks.running.stage import Artifact, Stage, StageIO

if TYPE_CHECKING:
    from p2o_core.engines.language_models import LanguageModel


def run(io: StageIO) -> None:
    """Write ``templates.json`` (:class:`p2o_core.types.TemplateSearch`), ``assignment.parquet``, ``winners.parquet``,
    what the search sampled under the kept templates, and ``demonstrations.parquet``, what templates may show."""
    experiment = io.experiment
    problems = {problem.id: problem for problem in read_problems(io.inputs["train"])}
    hard = read_rows(io.inputs["hard"], HardSample)
    bare, verdicts = read_rows(io.inputs["rollouts"], Completion), read_rows(io.inputs["verdicts"], Judged)
    templated = read_rows(io.inputs["templated"], Completion)
    templated_verdicts = read_rows(io.inputs["templated_verdicts"], Judged)
    ratios = {(o.problem_id, o.sample): o.log_ratio for o in read_rows(io.inputs["transfer"], TemplatedOutcome)}
    phrases = read_json(io.inputs["phrases"])
    pool = pool_of(experiment.evolve, read_rows(io.inputs["demonstrations"], Demonstration), phrases)
    pool.take(problems, templated, templated_verdicts, io.iteration - 1)
    pool.take(problems, bare, verdicts, io.iteration)
    search, winners = search_templates(
        [problems[sample.problem_id] for sample in hard],
        read_record(io.inputs["previous"], TemplateSearch),
        io.engine(),
        io.verifier(),
        phrases,
        experiment.evolve,
        experiment.rollout,
        iteration=io.iteration,
        seed=io.seed,
        bare=trials(problems, bare, verdicts),
        templated=trials(problems, templated, templated_verdicts, ratios),
        strangers=read_json(io.inputs["strangers"]),
        model=lambda: _language_model(io),
        demonstrations=pool,
        on_calls=io.progress,
    )
    assignments = plan_templated(
        hard,
        problems,
        search,
        experiment.evolve,
        iteration=io.iteration,
        rollouts=experiment.distill.templated_samples,
        seed=io.seed("assignment"),
    )
    write_record(io.outputs["templates"], search)
    write_rows(io.outputs["winners"], winners, Completion)
    io.counts["demonstrations"] = write_rows(io.outputs["demonstrations"], pool.rows, Demonstration)
    io.counts["assignments"] = write_rows(io.outputs["assignment"], assignments, Assignment)
    io.counts["kept"] = len(search.kept)
    io.counts["tokens"] = search.cost.tokens


def _language_model(io: StageIO) -> LanguageModel | None:
    """Who reflects; None for the phrases."""
    from p2o_core.engines.language_models import EngineModel, TeacherModel

    settings, seed = io.experiment.evolve.reflector, io.seed("reflection")
    if isinstance(settings, TeacherReflectorConfig):
        teacher = TeacherModel(settings, io.runtime.secret(settings.key_env, settings.secret_block), seed=seed)
        return JournaledModel(teacher, io.journal)
    if isinstance(settings, SelfReflectorConfig):
        # the reference policy: the trained one's templates lose their variety late in training (official code)
        return EngineModel(
            io.engine(policy=io.inputs["base"]),
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            seed=seed,
        )
    return None


STAGE = Stage(
    name="evolve",
    run=run,
    inputs={
        "train": Artifact("train.parquet", "base"),
        "phrases": Artifact("phrases.json", "base"),
        "strangers": Artifact("strangers.json", "base"),
        "base": Artifact("policy", "base"),
        "policy": Artifact("policy", "previous"),
        "previous": Artifact("templates.json", "previous"),
        "demonstrations": Artifact("demonstrations.parquet", "previous"),
        "hard": Artifact("hard.parquet", "current"),
        "rollouts": Artifact("rollouts.parquet", "current"),
        "verdicts": Artifact("verdicts.parquet", "current"),
        "templated": Artifact("templated.parquet", "previous"),
        "templated_verdicts": Artifact("templated_verdicts.parquet", "previous"),
        "transfer": Artifact("transfer.parquet", "previous"),
    },
    outputs={
        "templates": "templates.json",
        "assignment": "assignment.parquet",
        "winners": "winners.parquet",
        "demonstrations": "demonstrations.parquet",
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
