"""The data contract: what flows between the stages. The parquet schemas in ``p2o_core.schemas`` derive from it, and
the search's record; the other records stand beside what makes them: :class:`p2o_core.mining.MiningReport`,
:class:`p2o_core.update_report.IterationUpdate`, :class:`p2o_core.evaluation.Measurement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, SerializerFunctionWrapHandler, computed_field, model_serializer

Measured = Annotated[float | None, Field(exclude_if=lambda value: value is None)]
"""A number that stands in a JSON record only where it was measured."""
Gold = str | tuple[str, ...]
"""What is right: one answer, or several of which any is right."""


@dataclass(frozen=True)
class Problem:
    """One question with its gold answer, and other spellings of it that are right as well. ``kind`` is what problems
    that need the same advice share (a family, a subject), blank where nobody says.

    Invariants (checked by :func:`p2o_core.schemas.check_problems`): ids are unique; question, answer and each
    alternative are not blank.

    >>> Problem("train-sum-1-0000", "sum 47 a +5 ?", "52", difficulty="easy", split="train").gold
    '52'
    >>> Problem("own-1", "5 halves?", "2.5", "own", "heldout", alternatives=("5/2",)).gold
    ('2.5', '5/2')
    """

    id: str
    question: str
    answer: str
    difficulty: str
    split: str
    alternatives: tuple[str, ...] = ()
    kind: str = ""

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every right answer, the one that is shown first."""
        return (self.answer, *self.alternatives)

    @property
    def gold(self) -> Gold:
        """What the verifier compares with: a text where there is one right answer only."""
        return self.spellings if self.alternatives else self.answer


@dataclass(frozen=True)
class Completion:
    """One sampled answer.

    ``token_ids`` and ``logps`` have the same length; ``logps[t]`` is the natural log-probability of
    ``token_ids[t]`` under the distribution it was sampled from (temperature included) and under the
    *sampling* context, i.e. with the template when ``template`` is not blank. ``token_ids`` ends with the
    end-of-sequence token unless ``truncated``. ``prompt_tokens`` is the length of the prompt it was sampled from.

    >>> Completion("p0", 0, "", "\\\\boxed{ 52 }", (7, 60, 8, 3), (-0.1, -0.2, 0.0, 0.0), False).sample
    0
    """

    problem_id: str
    sample: int
    template: str
    text: str
    token_ids: tuple[int, ...]
    logps: tuple[float, ...]
    truncated: bool
    prompt_tokens: int = 0

    @property
    def templated(self) -> bool:
        """Sampled under a template that is not blank."""
        return bool(self.template.strip())


class VerdictStatus(StrEnum):
    """How the verification of one answer ended. Every status but CORRECT has reward 0."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True)
class Verdict:
    """The verifier's word on one answer; ``extracted`` is the answer it read, blank when it read none.

    >>> Verdict(VerdictStatus.CORRECT, 1.0, "52").reward
    1.0
    """

    status: VerdictStatus
    reward: float
    extracted: str


class AnswerVerifier(Protocol):
    """Whoever gives verdicts: :class:`p2o_core.verify.Verifier`, or something around one."""

    def verify(self, pairs: Sequence[tuple[str, Gold]]) -> list[Verdict]:
        """One verdict for each ``(response, gold)``, in order."""
        ...


@dataclass(frozen=True)
class HardSample:
    """A problem the bare policy fails. ``near``: it was solved at least once and is mined all the same (by the
    paper's rule exactly once; False: all n rewards zero). ``mined_at`` is the iteration that rolled it out.

    >>> HardSample("p0", solve_rate=1 / 8, near=True, mined_at=3).near
    True
    """

    problem_id: str
    solve_rate: float
    near: bool
    mined_at: int


@dataclass(frozen=True)
class Evidence:
    """Templated rollouts of one kind of problem: how many there were and how many solved it, earlier ones discounted.

    >>> Evidence(solved=1.5, tried=4.0).tried
    4.0
    """

    solved: float = 0.0
    tried: float = 0.0


@dataclass(frozen=True)
class Template:
    """A candidate of the search. ``scores`` holds its mean reward on each dev instance, in dev order.

    ``parents`` are indices into the same search's candidates (empty for the seed); ``kept`` is true for the
    members of the template set Z. ``found_at`` is the number of metric calls the search had spent when the dev scores
    were known; online, where nothing is scored, the iteration. ``evidence`` holds what an online search counted by kind
    of problem, ``trials`` all its rollouts.

    None, and absent from templates.json, is what was not measured: ``log_ratio`` is Δ, the mean log template ratio of
    its correct completions on dev instances, and ``transfer`` the mean of its dev scores times their transfer weights
    (:mod:`p2o_core.transfer`); ``fresh`` is its mean reward on fresh problems, of all that were in Z before they were
    scored on them. ``weight`` is what it is drawn by; None: its mean dev score.

    >>> Template(1, "Do not stop early.", (0,), (1.0, 0.5), kept=True).mean_score
    0.75
    """

    index: int
    text: str
    parents: tuple[int, ...]
    scores: tuple[float, ...]
    kept: bool
    found_at: int = 0
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    trials: int = 0
    log_ratio: Measured = None
    transfer: Measured = None
    fresh: Measured = None
    weight: Measured = None

    @computed_field  # type: ignore[prop-decorator]  # written beside the scores, for whoever reads the file
    @property
    def mean_score(self) -> float:
        """Of all dev instances; online, of the evidence and two failures, so that one lucky success is not the best."""
        if not self.scores:
            tried = sum(evidence.tried for evidence in self.evidence.values())
            return sum(evidence.solved for evidence in self.evidence.values()) / (tried + 2)
        return sum(self.scores) / len(self.scores)

    @property
    def drawing_weight(self) -> float:
        """Relative to the others of the template set."""
        return self.mean_score if self.weight is None else self.weight


@dataclass(frozen=True)
class SearchCost:
    """What a search took: scores, completions and tokens generated (rejected ones included, the policy's own
    reflections too), ``prompt_tokens``, those of the prompts that all these were sampled from, gepa steps;
    ``scored_tokens``, completion tokens that were not generated but scored again, for the template ratio; and for
    reflection models calls, tokens and dollars, proposals refused by reason and attempts that failed by kind. Nothing
    spent is written as ``{}``.

    >>> SearchCost(metric_calls=60, tokens=9000).reflection_dollars
    0.0
    """

    metric_calls: int = 0
    completions: int = 0
    tokens: int = 0
    scored_tokens: int = 0
    prompt_tokens: int = 0
    steps: int = 0
    raced_out: int = 0
    verifier_timeouts: int = 0
    verifier_errors: int = 0
    reflection_calls: int = 0
    reflection_input_tokens: int = 0
    reflection_output_tokens: int = 0
    reflection_dollars: float = 0.0
    refused: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return write(self) if self != SearchCost() else {}


@dataclass(frozen=True)
class TemplateSearch:
    """What the last search found: templates.json.

    ``status`` says what happened in this iteration: ``searched``, ``reflected`` (online), ``drawn`` (at random),
    ``carried`` (not due: the last result stays), ``too_few_hard``, ``no_demonstrations`` (nothing to show yet),
    ``off``, and ``none`` in iteration 0.
    ``searched_at`` is the iteration of the last search, 0 when there was none. ``templates[i].scores[j]`` is candidate
    i's score on problem ``dev_ids[j]``. ``cost`` is what was spent in this iteration.

    >>> TemplateSearch().kept
    []
    """

    status: Literal["searched", "reflected", "drawn", "carried", "too_few_hard", "no_demonstrations", "off", "none"] = (
        "none"
    )
    searched_at: int = 0
    dev_ids: Sequence[str] = field(default_factory=list)
    templates: Sequence[Template] = field(default_factory=list)
    cost: SearchCost = field(default_factory=SearchCost)

    @property
    def kept(self) -> list[Template]:
        """The template set Z."""
        return [template for template in self.templates if template.kept]

    @property
    def best(self) -> Template | None:
        """The candidate with the highest mean dev score (the first one on a tie), None when there is none."""
        return max(self.templates, key=lambda template: template.mean_score, default=None)


@dataclass(frozen=True)
class Assignment:
    """The template under which templated rollout ``sample`` of a hard problem is drawn.

    >>> Assignment("p0", 3, 1, "Do not stop early.").sample
    3
    """

    problem_id: str
    sample: int
    template_index: int
    template: str


@dataclass(frozen=True)
class Judged:
    """A verdict with the completion it belongs to: one row of verdicts.parquet.

    >>> Judged("p0", 0, VerdictStatus.WRONG, 0.0, "51").reward
    0.0
    """

    problem_id: str
    sample: int
    status: VerdictStatus
    reward: float
    extracted: str
