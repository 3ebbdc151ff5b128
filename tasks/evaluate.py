"""evaluate: the bare policy on the held-out problems. Iteration 0 is the policy before training."""

from __future__ import annotations

from p2o_core.evaluation import Measurement, NotDue, measure
from p2o_core.schemas import read_problems, read_record, write_record, write_rows
from p2o_core.seeding import derive_seed
from p2o_core.types import Completion, Judged, TemplateSearch
from tasks.running.stage import Artifact, Stage, StageIO


def run(io: StageIO) -> None:
    """Write ``predictions.parquet``, ``judgements.parquet`` and ``metrics.json`` (avg@k, pass@k, maj@k and lengths by
    difficulty).

    What stands under ``best_template`` is measured with the best template of the last search in front; everything
    else is bare.
    """
    settings = io.experiment.evaluate
    if io.iteration % settings.every:
        _skip(io)
        return
    problems = read_problems(io.inputs["heldout"])
    engine, verifier = io.engine(), io.verifier()
    # one stream for all iterations: the policies are compared on the same draws
    stream = derive_seed(io.experiment.seed, "evaluate")
    measured = measure(engine, verifier, problems, settings, stream)
    write_rows(io.outputs["predictions"], measured.completions, Completion)
    io.counts["completions"] = write_rows(io.outputs["judgements"], measured.judged, Judged)
    best = read_record(io.inputs["templates"], TemplateSearch).best if settings.best_template else None
    under_best = measure(engine, verifier, problems, settings, stream, best.text).scores.accuracy if best else None
    write_record(
        io.outputs["metrics"],
        Measurement(iteration=io.iteration, **vars(measured.scores), best_template=under_best),
    )


def _skip(io: StageIO) -> None:
    """The iteration is not due for an evaluation: empty tables, and a status that says so."""
    write_rows(io.outputs["predictions"], [], Completion)
    io.counts["completions"] = write_rows(io.outputs["judgements"], [], Judged)
    write_record(io.outputs["metrics"], NotDue(io.iteration))


STAGE = Stage(
    name="evaluate",
    run=run,
    inputs={
        "heldout": Artifact("heldout.parquet", "base"),
        "base": Artifact("policy", "base"),
        "policy": Artifact("policy", "current"),
        "templates": Artifact("templates.json", "current"),
    },
    outputs={"predictions": "predictions.parquet", "judgements": "judgements.parquet", "metrics": "metrics.json"},
    params=("seed", "threads", "policy", "engine", "verify.timeout_s", "evaluate"),
)
