"""The embedded worlds' parameters: problems and a tiny base policy that ``prepare`` makes itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from p2o_core.config import Section, Share


class WorldPrepare(Section):
    """What the worlds share."""

    seed: int = Field(
        0, ge=0, description="of problems and base policy; apart from the experiment's, so seeds share a base"
    )
    hidden_size: PositiveInt = Field(96, description="width of the tiny Llama")
    layers: PositiveInt = Field(3, description="its depth")
    heads: PositiveInt = Field(4, description="its attention heads")
    feed_forward: PositiveInt = Field(4, description="width of its feed-forward layers, in hidden sizes")
    pretrain_steps: PositiveInt = Field(
        700, description="optimiser steps; a quarter of them more, up to three times, while the base falls short"
    )
    texts_per_step: PositiveInt = Field(64, description="texts a step")
    adamw_lr: PositiveFloat = Field(4e-3, description="peak, for embeddings and norms")
    muon_lr: PositiveFloat = Field(0.02, description="peak, for the matrices")
    longest: PositiveInt = Field(9, le=10, description="steps of the longest chains in the corpus")
    easy_length: PositiveInt = Field(1, description="steps of an easy problem")
    hard_lengths: tuple[PositiveInt, ...] = Field((6, 7, 8), description="steps of the hard problems, in equal parts")
    bare_at_most: Share = Field(
        0.02, description="solve rate of hard problems at the bare prompt above which the base is refused"
    )
    ood_lengths: tuple[PositiveInt, ...] = Field((5, 9), description="steps of the problems never trained on, likewise")
    train_easy: PositiveInt = Field(120, description="easy training problems")
    train_hard: PositiveInt = Field(240, description="hard training problems, as many of each length")
    heldout: PositiveInt = Field(64, description="held-out problems a difficulty, as many of each length")

    @model_validator(mode="after")
    def _lengths_fit(self) -> WorldPrepare:
        lengths = (self.easy_length, *self.hard_lengths, *self.ood_lengths)
        if max(lengths) > self.longest:
            raise ValueError(
                f"the corpus ends at longest={self.longest} steps, problems of {max(lengths)} were asked for"
            )
        if len(set(lengths)) < len(lengths):
            raise ValueError(
                "easy_length, hard_lengths and ood_lengths overlap; held-out out of distribution must be new"
            )
        return self

    @property
    def train_problems(self) -> int:
        return self.train_easy + self.train_hard // len(self.hard_lengths) * len(self.hard_lengths)

    def tiers(self, split: Literal["train", "heldout"]) -> list[tuple[str, int, int]]:
        """``(difficulty, length, count)`` of one split; only the held-out one has problems out of distribution."""
        easy, hard = (self.heldout, self.heldout) if split == "heldout" else (self.train_easy, self.train_hard)
        tiers = [("easy", self.easy_length, easy)]
        tiers += [("hard", length, hard // len(self.hard_lengths)) for length in self.hard_lengths]
        if split == "heldout":
            tiers += [("ood", length, self.heldout // len(self.ood_lengths)) for length in self.ood_lengths]
        return tiers


class MicroworldPrepare(WorldPrepare):
    """Make the embedded default: problems, phrases, and a base policy pre-trained here."""

    type: Literal["microworld"] = "microworld"
    fitting_share: Share = Field(0.4, description="share of texts worked under fitting sentences")
    bare_share: Share = Field(0.2, description="share of texts without sentences")
    distractors: int = Field(
        0, ge=0, le=36, description="sentences without effect, in corpus and pool, beside the fifteen others"
    )


class ReflectivePrepare(WorldPrepare):
    """Make the reflective world, whose base policy can read a failure and advise itself."""

    type: Literal["reflective"] = "reflective"
    layers: PositiveInt = Field(4, description="its depth")
    heads: PositiveInt = Field(6, description="its attention heads")
    feed_forward: PositiveInt = Field(2, description="width of its feed-forward layers, in hidden sizes")
    pretrain_steps: PositiveInt = Field(2300, description="optimiser steps; copying comes last")
    texts_per_step: PositiveInt = Field(48, description="texts a step")
    longest: PositiveInt = Field(7, le=7, description="steps of the longest chains in the corpus")
    hard_lengths: tuple[PositiveInt, ...] = Field((5, 6), description="steps of the hard problems, in equal parts")
    ood_lengths: tuple[PositiveInt, ...] = Field((4, 7), description="steps of the problems never trained on, likewise")
    flaw_rate: float = Field(0.5, gt=0, lt=0.9, description="probability a step of each of a family's flaws")
    review_share: Share = Field(0.39, description="share of texts that are reviews")
    reviewer_quality: Share = Field(0.6, description="probability that a review's sentence mends the flaw it saw")
    harm: Share = Field(0.4, description="probability that one that does not mend does harm; 0: only useless ones")
    advised: PositiveInt = Field(2, description="flaws that a review advises on at most, those seen first")
    helpful_share: float = Field(
        24 / 1152, gt=0, le=1, description="share of the language's sentences that help; the whole language has 1,152"
    )

    @model_validator(mode="after")
    def _first_step_is_clean(self) -> ReflectivePrepare:
        if self.easy_length > 1:
            raise ValueError(f"easy_length={self.easy_length}: flaws strike from the second step on; only 1 is easy")
        return self
