"""Settings of the algorithm, one section a stage. Every field says its unit and where its default comes from."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Dtype = Literal["float32", "bfloat16"]
PromptStyle = Literal["plain", "p2o", "qwen25-math"]
"""What stands around a question; :data:`p2o_core.prompts.STYLES` has the texts."""


def _without_credentials(url: str) -> str:
    """Parameters go to params.yaml, DVC, MLflow and logs; secrets go to the environment."""
    parts = urlsplit(url)
    if parts.username or parts.password or SECRET_QUERY.search(parts.query):
        raise ValueError(
            "a key or password in an URL would be logged; give it in the environment (key_env, api_key_env)"
        )
    return url


SECRET_QUERY = re.compile(r"(?:^|&)[^=&]*(?:key|token|secret|password|signature)[^=&]*=", re.IGNORECASE)
Url = Annotated[str, AfterValidator(_without_credentials)]


class Section(BaseModel):
    """Frozen, and strict about unknown keys: a misspelt parameter is an error, never a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PolicySection(Section):
    """What full fine-tuning and LoRA share."""

    dtype: Dtype = Field("float32", description="of the weights the trainer keeps")
    compute_dtype: Dtype | None = Field(
        None,
        description="of arithmetic and engine, dtype's by default; bfloat16 beside float32 weights is mixed precision: "
        "a step of 1e-6 is lost in bfloat16 weights",
    )
    checkpointing: bool = Field(
        False, description="activations are computed again in the backward pass: a third more time, far less memory"
    )
    device: str = Field("cpu", description="torch device; cuda:0 for a GPU")
    attention: Literal["sdpa", "eager"] = Field("sdpa", description="transformers attention implementation")

    @property
    def engine_dtype(self) -> Dtype:
        """What engines compute in, and the trainer's forward pass."""
        return self.compute_dtype or self.dtype


class FullPolicy(PolicySection):
    """All weights are trained."""

    type: Literal["full"] = "full"


class LoraPolicy(PolicySection):
    """A LoRA adapter (arXiv 2106.09685) on the frozen base policy. No dropout: old and new log-probs must come from
    the same function."""

    type: Literal["lora"] = "lora"
    rank: PositiveInt = Field(16, description="rank of A and B")
    alpha: PositiveInt = Field(32, description="scale alpha / rank; twice the rank is common practice")
    target_modules: str = Field("all-linear", description="peft's target_modules")


PolicyConfig = FullPolicy | LoraPolicy
AnyPolicy = Annotated[PolicyConfig, Field(discriminator="type")]


class EmbeddedEngineConfig(Section):
    """transformers in this process. The default: exact, reproducible to the byte, on CPU or one GPU."""

    type: Literal["embedded"] = "embedded"
    rows_per_batch: PositiveInt = Field(
        512, description="completions decoded side by side; part of what decides the bytes"
    )

    @property
    def completions_per_unit(self) -> int:
        """A batch is what a killed stage loses at most."""
        return self.rows_per_batch


class VllmEngineConfig(Section):
    """vLLM in this process, on CPU or GPU; adapters and weights are swapped without a restart."""

    type: Literal["vllm"] = "vllm"
    max_model_len: PositiveInt = Field(..., description="tokens of prompt and completion together at most")
    max_sequences: PositiveInt = Field(256, description="completions decoded side by side at most")
    cpu_cache_gib: PositiveInt = Field(2, description="key-value cache on CPU, GiB")
    gpu_memory: Share = Field(0.85, description="share of the GPU's memory while awake; asleep nearly nothing")
    sleep: bool = Field(True, description="GPU: give weights and cache back while the trainer works")
    eager: bool = Field(False, description="GPU: no CUDA graphs, starts faster and decodes slower; always so on CPU")
    tensor_parallel: PositiveInt = Field(1, description="GPUs a copy of the model is spread over")
    completions_per_unit: PositiveInt = Field(1024, description="completions that a killed stage loses at most")


class ServerEngineConfig(Section):
    """One or many vLLM servers (``p2o serve``) behind OpenAI's protocol; adapters are loaded at run time."""

    type: Literal["server"] = "server"
    urls: tuple[Url, ...] = Field(..., min_length=1, description="base URLs, as http://127.0.0.1:8001")
    concurrency: PositiveInt = Field(32, description="requests in flight a server at most: the back-pressure")
    timeout_s: PositiveFloat = Field(600.0, description="seconds a completion may take")
    retries: PositiveInt = Field(5, description="times a request is tried again, on whichever server is well")
    patience_s: PositiveFloat = Field(300.0, description="seconds without any healthy server before giving up")
    api_key_env: str = Field("", description="environment variable with the servers' API key; blank for none")
    completions_per_unit: PositiveInt = Field(1024, description="completions that a killed stage loses at most")


EngineConfig = EmbeddedEngineConfig | VllmEngineConfig | ServerEngineConfig
AnyEngine = Annotated[EngineConfig, Field(discriminator="type")]


class RolloutConfig(Section):
    """Bare rollouts of an iteration's problems."""

    problems: PositiveInt = Field(..., description="problems an iteration, drawn from the train split")
    samples: PositiveInt = Field(6, description="rollouts a problem (n); the paper's n")
    temperature: PositiveFloat = Field(0.6, description="sampling temperature; the paper's")
    max_new_tokens: PositiveInt = Field(..., description="tokens a completion at most")
    prompt: PromptStyle = Field(
        "plain", description="what stands around a question: nothing, the paper's base prompt, Qwen2.5-Math's"
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


class PhraseReflector(Section):
    """Proposes from a pool of phrases: add, drop, replace, reorder, cross. Works offline."""

    type: Literal["phrases"] = "phrases"
    max_phrases: PositiveInt = Field(5, description="phrases a template at most")
    exclude: tuple[str, ...] = Field((), description="phrases of the pool that are not used")

    def options(self) -> dict[str, Any]:
        """What the reflector's constructor takes."""
        return self.model_dump(exclude={"type"})


class ModelReflectorSection(Section):
    """What reflection models share."""

    temperature: PositiveFloat = Field(1.0, description="of reflections; different proposals are wanted")
    max_new_tokens: int = Field(2048, gt=0, le=2048, description="tokens a reflection at most; the official code's")
    attempts: PositiveInt = Field(2, description="times a parent's reflection is asked for until one is accepted")
    max_characters: PositiveInt = Field(2000, description="characters a template at most")


class SelfReflector(ModelReflectorSection):
    """The reference policy (iteration 0's) writes templates, through the experiment's engine."""

    type: Literal["self"] = "self"


class TeacherReflector(ModelReflectorSection):
    """A stronger model behind an OpenAI-compatible endpoint."""

    type: Literal["teacher"] = "teacher"
    base_url: Url = Field(..., description="as https://host/v1")
    model: str = Field(..., description="name the endpoint knows it by")
    key_env: str = Field("P2O_TEACHER_API_KEY", description="environment variable with the key")
    secret_block: str = Field("", description="Prefect Secret block with the key, where the variable is not set")
    concurrency: PositiveInt = Field(8, description="requests in flight at most")
    timeout_s: PositiveFloat = Field(120.0, description="seconds an attempt may take")
    retries: int = Field(4, ge=0, description="further attempts after one that failed")
    backoff_s: PositiveFloat = Field(1.0, description="seconds before the first further attempt, doubling, with jitter")
    patience_s: PositiveFloat = Field(
        600.0, description="seconds without any answer after which a search ends with the templates it has"
    )
    input_price: float = Field(0.0, ge=0, description="dollars a million input tokens")
    output_price: float = Field(0.0, ge=0, description="dollars a million output tokens")


AnyReflector = Annotated[PhraseReflector | SelfReflector | TeacherReflector, Field(discriminator="type")]


class EvolveConfig(Section):
    """GEPA over templates, then cover and assignment."""

    enabled: bool = Field(True, description="off: plain GRPO")
    search: Literal["gepa", "random"] = Field(
        "gepa", description="random: templates drawn from the pool without looking, as a control"
    )
    archive: bool = Field(
        False, description="the last search's template set is scored again and seeds the next search; off in the paper"
    )
    racing: bool = Field(
        False, description="candidates far behind the best stop being scored half way through the dev set"
    )
    first: PositiveInt = Field(1, description="iteration of the first search; the paper's is the end of an epoch")
    every: PositiveInt = Field(1, description="iterations between searches; in between the last templates stay")
    min_hard: PositiveInt = Field(100, description="hard samples needed for a search; the paper's gate")
    dev_size: PositiveInt = Field(300, description="dev instances; half the hard set when it is below 1.5 times this")
    minibatch: PositiveInt = Field(3, description="train hard samples a proposal; the paper's")
    parents: PositiveInt = Field(16, description="distinct parents a step at most; the paper's")
    samples_per_score: PositiveInt = Field(1, description="rollouts a score (k); the paper's is 1")
    solved_at: Share = Field(1.0, description="a template solves a dev instance when its score reaches this")
    max_metric_calls: PositiveInt = Field(
        11_040, description="scores (problem under template) a search may take; the paper's heavy_4 at dev = 300"
    )
    one_template_per_group: bool = Field(
        False, description="all templated rollouts of a problem share a template; off in the official scripts"
    )
    reflector: AnyReflector = PhraseReflector()

    @model_validator(mode="after")
    def _budget_allows_a_search(self) -> EvolveConfig:
        """gepa spends dev_size calls on the seed and, a proposal, two minibatches and a dev set when it is kept.
        Below a few of those it makes a single proposal and looks like success."""
        least = self.dev_size + 3 * (self.dev_size + 2 * self.minibatch)
        if self.max_metric_calls < least:
            raise ValueError(
                f"max_metric_calls={self.max_metric_calls} allows hardly one proposal with dev_size={self.dev_size}; "
                f"at least {least}, or a smaller dev_size"
            )
        return self


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
    clip_low: Share = Field(0.2, description="policy ratio's lower clip; the paper's")
    clip_high: PositiveFloat = Field(0.2, description="policy ratio's upper clip; the paper's")
    dual_clip: float | None = Field(3.0, gt=1, description="bound for negative advantages; the paper's")
    aggregation: Literal["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"] = Field(
        "token-mean", description="the paper's"
    )
    normalize_std: bool = Field(True, description="divide advantages by the group's standard deviation; off = Dr.GRPO")
    template_mask: Literal["hard", "soft", "off"] = Field("hard", description="template-ratio mask; the paper's")
    template_ratio_low: PositiveFloat = Field(0.01, description="mask's lower bound; the paper's")
    template_ratio_high: PositiveFloat = Field(10.0, description="mask's upper bound; the paper's")
    engine_ratio: Literal["off", "truncated", "masked"] = Field(
        "off", description="weight for trainer/engine differences; off suits the embedded engine, which has none"
    )
    engine_ratio_level: Literal["token", "sequence"] = Field("token", description="one weight a token, or a completion")
    engine_ratio_limit: float = Field(2.0, gt=1, description="truncated at this, or masked beyond it (and below 1/it)")
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
    entropy_floor: Share = Field(
        0.1, description="warn when the bare rollouts' entropy a token falls below this share of the first iteration's"
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
