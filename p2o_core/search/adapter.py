"""The gepa adapter: a candidate's score on a problem is the mean reward of k rollouts under its template, times what of
it bare training can take over where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gepa.core.adapter import EvaluationBatch

from p2o_core.config import PromptStyle
from p2o_core.demonstrations import without_own
from p2o_core.engines.base import LogprobRequest, RolloutEngine, RolloutRequest, Sampling
from p2o_core.search.racing import Race
from p2o_core.seeding import derive_seed
from p2o_core.transfer import mean_log_ratio, transfer_weight
from p2o_core.types import AnswerVerifier, Completion, Gold, Problem, Verdict, VerdictStatus

COMPONENT = "template"
"""The one component of a candidate: ``{"template": text}``."""

Candidate = dict[str, str]
Trace = dict[str, str]
FORMAT_HINT = "No answer could be read: the final answer must stand within \\boxed{}."


@dataclass(frozen=True)
class Rescue:
    """What one template does for one problem: the mean reward of its rollouts, the mean log template ratio of each
    correct one (none where not measured), and the score, which is the rate times the transfer weight of the ratios."""

    rate: float
    log_ratios: tuple[float, ...]
    score: float


NO_RESCUE = Rescue(0.0, (), 0.0)
"""Of a dev instance on which a race dropped the template."""


class TemplateAdapter:
    """Rolls out problems under templates and verifies the answers; all pairs of one gepa step share an engine call.

    With ``tau`` a score is the rescue rate times :func:`p2o_core.transfer.transfer_weight`. For that the engine scores
    the correct completions at the bare prompt, and under the template too unless they were sampled at temperature 1,
    the one at which engines score: then the sampled log-probs are the same.

    ``completions``, ``tokens``, ``prompt_tokens`` and ``metric_calls`` count everything generated, for rejected
    candidates too: this is what the search costs; ``scored_tokens`` comes on top. ``latest`` holds the last completions
    of each (template as the problem sees it, problem id), ``rescues`` what they came to. ``learn`` is given every
    problem, completion and whether it is right.
    """

    propose_new_texts = None  # proposals come from the reflector

    def __init__(
        self,
        engine: RolloutEngine,
        verifier: AnswerVerifier,
        sampling: Sampling,
        *,
        samples: int,
        seed: int,
        style: PromptStyle = "plain",
        race: Race | None = None,
        tau: float | None = None,
        learn: Callable[[Sequence[Problem], Sequence[Completion], Sequence[bool]], None] | None = None,
    ) -> None:
        self.engine = engine
        self.verifier = verifier
        self.sampling = sampling
        self.samples = samples
        self.seed = seed
        self.style = style
        self.race = race
        self.tau = tau
        self.learn = learn
        self.metric_calls = 0
        self.latest: dict[tuple[str, str], list[Completion]] = {}
        self.rescues: dict[tuple[str, str], Rescue] = {}
        self.calls = 0
        self.completions = 0
        self.tokens = 0
        self.scored_tokens = 0
        self.prompt_tokens = 0
        self.statuses = dict.fromkeys(VerdictStatus, 0)

    def evaluate(
        self, batch: list[Problem], candidate: Candidate, capture_traces: bool = False
    ) -> EvaluationBatch[Trace, str]:
        """Score one candidate; gepa calls this for single ones."""
        return self.batch_evaluate([(candidate, batch)], capture_traces=capture_traces)[0]

    def batch_evaluate(
        self, items: list[tuple[Candidate, list[Problem]]], *, capture_traces: bool = True
    ) -> list[EvaluationBatch[Trace, str]]:
        """Return one result for each (candidate, problems). Every call draws fresh rollouts.

        gepa up to 0.1.4 calls this without ``capture_traces`` and expects trajectories. Its next version says in each
        call whether it wants them; if not, a result's ``trajectories`` are None.
        """
        if self.race is not None and self.race.is_race(items):
            results = self.race.run(items, self._evaluate)
        else:
            results = self._evaluate(items)
        return results if capture_traces else [replace(result, trajectories=None) for result in results]

    def _evaluate(self, items: list[tuple[Candidate, list[Problem]]]) -> list[EvaluationBatch[Trace, str]]:
        self.calls += 1
        requests: list[RolloutRequest] = []
        golds: list[Gold] = []
        for index, (candidate, problems) in enumerate(items):
            for problem in problems:
                stream = derive_seed(self.seed, self.calls, index)
                samples = tuple(range(self.samples))
                template = without_own(candidate[COMPONENT], problem)
                requests.append(RolloutRequest(problem.id, problem.question, template, samples, stream, self.style))
                golds += [problem.gold] * self.samples
        completions = self.engine.generate(requests, self.sampling)
        verdicts = self.verifier.verify([(c.text, gold) for c, gold in zip(completions, golds, strict=True)])
        self.completions += len(completions)
        self.metric_calls += len(requests)
        self.tokens += sum(len(c.token_ids) for c in completions)
        self.prompt_tokens += sum(c.prompt_tokens for c in completions)
        for verdict in verdicts:
            self.statuses[verdict.status] += 1
        if self.learn is not None:
            asked = [problem for _, problems in items for problem in problems for _ in range(self.samples)]
            self.learn(asked, completions, [verdict.status is VerdictStatus.CORRECT for verdict in verdicts])
        ratios = self._log_ratios(requests, completions, verdicts) if self.tau is not None else [None] * len(verdicts)
        results, first = [], 0
        for _, problems in items:
            last = first + len(problems) * self.samples
            results.append(
                self._result(problems, completions[first:last], verdicts[first:last], ratios[first:last]),
            )
            first = last
        return results

    def _log_ratios(
        self, requests: Sequence[RolloutRequest], completions: Sequence[Completion], verdicts: Sequence[Verdict]
    ) -> list[float | None]:
        """Each completion's mean log template ratio, None for wrong ones; 0 without a template: it is bare."""
        ratios: list[float | None] = [0.0 if verdict.reward > 0 else None for verdict in verdicts]
        asked = [request for request in requests for _ in request.samples]
        rows = [row for row, completion in enumerate(completions) if completion.templated and ratios[row] is not None]
        if not rows:
            return ratios

        def under(template: str, row: int) -> LogprobRequest:
            request = asked[row]
            tokens = completions[row].token_ids
            return LogprobRequest(request.problem_id, request.question, template, tokens, request.style)

        measured = [under("", row) for row in rows]
        if self.sampling.temperature != 1:
            measured += [under(asked[row].template, row) for row in rows]
        self.scored_tokens += sum(len(request.token_ids) for request in measured)
        logps = self.engine.completion_logps(measured)
        references = logps[len(rows) :] or [completions[row].logps for row in rows]
        for row, at_bare, reference in zip(rows, logps, references, strict=False):
            ratios[row] = mean_log_ratio(at_bare, reference)
        return ratios

    def _result(
        self,
        problems: list[Problem],
        completions: Sequence[Completion],
        verdicts: Sequence[Verdict],
        ratios: Sequence[float | None],
    ) -> EvaluationBatch[Trace, str]:
        outputs, scores, traces = [], [], []
        for index, problem in enumerate(problems):
            span = slice(index * self.samples, (index + 1) * self.samples)
            rewards = [verdict.reward for verdict in verdicts[span]]
            worst = min(range(self.samples), key=lambda sample: rewards[sample])
            text, verdict = completions[span][worst].text, verdicts[span][worst]
            place = completions[span][0].template, problem.id
            self.latest[place] = list(completions[span])
            rate, own = sum(rewards) / self.samples, tuple(ratio for ratio in ratios[span] if ratio is not None)
            score = rate if self.tau is None else rate * transfer_weight(own, self.tau)
            self.rescues[place] = Rescue(rate, own, score)
            outputs.append(text)
            scores.append(score)
            traces.append(
                {"question": problem.question, "answer": text, "feedback": feedback(verdict.status, problem.answer)}
            )
        return EvaluationBatch(outputs=outputs, scores=scores, trajectories=traces)

    def make_reflective_dataset(
        self, candidate: Candidate, eval_batch: EvaluationBatch[Trace, str], components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Return what a reflector sees: each question, the worst answer to it, and the feedback on that answer."""
        records = [
            {"Inputs": trace["question"], "Generated Outputs": trace["answer"], "Feedback": trace["feedback"]}
            for trace in eval_batch.trajectories or []
        ]
        return {COMPONENT: records}


def feedback(status: VerdictStatus, gold: str) -> str:
    """State the verdict and the gold answer; add a format hint when no answer could be read (official code)."""
    if status is VerdictStatus.CORRECT:
        return f"The answer is correct: {gold}."
    hint = f" {FORMAT_HINT}" if status is VerdictStatus.UNPARSABLE else ""
    return f"The answer is {status.value}; the correct answer is {gold}.{hint}"
