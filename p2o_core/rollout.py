"""Samples an iteration's completions and judges them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from p2o_core.config import RolloutConfig
from p2o_core.demonstrations import without_own
from p2o_core.engines.base import RolloutEngine, RolloutRequest, Sampling
from p2o_core.mining import rewards_by_problem
from p2o_core.seeding import derive_seed
from p2o_core.types import AnswerVerifier, Assignment, Completion, Gold, Judged, Problem


def iteration_problems(problems: Sequence[Problem], iteration: int, count: int, seed: int) -> list[Problem]:
    """Return the iteration's slice of the train split. Each epoch visits every problem once, in its own order.

    Raises:
        ValueError: ``count`` exceeds the number of problems.
    """
    if count > len(problems):
        raise ValueError(
            f"rollout.problems is {count}, the train split has {len(problems)}. Mend: lower it or add problems."
        )
    picked: dict[str, Problem] = {}
    place = (iteration - 1) * count
    while len(picked) < count:
        epoch, offset = divmod(place, len(problems))
        order = random.Random(derive_seed(seed, epoch, "order")).sample(range(len(problems)), len(problems))
        problem = problems[order[offset]]
        picked.setdefault(problem.id, problem)  # an iteration across two epochs may meet a problem twice
        place += 1
    return list(picked.values())


def sample_iteration(
    engine: RolloutEngine,
    verifier: Callable[[], AnswerVerifier],
    train: Sequence[Problem],
    config: RolloutConfig,
    *,
    iteration: int,
    seed: int,
) -> list[Completion]:
    """Sample the iteration's problems at the bare prompt and, with ``config.resample_rounds``, further ones.

    Args:
        verifier: gives the verifier, which only further problems need.
        seed: of the experiment.
    """
    seeds = partial(derive_seed, seed, iteration, "rollout")
    asked = iteration_problems(train, iteration, config.problems, seed)
    bare = sample_bare(engine, asked, config, seeds("completions"))
    if config.resample_rounds:
        order, drawn = seeds("further"), seeds("completions")
        bare += sample_further(engine, verifier(), train, bare, config, order=order, seed=drawn)
    return bare


def sample_bare(
    engine: RolloutEngine, problems: Sequence[Problem], config: RolloutConfig, seed: int
) -> list[Completion]:
    """Sample ``config.samples`` completions of each problem at the bare prompt, problem by problem."""
    samples = tuple(range(config.samples))
    requests = [RolloutRequest(p.id, p.question, "", samples, seed, config.prompt) for p in problems]
    return engine.generate(requests, Sampling(config.temperature, config.max_new_tokens))


def sample_further(
    engine: RolloutEngine,
    verifier: AnswerVerifier,
    train: Sequence[Problem],
    bare: Sequence[Completion],
    config: RolloutConfig,
    *,
    order: int,
    seed: int,
) -> list[Completion]:
    """Sample further problems until ``config.problems`` groups have a signal, rewards that differ, together with those
    of ``bare``: DAPO's dynamic sampling (arXiv 2503.14476, section 3.2). ``config.resample_rounds`` rounds at most.

    A round draws as many problems as groups are missing, so none is sampled to be thrown away; DAPO's own code samples
    three batches a round and drops the surplus. The problems come from the train split in the order of the seed
    ``order``, without those of ``bare``, until there are none left.

    Args:
        bare: the completions of the iteration's own problems.
        seed: of the completions, as in :func:`sample_bare`.
    """
    asked = {completion.problem_id for completion in bare}
    waiting = [problem for problem in train if problem.id not in asked]
    random.Random(order).shuffle(waiting)
    golds, latest, further, missing = gold_answers(train), list(bare), list[Completion](), config.problems
    for _ in range(config.resample_rounds):
        rewards = rewards_by_problem(judge(verifier, latest, golds))
        missing -= sum(len(set(values)) > 1 for values in rewards.values())
        drawn, waiting = waiting[:missing], waiting[missing:]
        if not drawn:
            break
        latest = sample_bare(engine, drawn, config, seed)
        further += latest
    return further


def judge(verifier: AnswerVerifier, completions: Sequence[Completion], golds: Mapping[str, Gold]) -> list[Judged]:
    """Judge each completion against its problem's gold answer; verdicts come in the same order."""
    verdicts = verifier.verify([(c.text, golds[c.problem_id]) for c in completions])
    return [
        Judged(c.problem_id, c.sample, v.status, v.reward, v.extracted)
        for c, v in zip(completions, verdicts, strict=True)
    ]


def gold_answers(problems: Sequence[Problem]) -> dict[str, Gold]:
    """Map each problem id to its gold answer, a tuple where several answers are right."""
    return {problem.id: problem.gold for problem in problems}


def reuse_winners(
    winners: Sequence[Completion], assignments: Sequence[Assignment], config: RolloutConfig
) -> list[Completion]:
    """Return completions that the search sampled from the current policy, numbered as the assignments they replace.

    This is biased: the search kept a template because these completions scored well, so their solve rate, and with it
    the group's mean reward, is above the template's true one (the winner's curse).
    """
    pool: dict[tuple[str, str], list[Completion]] = {}
    for completion in winners:
        pool.setdefault((completion.problem_id, completion.template), []).append(completion)
    return [
        replace(pool[a.problem_id, a.template].pop(0), sample=config.samples + a.sample)
        for a in assignments
        if pool.get((a.problem_id, a.template))
    ]


def sample_templated(
    engine: RolloutEngine,
    problems: Mapping[str, Problem],
    assignments: Sequence[Assignment],
    reused: Sequence[Completion],
    config: RolloutConfig,
    seed: int,
) -> list[Completion]:
    """Sample one completion under its template for each assignment that ``reused`` does not cover. Its number follows
    the bare completions of the same problem. A template is used without what gives this problem's answer away."""
    taken = {(completion.problem_id, completion.sample) for completion in reused}
    requests = [
        RolloutRequest(
            a.problem_id,
            problems[a.problem_id].question,
            without_own(a.template, problems[a.problem_id]),
            (config.samples + a.sample,),
            seed,
            config.prompt,
        )
        for a in assignments
        if (a.problem_id, config.samples + a.sample) not in taken
    ]
    return engine.generate(requests, Sampling(config.temperature, config.max_new_tokens))


def mean_entropy(completions: Sequence[Completion]) -> float:
    """Return the policy's entropy in nats a token: the mean of -log-prob over its own samples, an unbiased estimate."""
    logps = [logp for completion in completions for logp in completion.logps]
    return -sum(logps) / len(logps)
