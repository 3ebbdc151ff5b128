"""prepare: problems, phrases and the base policy, shared by every experiment with the same settings."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2o_core.digests import digest
from p2o_core.schemas import BadInput, check_problems, write_json
from p2o_core.templates import ASSISTANT, USER, Parts, Turn, malformed, parse_template
from tasks.parameters.experiment import Experiment, FilesPrepare
from tasks.parameters.worlds import MicroworldPrepare, ReflectivePrepare
from tasks.problems.cells import text_of
from tasks.problems.contamination import Cleaned, clean
from tasks.problems.position_check import Asked, check_positions
from tasks.problems.sources import Loaded, load_source
from tasks.problems.tables import read_document
from tasks.running.layout import Layout
from tasks.running.manifests import made_with, manifest_path
from tasks.running.stage import Artifact, Stage, StageIO
from tasks.worlds import prepare_microworld, prepare_reflective, write_problems

SPLITS = ("train", "heldout")
log = logging.getLogger(__name__)


def run(io: StageIO) -> None:
    """Write the train and held-out problems, the phrase pool, other students' failures, the base policy and what it
    is capable of."""
    settings = io.experiment.prepare
    if isinstance(settings, MicroworldPrepare):
        prepare_microworld(io, settings)
    elif isinstance(settings, ReflectivePrepare):
        prepare_reflective(io, settings)
    else:
        _prepare_files(io, settings)


def _prepare_files(io: StageIO, settings: FilesPrepare) -> None:
    loaded = {split: load_split(settings, split, io.inputs["sources"]) for split in SPLITS}
    heldout = [problem for source in loaded["heldout"] for problem in source.problems]
    check_problems(heldout, Path("prepare.heldout"))
    read = [problem for source in loaded["train"] for problem in source.problems]
    check_problems(read, Path("prepare.train"))
    validation = {p.id for source in loaded["heldout"] if source.source.validation for p in source.problems}
    cleaned = clean(read, heldout, validation)
    train = [p for p in cleaned.problems if settings.contamination == "report" or p.id not in cleaned.contaminated]
    if settings.contamination == "refuse" and cleaned.contaminated:
        first, shared = next(iter(cleaned.contaminated.items()))
        raise BadInput(
            f"{io.layout.params}: field 'prepare.train': {len(cleaned.contaminated)} problems share their text with "
            f"held-out ones, first {first!r} with {shared!r}. Mend: prepare.contamination: drop, or other sources."
        )
    if io.experiment.rollout.problems > len(train):
        raise BadInput(
            f"{io.layout.params}: field 'rollout.problems' is {io.experiment.rollout.problems}, the train split has "
            f"{len(train)} problems after duplicates and contamination. Mend: lower it or add problems."
        )
    phrases = read_phrases(io, settings.phrases) if settings.phrases else []
    styles = (io.experiment.rollout.prompt, io.experiment.evaluate.prompt)
    policy = settings.policy.load(io.inputs["sources"], styles)
    shown = [phrase for phrase in phrases if parse_template(phrase).turns]
    if io.experiment.evolve.reflector.type == "demonstrations":
        shown.append(str(Parts("", (Turn("question", "answer"),))))
    for template in shown:  # a chat template without turns is refused here
        policy.chat.encode_prompt("question", template, io.experiment.rollout.prompt)
    questions = (problem.question for problem in (*train, *heldout))
    if said := check_positions(policy.chat, policy.model, Path("prepare.policy"), asked_of(io.experiment), questions):
        log.warning("prepare.policy: %s", said)

    policy.save(io.outputs["policy"])
    write_problems(io, train, "train")
    write_problems(io, heldout, "heldout")
    write_json(io.outputs["phrases"], phrases)
    write_json(io.outputs["strangers"], [])
    write_json(io.outputs["competence"], {})
    write_json(io.outputs["problems"], _report(loaded, cleaned, len(train)))


def asked_of(experiment: Experiment) -> Asked:
    """What the policy is asked for, by section."""
    rollout, evaluate = experiment.rollout, experiment.evaluate
    return {
        "rollout": (rollout.prompt, rollout.max_new_tokens),
        "evaluate": (evaluate.prompt, evaluate.max_new_tokens),
    }


def load_split(settings: FilesPrepare, split: str, folder: Path) -> list[Loaded]:
    """The sources of one split. Raises BadInput."""
    return [load_source(source, split, folder, settings.seed) for source in getattr(settings, split)]


def _report(loaded: Mapping[str, list[Loaded]], cleaned: Cleaned, train: int) -> dict[str, Any]:
    """problems.json: what came from where and what was left out. Files outside data/sources/, which DVC does not
    watch, are named with their digests."""
    sources = []
    for split, parts in loaded.items():
        for part in parts:
            path = part.source.path
            outside = {"sha256": digest(path)} if path is not None and path.is_absolute() else {}
            counts: dict[str, Any] = {"rows": part.rows, "filtered": part.filtered, "taken": len(part.problems)}
            counts["unanswered"] = list(part.unanswered)
            if part.source.balance is not None:
                counts["unbalanced"] = part.unbalanced
            sources.append({"split": split, "source": part.source.label} | counts | outside)
    return {
        "sources": sources,
        "train": train,
        "duplicates": cleaned.duplicates,
        "contaminated": cleaned.contaminated,
    }


def read_phrases(io: StageIO, given: tuple[str, ...] | Path) -> list[str]:
    """The offline reflector's pool: at least two different sentences. Raises BadInput."""
    if isinstance(given, Path):
        place = str(io.inputs["sources"] / given)
        phrases = read_document(io.inputs["sources"] / given)
    else:
        place, phrases = f"{io.layout.params}: field 'prepare.phrases'", list(given)
    mend = "Mend: write a JSON list of at least two different sentences."
    if not isinstance(phrases, list):
        raise BadInput(f"{place}: no pool of phrases. {mend}")
    for row, phrase in enumerate(phrases, start=1):
        if isinstance(phrase, str) and malformed(phrase):
            raise BadInput(
                f"{place}: row {row}: its demonstrations are no whole pairs, each a line {USER!r}, a question, a "
                f"line {ASSISTANT!r} and its answer. Mend: complete them."
            )
        if not isinstance(phrase, str) or not text_of(phrase, "phrase", f"{place}: row {row}"):
            raise BadInput(f"{place}: row {row}: {str(phrase)[:40]!r} is no sentence. {mend}")
    if len(set(phrases)) < 2:
        raise BadInput(f"{place}: no pool of phrases. {mend}")
    return phrases


STAGE = Stage(
    name="prepare",
    run=run,
    inputs={"sources": Artifact("sources", "data")},
    outputs={
        "train": "train.parquet",
        "heldout": "heldout.parquet",
        "phrases": "phrases.json",
        "strangers": "strangers.json",
        "problems": "problems.json",
        "policy": "policy",
        "competence": "competence.json",
    },
    params=("prepare", "threads"),
    where="base",
    per_iteration=False,
)


def is_prepared(experiment: Experiment, layout: Layout) -> bool:
    """Whether the base is there, made with the parameters as they are now."""
    return made_with(manifest_path(layout.base, STAGE.name), experiment.digest_of(STAGE.params)) is not None
