"""The other stages of an iteration: rollout, verify, mine, distill and evaluate, and when a run is ill."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from p2o_core.config.section import PromptStyle, Section, Share

Aggregation = Literal["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"]
"""How a mini-batch's per-token losses become one number: ``aggregate`` and ``loss_denominator``, p2o_core/losses.py."""


class RolloutConfig(Section):
    """Bare rollouts of an iteration's problems."""

    problems: PositiveInt = Field(..., description="problems an iteration, drawn from the train split")
    samples: PositiveInt = Field(6, description="rollouts a problem (n); the paper's n")
    temperature: PositiveFloat = Field(0.6, description="sampling temperature; the paper's")
    max_new_tokens: PositiveInt = Field(..., description="tokens a completion at most")
    prompt: PromptStyle = Field(
        "plain", description="what stands around a question: nothing, the paper's base prompt, Qwen2.5-Math's"
    )
    resample_rounds: int = Field(
        0,
        ge=0,
        description="DAPO's dynamic sampling: rounds at most in which new problems stand in for those without a signal",
    )


class VerifyConfig(Section):
    """The pool of killable verifier processes."""

    workers: PositiveInt = Field(2, description="processes")
    timeout_s: PositiveFloat = Field(5.0, description="seconds an answer may take; math-verify's own default")


class MineConfig(Section):
    """Which problems are hard."""

    near_hard: bool = Field(True, description="also those with exactly one success; on in the official code")
    window: PositiveInt = Field(
        1, description="iterations whose hard problems the search may use; an epoch's worth is the paper's"
    )


class DistillConfig(Section):
    """Templated rollouts of the hard problems, then the clipped update at the bare prompt."""

    enabled: bool = Field(True, description="off: the weights stay as they are (prompt optimisation alone)")
    hard_groups: Literal["mixed", "templated"] = Field(
        "mixed", description="templated: bare rollouts of problems with templated ones are left out, as in the paper"
    )
    reuse: bool = Field(
        False, description="completions the search sampled under kept templates stand in for templated rollouts"
    )
    templated_samples: PositiveInt = Field(6, description="templated rollouts a hard problem, beside its bare ones")
    checkpoint_every: PositiveInt = Field(
        1, description="optimiser steps between checkpoints within an update; what a kill loses at most"
    )
    groups_per_minibatch: PositiveInt = Field(
        64, description="groups with signal an optimiser step; the paper's mini-batch"
    )
    tokens_per_microbatch: PositiveInt = Field(16_384, description="padded tokens a forward pass at most")
    learning_rate: PositiveFloat = Field(
        1e-6, description="AdamW's peak; the paper's, for full fine-tuning of 4 B parameters"
    )
    warmup_steps: int = Field(0, ge=0, description="optimiser steps of linear warm-up, counted over all iterations")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's")
    max_grad_norm: PositiveFloat = Field(1.0, description="gradients are scaled down to this norm")
    loss: Literal["grpo", "sft"] = Field(
        "grpo",
        description="sft: cross-entropy on the iteration's right answers at the gradient's prompt; no advantages, no "
        "ratio, no other answers",
    )
    clip_low: Share = Field(0.2, description="policy ratio's lower clip; the paper's")
    clip_high: PositiveFloat = Field(0.2, description="policy ratio's upper clip; the paper's")
    dual_clip: float | None = Field(3.0, gt=1, description="bound for negative advantages; the paper's")
    aggregation: Aggregation = Field("token-mean", description="the paper's")
    normalize_std: bool = Field(True, description="divide advantages by the group's standard deviation; off = Dr.GRPO")
    template_mask: Literal["hard", "soft", "off"] = Field("hard", description="template-ratio mask; the paper's")
    template_ratio_low: PositiveFloat = Field(0.01, description="mask's lower bound; the paper's")
    template_ratio_high: PositiveFloat = Field(10.0, description="mask's upper bound; the paper's")
    engine_ratio: Literal["off", "truncated", "masked"] = Field(
        "off", description="weight for trainer/engine differences; off suits the embedded engine, which has none"
    )
    engine_ratio_templated: Literal["rebased", "measured"] = Field(
        "rebased",
        description="templated rows: weight 1, the prompt shift being no engine error, or measured by a second pass",
    )
    context: Literal["bare", "templated"] = Field(
        "bare", description="prompt of the gradient; templated switches context distillation off"
    )


class HealthConfig(Section):
    """When a run is said to be ill, and what is done about it. Warnings name their mend; docs/how-to.md says more."""

    gradient_spike: float = Field(
        10.0, gt=1, description="warn when a step's gradient norm is this many times the median of earlier iterations"
    )
    skill_margin: Share = Field(
        0.1, description="accuracy a policy may lose on what it could do before; beyond it on_lost_skills is the answer"
    )
    skill_probe: int = Field(
        0,
        ge=0,
        description="solved problems rolled out again after each update at most; 0: only evaluations are watched",
    )
    on_lost_skills: Literal["warn", "stop", "roll_back"] = Field(
        "warn",
        description="roll_back: the iteration keeps the policy it started from (needs skill_probe); stop ends the run",
    )

    @model_validator(mode="after")
    def _roll_back_needs_a_probe(self) -> HealthConfig:
        if self.on_lost_skills == "roll_back" and not self.skill_probe:
            raise ValueError("on_lost_skills=roll_back needs skill_probe, the problems by which it decides; 16 will do")
        return self


class EvaluateConfig(Section):
    """The bare policy on held-out problems."""

    every: PositiveInt = Field(1, description="iterations between evaluations; iteration 0 is always evaluated")
    samples: PositiveInt = Field(4, description="completions a problem (k of avg@k)")
    pass_k: tuple[PositiveInt, ...] = Field((1, 4), description="k of pass@k, each at most ``samples``")
    temperature: float = Field(1.0, ge=0, description="0 is greedy")
    best_template: bool = Field(
        False, description="also under the best template of the last search, as metrics named best_template/…"
    )
    max_new_tokens: PositiveInt = Field(..., description="tokens a completion at most")
    prompt: PromptStyle = Field(
        "plain", description="as rollout.prompt; qwen25-math is what the benchmarks are run with"
    )

    @model_validator(mode="after")
    def _enough_samples(self) -> EvaluateConfig:
        if max(self.pass_k, default=1) > self.samples:
            raise ValueError(f"pass_k={self.pass_k} needs more than samples={self.samples} completions")
        return self
