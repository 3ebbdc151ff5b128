"""The gepa adapter: a candidate's score on a problem is the mean reward of k rollouts under its template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gepa.core.adapter import EvaluationBatch

from p2o_core.config import PromptStyle
from p2o_core.engines.base import RolloutEngine, RolloutRequest, Sampling
from p2o_core.search.racing import Race
from p2o_core.seeding import derive_seed
from p2o_core.types import AnswerVerifier, Completion, Gold, Problem, Verdict, VerdictStatus

COMPONENT = "template"
"""The one component of a candidate: ``{"template": text}``."""

Candidate = dict[str, str]
Trace = dict[str, str]
FORMAT_HINT = "No answer could be read: the final answer must stand within \\boxed{}."


class TemplateAdapter:
    """Rolls out problems under templates and verifies the answers; all pairs of one gepa step share an engine call.

    ``completions``, ``tokens``, ``prompt_tokens`` and ``metric_calls`` count everything generated, for rejected
    candidates too: this is what the search costs. ``latest`` holds the last completions of each
    (template, problem id).
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
    ) -> None:
        self.engine = engine
        self.verifier = verifier
        self.sampling = sampling
        self.samples = samples
        self.seed = seed
        self.style = style
        self.race = race
        self.metric_calls = 0
        self.latest: dict[tuple[str, str], list[Completion]] = {}
        self.calls = 0
        self.completions = 0
        self.tokens = 0
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
                template = candidate[COMPONENT]
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
        results, first = [], 0
        for _, problems in items:
            last = first + len(problems) * self.samples
            results.append(self._result(problems, completions[first:last], verdicts[first:last]))
            first = last
        return results

    def _result(
        self, problems: list[Problem], completions: Sequence[Completion], verdicts: Sequence[Verdict]
    ) -> EvaluationBatch[Trace, str]:
        outputs, scores, traces = [], [], []
        for index, problem in enumerate(problems):
            span = slice(index * self.samples, (index + 1) * self.samples)
            rewards = [verdict.reward for verdict in verdicts[span]]
            worst = min(range(self.samples), key=lambda sample: rewards[sample])
            text, verdict = completions[span][worst].text, verdicts[span][worst]
            self.latest[completions[span][0].template, problem.id] = list(completions[span])
            outputs.append(text)
            scores.append(sum(rewards) / self.samples)
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
