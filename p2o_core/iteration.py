"""One P²O iteration (arXiv 2603.21877) over values in memory. Each line of :func:`p2o_iteration` is a step of the
method; the stages in ``tasks/`` call the same steps between files, in processes that may be killed.

x is a question and, alone, the bare prompt; z a template, T(x, z) = z, a blank line, x; Z the set of templates that the
search keeps. ``docs/explanation.md`` goes through it line by line.

>>> from p2o_core import IterationConfig, p2o_iteration
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from p2o_core.config import DistillConfig, EvolveConfig, MineConfig, RolloutConfig
from p2o_core.cover import plan_templated
from p2o_core.demonstrations import Demonstration, pool_of
from p2o_core.engines.base import RolloutEngine
from p2o_core.engines.language_models import LanguageModel
from p2o_core.groups import Group, build_groups
from p2o_core.mining import mine, rewards_by_problem
from p2o_core.optimizer import PolicyOptimizer
from p2o_core.policy import Policy
from p2o_core.rollout import gold_answers, judge, reuse_winners, sample_iteration, sample_templated
from p2o_core.search.posterior import Trial, trials
from p2o_core.search.schedule import search_templates
from p2o_core.seeding import derive_seed
from p2o_core.types import AnswerVerifier, Assignment, Completion, HardSample, Judged, Problem, TemplateSearch
from p2o_core.update import update_policy
from p2o_core.update_report import UpdateReport


@dataclass(frozen=True)
class IterationConfig:
    """The settings of an iteration, a section for each stage that has any."""

    rollout: RolloutConfig
    mine: MineConfig = field(default_factory=MineConfig)
    evolve: EvolveConfig = field(default_factory=EvolveConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)


@dataclass(frozen=True)
class Memory:
    """What an iteration takes over from the last one besides the policy; empty for the first."""

    hard: Sequence[HardSample] = ()
    search: TemplateSearch = field(default_factory=TemplateSearch)
    tried: Sequence[Trial] = ()
    demonstrations: Sequence[Demonstration] = ()


@dataclass(frozen=True)
class Iteration:
    """What an iteration did. ``verdicts[i]`` belongs to ``(bare + templated)[i]``; ``tried`` are the templated ones."""

    bare: list[Completion]
    hard: list[HardSample]
    search: TemplateSearch
    plan: list[Assignment]
    templated: list[Completion]
    tried: list[Trial]
    verdicts: list[Judged]
    groups: list[Group]
    report: UpdateReport
    demonstrations: list[Demonstration]

    @property
    def memory(self) -> Memory:
        """For the next iteration."""
        return Memory(self.hard, self.search, self.tried, self.demonstrations)


def p2o_iteration(
    policy: Policy,
    optimizer: PolicyOptimizer,
    engine: RolloutEngine,
    verifier: AnswerVerifier,
    train: Sequence[Problem],
    phrases: Sequence[str],
    config: IterationConfig,
    memory: Memory,
    *,
    iteration: int,
    seed: int,
    reflector: LanguageModel | None = None,
) -> Iteration:
    """Roll out, mine, search templates, roll out under them, and train ``policy`` in place at the bare prompt.

    Args:
        optimizer: trains ``policy``; pass the same one in every iteration.
        engine: samples from ``policy`` as it is now.
        train: the train split; an iteration takes its slice of ``config.rollout.problems`` problems.
        phrases: sentences that the offline reflector makes templates of (``data/base/phrases.json`` of a workspace).
        memory: ``Memory()``, then the last iteration's :attr:`Iteration.memory`.
        iteration: counted from 1.
        seed: of the experiment; every draw derives its seed from this, the iteration and the stage.
        reflector: the language model, when ``config.evolve.reflector`` names one.

    Raises:
        NotFinite: the update met NaN or infinity.
    """
    seeds = partial(derive_seed, seed, iteration)
    problems = {problem.id: problem for problem in train}
    golds = gold_answers(train)

    # what the policy can do by itself: n completions a problem, and the problems where (nearly) all n fail
    bare = sample_iteration(engine, lambda: verifier, train, config.rollout, iteration=iteration, seed=seed)
    bare_verdicts = judge(verifier, bare, golds)
    hard = mine(rewards_by_problem(bare_verdicts), memory.hard, config.mine, iteration)

    # templates z for the hard problems (search/evolve.py: GEPA, greedy cover Z; search/online.py), one a rollout
    pool = pool_of(config.evolve, memory.demonstrations, phrases)
    pool.take(problems, bare, bare_verdicts, iteration)
    search, winners = search_templates(
        [problems[sample.problem_id] for sample in hard],
        memory.search,
        engine,
        verifier,
        phrases,
        config.evolve,
        config.rollout,
        iteration=iteration,
        seed=partial(seeds, "evolve"),
        bare=trials(problems, bare, bare_verdicts),
        templated=memory.tried,
        model=lambda: reflector,  # a function: a stage starts a teacher or an engine only for a search that is due
        demonstrations=pool,
    )
    rollouts, draws = config.distill.templated_samples, seeds("evolve", "assignment")
    plan = plan_templated(hard, problems, search, config.evolve, iteration=iteration, rollouts=rollouts, seed=draws)

    # sampled under T(x, z) …
    planned = plan if config.distill.enabled else ()
    reused = reuse_winners(winners, planned, config.rollout) if config.distill.reuse else []
    sampled = sample_templated(engine, problems, planned, reused, config.rollout, seeds("distill", "templated"))
    templated = [*reused, *sampled]
    templated_verdicts = judge(verifier, templated, golds)
    pool.take(problems, templated, templated_verdicts, iteration)

    # … and trained at x: a problem's bare and templated completions are one group. update_policy takes the advantages
    # from with_advantages (groups.py), the template-ratio mask from losses.py; its step is train_step (update.py)
    completions, verdicts = [*bare, *templated], [*bare_verdicts, *templated_verdicts]
    groups = build_groups(policy.chat, problems, completions, verdicts, config.distill, config.rollout.prompt)
    sampled_at, update_seed = config.rollout.temperature, seeds("distill", "update")
    report, ratios = update_policy(policy, optimizer, groups, config.distill, temperature=sampled_at, seed=update_seed)
    tried = trials(problems, templated, templated_verdicts, ratios)
    return Iteration(bare, hard, search, plan, templated, tried, verdicts, groups, report, pool.rows)
