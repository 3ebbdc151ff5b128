"""prepare: problems, phrases and the base policy, shared by every experiment with the same settings."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

from p2o_core.config import FullPolicy
from p2o_core.schemas import BadInput, check_problems, read_json, read_problems, write_json, write_rows
from p2o_core.seeding import derive_seed
from p2o_core.types import Problem
from tasks.experiment import FilesPrepare, MicroworldPrepare
from tasks.stage import Artifact, Stage, StageIO

SPLITS = ("train", "heldout")


def run(io: StageIO) -> None:
    """Write the train and held-out problems, the phrase pool, the base policy and what it is capable of."""
    settings = io.experiment.prepare
    if isinstance(settings, MicroworldPrepare):
        _prepare_microworld(io, settings)
    else:
        _prepare_files(io, settings)


def _prepare_microworld(io: StageIO, settings: MicroworldPrepare) -> None:
    from microworld.competence import check, measure
    from microworld.pretrain import PretrainSettings, pretrain
    from microworld.problems import draw_split
    from microworld.sentences import phrase_pool
    from microworld.tokenizer import build_tokenizer
    from p2o_core.engines.embedded import EmbeddedEngine
    from p2o_core.policy import Policy
    from p2o_core.prompts import Chat

    rng, taken = random.Random(derive_seed(settings.seed, 0, "problems")), set[str]()
    heldout = tiers(settings, settings.heldout, settings.heldout)
    heldout += [("ood", n, settings.heldout // len(settings.ood_lengths)) for n in settings.ood_lengths]
    train = tiers(settings, settings.train_easy, settings.train_hard)
    _write_problems(io, list(draw_split(rng, "heldout", heldout, taken)), "heldout")
    _write_problems(io, list(draw_split(rng, "train", train, taken)), "train")
    write_json(io.outputs["phrases"], phrase_pool(derive_seed(settings.seed, 0, "phrases"), settings.distractors))

    tokenizer = build_tokenizer(settings.distractors)
    model = pretrain(
        PretrainSettings(
            seed=derive_seed(settings.seed, 0, "pretrain"),
            hidden_size=settings.hidden_size,
            layers=settings.layers,
            heads=settings.heads,
            steps=settings.pretrain_steps,
            texts_per_step=settings.texts_per_step,
            adamw_lr=settings.adamw_lr,
            muon_lr=settings.muon_lr,
            lengths=tuple(range(1, settings.longest + 1)),
            fitting_share=settings.fitting_share,
            bare_share=settings.bare_share,
            distractors=settings.distractors,
        ),
        tokenizer,
        on_step=lambda step, loss: io.progress(step, settings.pretrain_steps),
    )
    policy = Policy(model, Chat(tokenizer))
    policy.save(io.outputs["policy"])
    table = measure(
        EmbeddedEngine(policy, rows_per_batch=256),
        tuple(sorted({settings.easy_length, *settings.hard_lengths, *settings.ood_lengths})),
        max_new_tokens=4 * settings.longest + 8,  # a step takes three tokens, the box three, the end one
        seed=derive_seed(settings.seed, 0, "competence"),
    )
    write_json(io.outputs["competence"], table)
    check(
        table, easy_length=settings.easy_length, hard_lengths=settings.hard_lengths, bare_at_most=settings.bare_at_most
    )


def tiers(settings: MicroworldPrepare, easy: int, hard: int) -> list[tuple[str, int, int]]:
    """``(difficulty, length, count)`` of the easy and the hard problems of one split."""
    lengths = settings.hard_lengths
    return [("easy", settings.easy_length, easy), *(("hard", length, hard // len(lengths)) for length in lengths)]


def _prepare_files(io: StageIO, settings: FilesPrepare) -> None:
    problems = {split: read_source(io.inputs["sources"] / getattr(settings, split), split) for split in SPLITS}
    if io.experiment.rollout.problems > len(problems["train"]):
        raise BadInput(
            f"{io.layout.params}: field 'rollout.problems' is {io.experiment.rollout.problems}, {settings.train} has "
            f"{len(problems['train'])} problems. Mend: lower it or add problems."
        )
    phrases = read_phrases(io.inputs["sources"] / settings.phrases)
    folder = io.inputs["sources"] / settings.policy
    if not (folder / "config.json").exists():
        raise BadInput(f"{folder}: no Hugging Face model folder. Mend: correct prepare.policy in params.yaml.")

    from p2o_core.policy import Policy

    Policy.load(folder, folder, FullPolicy()).save(io.outputs["policy"])
    for split, rows in problems.items():
        _write_problems(io, rows, split)
    write_json(io.outputs["phrases"], phrases)
    write_json(io.outputs["competence"], {})


def read_source(path: Path, split: str) -> list[Problem]:
    """A problem file of the user's, parquet or JSON lines. Raises BadInput."""
    problems = read_jsonl(path, split) if path.suffix == ".jsonl" else read_problems(path)
    return [replace(problem, split=split) for problem in problems]


def read_phrases(path: Path) -> list[str]:
    """The offline reflector's pool: a JSON list of at least two different strings. Raises BadInput."""
    phrases = read_json(path)
    if not isinstance(phrases, list) or len({p for p in phrases if isinstance(p, str) and p.strip()}) < 2:
        raise BadInput(f"{path}: no pool of phrases. Mend: write a JSON list of at least two different sentences.")
    return phrases


def read_jsonl(path: Path, split: str) -> list[Problem]:
    """Problems from JSON lines with id, question, answer and difficulty. Raises BadInput naming the line."""
    if not path.exists():
        raise BadInput(f"{path}: no such file. Mend: correct prepare.{split} in params.yaml.")
    problems = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}: line {number}: {error.msg}. Mend: one JSON object a line.") from error
        missing = [name for name in ("id", "question", "answer", "difficulty") if name not in record]
        if missing:
            raise BadInput(f"{path}: line {number}: column {missing[0]!r} is missing. Mend: add it to every line.")
        problems.append(
            Problem(**{name: str(record[name]) for name in ("id", "question", "answer", "difficulty")}, split=split)
        )
    check_problems(problems, path)
    return problems


def _write_problems(io: StageIO, problems: list[Problem], split: str) -> None:
    io.counts[f"{split}_problems"] = write_rows(io.outputs[split], problems, Problem)


STAGE = Stage(
    name="prepare",
    run=run,
    inputs={"sources": Artifact("sources", "data")},
    outputs={
        "train": "train.parquet",
        "heldout": "heldout.parquet",
        "phrases": "phrases.json",
        "policy": "policy",
        "competence": "competence.json",
    },
    params=("prepare", "threads"),
    where="base",
    per_iteration=False,
)
