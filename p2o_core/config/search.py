"""The search for templates: GEPA's budget, and who proposes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from p2o_core.config.section import ReflectionPrompt, Section, Share, Url, variant_of


class PhraseReflectorConfig(Section):
    """Proposes from a pool of phrases: add, drop, replace, reorder, cross. Works offline."""

    type: Literal["phrases"] = "phrases"
    max_phrases: PositiveInt = Field(5, description="phrases a template at most")
    exclude: tuple[str, ...] = Field((), description="phrases of the pool that are not used")

    def options(self) -> dict[str, Any]:
        """What the reflector's constructor takes."""
        return self.model_dump(exclude={"type"})


class DemonstrationReflectorConfig(Section):
    """Proposes sets of demonstrations, as chat turns, from the policy's own verified answers to train problems."""

    type: Literal["demonstrations"] = "demonstrations"
    written: bool = Field(
        False, description="the demonstrations in prepare.phrases are there from the start, beside the policy's own"
    )
    turns: PositiveInt = Field(3, description="demonstrations a template at most")
    max_tokens: PositiveInt = Field(256, description="tokens of a demonstrated answer at most; shorter ones come first")
    per_problem: PositiveInt = Field(2, description="answers to one problem in the pool at most, the shortest")
    size: PositiveInt = Field(512, description="demonstrations in the pool at most; the longest answers go first")
    max_share: Share = Field(
        0.5, description="share of draws that answers of one shape may have, as long as the pool has others"
    )


class ModelReflectorConfig(Section):
    """What reflection models share."""

    temperature: PositiveFloat = Field(1.0, description="of reflections; different proposals are wanted")
    max_new_tokens: int = Field(2048, gt=0, le=2048, description="tokens a reflection at most; the official code's")
    attempts: PositiveInt = Field(2, description="times a parent's reflection is asked for until one is accepted")
    max_characters: PositiveInt = Field(2000, description="characters a template at most")
    prompt: ReflectionPrompt = Field(
        "plain", description="plain: an instruction in words; terse: the form of the reflective world's reviews"
    )


class SelfReflectorConfig(ModelReflectorConfig):
    """The reference policy (iteration 0's) writes templates, through the experiment's engine."""

    type: Literal["self"] = "self"


class TeacherReflectorConfig(ModelReflectorConfig):
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


AnyReflector = Annotated[
    PhraseReflectorConfig | DemonstrationReflectorConfig | SelfReflectorConfig | TeacherReflectorConfig,
    Field(discriminator="type"),
    variant_of("phrases"),
]


class OnlineConfig(Section):
    """Search without a bill: templated training rollouts score the templates. The standing controls are settings."""

    reflections: PositiveInt = Field(8, description="reflections an iteration")
    first_reflections: PositiveInt = Field(16, description="reflections in the first search")
    from_templated: Share = Field(
        0.7, description="share of reflections on failures under a template, whose children keep what it says"
    )
    keep: Literal["front", "all", "newest"] = Field(
        "front", description="front: the best of each kind of problem; all for ever; only the newest search's"
    )
    size: PositiveInt = Field(24, description="templates that keep=front keeps at most")
    draw: Literal["thompson", "uniform"] = Field(
        "thompson", description="a rollout's template: by Thompson sampling, or without looking"
    )
    discount: Share = Field(0.7, description="what evidence counts an iteration later, since the policy moves")
    by_kind: bool = Field(True, description="a posterior for each kind of problem, where problems say their kind")
    reads: Literal["own", "stranger"] = Field(
        "own", description="failures the reflector reads: the policy's, or another's (data/base/strangers.json)"
    )


class EvolveConfig(Section):
    """The search for templates, then cover and assignment."""

    enabled: bool = Field(True, description="off: plain GRPO")
    search: Literal["gepa", "online", "random"] = Field(
        "gepa",
        description="gepa: with a budget of its own; online: training rollouts are its scores; random: templates drawn "
        "from the pool without looking, as a control",
    )
    online: OnlineConfig = OnlineConfig()
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
    transfer_tau: float | None = Field(
        None,
        gt=0,
        description="weigh scores by exp(min(Δ, 0)/τ), Δ the mean log template ratio of correct completions: what bare "
        "training can take over; HiLL's τ is 0.3. Off in the paper",
    )
    fresh_size: int = Field(
        0,
        ge=0,
        description="hard problems set aside, on which the template set is scored again before use; 0: none, the paper",
    )
    reflector: AnyReflector = PhraseReflectorConfig()

    @model_validator(mode="after")
    def _random_draws_need_a_pool(self) -> EvolveConfig:
        if self.search == "random" and self.reflector.type not in ("phrases", "demonstrations"):
            raise ValueError(
                f"search=random draws phrases or demonstrations, and the reflector is {self.reflector.type!r}; take "
                "reflector={type: phrases} or {type: demonstrations}, or search=gepa"
            )
        return self

    @model_validator(mode="after")
    def _fresh_problems_leave_some(self) -> EvolveConfig:
        """A search needs a problem to reflect on and a dev instance, also with the smallest hard set."""
        if self.fresh_size and self.min_hard - self.fresh_size < 2:
            raise ValueError(
                f"fresh_size={self.fresh_size} leaves {max(self.min_hard - self.fresh_size, 0)} of the smallest hard "
                f"set (min_hard={self.min_hard}) to search with, and it takes 2; lower fresh_size or raise min_hard"
            )
        return self

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
