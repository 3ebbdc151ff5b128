"""The embedded worlds, for ``prepare``: their problems, phrases, strangers and base policies."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from p2o_core.schemas import write_json, write_rows
from p2o_core.seeding import derive_seed
from p2o_core.types import Problem
from tasks.parameters.worlds import MicroworldPrepare, ReflectivePrepare, WorldPrepare
from tasks.running.stage import StageIO

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from microworld.pretrain import Draw
    from p2o_core.engines.embedded import EmbeddedEngine

ROWS = 256
"""Completions in a batch of the competence check."""
STRANGERS = 64
"""Failures of other students, by family."""
log = logging.getLogger(__name__)


def prepare_microworld(io: StageIO, settings: MicroworldPrepare) -> None:
    """The embedded default. Raises IncompetentBase."""
    from microworld.competence import check, measure
    from microworld.corpus import draw_text
    from microworld.problems import draw_split
    from microworld.sentences import phrase_pool
    from microworld.tokenizer import build_tokenizer

    rng, taken = random.Random(_seed(settings, "problems")), set[str]()
    for split in ("heldout", "train"):
        write_problems(io, list(draw_split(rng, split, settings.tiers(split), taken)), split)
    phrases = phrase_pool(_seed(settings, "phrases"), settings.distractors)
    _write_words(io, phrases, [])
    draw = partial(
        draw_text,
        lengths=tuple(range(1, settings.longest + 1)),
        fitting_share=settings.fitting_share,
        bare_share=settings.bare_share,
        distractors=settings.distractors,
    )

    def examine(engine: EmbeddedEngine) -> None:
        table = measure(
            engine,
            tuple(sorted({settings.easy_length, *settings.hard_lengths, *settings.ood_lengths})),
            max_new_tokens=4 * settings.longest + 8,  # a step takes three tokens, the box three, the end one
            seed=_seed(settings, "competence"),
        )
        write_json(io.outputs["competence"], table)
        easy, hard = settings.easy_length, settings.hard_lengths
        check(table, easy_length=easy, hard_lengths=hard, bare_at_most=settings.bare_at_most)

    train_base(io, settings, build_tokenizer(settings.distractors), draw, examine)


def prepare_reflective(io: StageIO, settings: ReflectivePrepare) -> None:
    """The world whose policy reviews its own answers. Raises IncompetentBase."""
    from microworld.reflective.competence import Examination, check
    from microworld.reflective.corpus import Corpus
    from microworld.reflective.language import language
    from microworld.reflective.problems import draw_split
    from microworld.reflective.students import strangers
    from microworld.reflective.tokenizer import build_tokenizer

    rng, taken = random.Random(_seed(settings, "problems")), set[str]()
    for split in ("heldout", "train"):
        write_problems(io, list(draw_split(rng, split, settings.tiers(split), taken, settings.flaw_rate)), split)
    known = language(_seed(settings, "phrases"), settings.helpful_share)
    _write_words(
        io,
        [sentence.text for sentence in known],
        strangers(_seed(settings, "strangers"), STRANGERS, settings.hard_lengths, settings.flaw_rate),
    )
    corpus = Corpus(
        known=known,
        lengths=tuple(range(1, settings.longest + 1)),
        rate=settings.flaw_rate,
        review_share=settings.review_share,
        reviewer_quality=settings.reviewer_quality,
        harm=settings.harm,
        advised=settings.advised,
    )

    def examine(engine: EmbeddedEngine) -> None:
        table = Examination(
            engine=engine,
            known=known,
            easy_length=settings.easy_length,
            hard_lengths=settings.hard_lengths,
            rate=settings.flaw_rate,
            max_new_tokens=4 * settings.longest + 4,  # a step takes four tokens at most, the box three, the end one
            seed=_seed(settings, "competence"),
        ).measure()
        write_json(io.outputs["competence"], table)
        check(table, bare_at_most=settings.bare_at_most, reviewer_quality=settings.reviewer_quality)

    train_base(io, settings, build_tokenizer(), corpus.draw, examine)


def _seed(settings: WorldPrepare, purpose: str) -> int:
    return derive_seed(settings.seed, 0, purpose)


def train_base(
    io: StageIO,
    settings: WorldPrepare,
    tokenizer: PreTrainedTokenizerFast,
    draw: Draw,
    examine: Callable[[EmbeddedEngine], None],
) -> None:
    """Train the base policy and write it, in further rounds while ``examine`` raises IncompetentBase. Raises the last
    round's."""
    from microworld.competence import IncompetentBase
    from microworld.pretrain import PretrainSettings, pretrain
    from p2o_core.engines.embedded import EmbeddedEngine
    from p2o_core.policy import Policy
    from p2o_core.prompts import Chat

    base = PretrainSettings(
        seed=_seed(settings, "pretrain"),
        hidden_size=settings.hidden_size,
        layers=settings.layers,
        heads=settings.heads,
        steps=settings.pretrain_steps,
        texts_per_step=settings.texts_per_step,
        adamw_lr=settings.adamw_lr,
        muon_lr=settings.muon_lr,
        feed_forward=settings.feed_forward,
    )

    def progress(step: int, loss: float) -> None:
        io.progress(step, next(end for end in base.ends if step <= end))

    for steps, model in pretrain(base, tokenizer, draw, progress, checkpoints=io.journal.folder / "pretrain"):
        policy = Policy(model, Chat(tokenizer))
        policy.save(io.outputs["policy"])
        io.counts["pretrain_steps"] = steps
        try:
            examine(EmbeddedEngine(policy, rows_per_batch=ROWS))
            return
        except IncompetentBase as short:
            if steps == base.ends[-1]:
                raise
            log.warning("After %d steps %s Training on, by %d steps.", steps, short, base.further_steps)


def _write_words(io: StageIO, phrases: Sequence[str], strangers: Sequence[dict[str, Any]]) -> None:
    write_json(io.outputs["problems"], {"sources": []})
    write_json(io.outputs["phrases"], list(phrases))
    write_json(io.outputs["strangers"], list(strangers))


def write_problems(io: StageIO, problems: list[Problem], split: str) -> None:
    """One split's table."""
    io.counts[f"{split}_problems"] = write_rows(io.outputs[split], problems, Problem)
