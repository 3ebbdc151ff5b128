"""Chooses the parents to mutate: distinct ones from the per-instance Pareto front."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

from gepa.core.data_loader import DataLoader
from gepa.core.state import GEPAState
from gepa.proposer.reflective_mutation.base import CandidateSelector
from gepa.strategies.batch_sampler import BatchSampler
from gepa.strategies.proposal_sampling import ProposalTask


class DistinctParentSampling:
    """Up to ``n`` *different* candidates a step, drawn without replacement from the Pareto front with weight =
    number of dev instances they win (official P²O code; gepa's own IndependentSampling may repeat a parent).

    ``first`` tasks, at least one, start from the seed candidate in the first step: enough for every archived
    template to be proposed at once.
    """

    def __init__(self, n: int, rng: random.Random, *, first: int = 0) -> None:
        self.n = n
        self.rng = rng
        self.first = first

    def sample_tasks(
        self,
        state: GEPAState,
        candidate_selector: CandidateSelector,
        batch_sampler: BatchSampler,
        trainset: DataLoader,
    ) -> list[ProposalTask]:
        """Return one task for each parent, with its own minibatch. ``candidate_selector`` is not used."""
        wins = Counter(index for front in state.get_pareto_front_mapping().values() for index in front)
        tasks = []
        parents = draw_without_replacement(wins, self.n, self.rng)
        if self.first:
            parents, self.first = [0] * self.first, 0
        for parent in parents:
            ids = batch_sampler.next_minibatch_ids(trainset, state)
            tasks.append(ProposalTask(parent, state.program_candidates[parent], ids, trainset.fetch(ids)))
        return tasks


def draw_without_replacement(weights: Mapping[int, float], n: int, rng: random.Random) -> list[int]:
    """Draw at most n distinct keys, each in proportion to the remaining weights."""
    left = dict(sorted(weights.items()))
    drawn: list[int] = []
    while left and len(drawn) < n:
        (key,) = rng.choices(list(left), list(left.values()))
        drawn.append(key)
        del left[key]
    return drawn
