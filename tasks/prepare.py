"""prepare: problems, phrases and the base policy, shared by every experiment with the same settings."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

from p2o_core.schemas import BadInput, check_problems, read_problems, write_json, write_rows
from p2o_core.seeding import derive_seed
from p2o_core.types import Problem
from tasks.experiment import FilesPrepare, MicroworldPrepare
from tasks.stage import Stage, StageIO


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
    from p2o_core.policy import Policy

    rng, taken = random.Random(derive_seed(settings.seed, 0, "problems")), set[str]()
    heldout = tiers(settings, settings.heldout, settings.heldout)
    heldout += [("ood", n, settings.heldout // len(settings.ood_lengths)) for n in settings.ood_lengths]
    train = tiers(settings, settings.train_easy, settings.train_hard)
    _write_problems(io, list(draw_split(rng, "heldout", heldout, taken)), "heldout")
    _write_problems(io, list(draw_split(rng, "train", train, taken)), "train")
    write_json(io.outputs["phrases"], phrase_pool(derive_seed(settings.seed, 0, "phrases")))

    tokenizer = build_tokenizer()
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
        ),
        tokenizer,
        on_step=lambda step, loss: io.progress(step, settings.pretrain_steps),
    )
    policy = Policy(model, tokenizer)
    policy.save(io.outputs["policy"])
    table = measure(
        io.runtime.engine(policy, rows_per_batch=256),
        tuple(sorted({settings.easy_length, *settings.hard_lengths, *settings.ood_lengths})),
        max_new_tokens=4 * settings.longest + 8,  # a step takes three tokens, the box three, the end one
        seed=derive_seed(settings.seed, 0, "competence"),
    )
    write_json(io.outputs["competence"], table)
    check(table, easy_length=settings.easy_length, hard_lengths=settings.hard_lengths)


def tiers(settings: MicroworldPrepare, easy: int, hard: int) -> list[tuple[str, int, int]]:
    """``(difficulty, length, count)`` of the easy and the hard problems of one split."""
    lengths = settings.hard_lengths
    return [("easy", settings.easy_length, easy), *(("hard", length, hard // len(lengths)) for length in lengths)]


def _prepare_files(io: StageIO, settings: FilesPrepare) -> None:
    from p2o_core.policy import Policy

    for split, path in (("train", settings.train), ("heldout", settings.heldout)):
        source = io.layout.workspace / path
        problems = read_jsonl(source, split) if source.suffix == ".jsonl" else read_problems(source)
        _write_problems(io, [replace(problem, split=split) for problem in problems], split)
    phrases = json.loads((io.layout.workspace / settings.phrases).read_text())
    write_json(io.outputs["phrases"], phrases)
    folder = io.layout.workspace / settings.policy
    Policy.load(folder, folder, io.experiment.policy).save(io.outputs["policy"])
    write_json(io.outputs["competence"], {})


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
    inputs={},
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
