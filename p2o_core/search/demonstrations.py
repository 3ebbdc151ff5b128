"""A reflector that shows instead of telling: sets of the policy's own right answers, as chat turns."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from gepa.proposer.reflective_mutation.reflection_lm import ReflectionJob, ReflectionProposal

from p2o_core.demonstrations import DemonstrationPool, shape
from p2o_core.search.adapter import COMPONENT
from p2o_core.templates import Parts, Turn, parse_template

Turns = tuple[Turn, ...]
PROPOSAL_TRIES = 20
"""Draws for a set that was not proposed before; a repeated one would waste its metric calls."""


class DemonstrationReflector:
    """Mutates sets of demonstrations: add, drop, swap, and swap for one of another shape. It reads no feedback; what it
    knows of a demonstration comes from the search keeping or dropping the sets it is in.

    ``pool`` may grow while the search goes on: hard problems that a set solved are shown by later ones. ``archive``
    holds templates of earlier searches, proposed before anything new; none of ``known`` is proposed again. An
    instruction in a parent is its children's.
    """

    def __init__(
        self, pool: DemonstrationPool, *, rng: random.Random, archive: Sequence[str] = (), known: Sequence[str] = ()
    ) -> None:
        self.pool = pool
        self.rng = rng
        self.archive = list(archive)
        self.proposed = {"", *known}

    def reflect_many(self, jobs: list[ReflectionJob]) -> list[tuple[ReflectionProposal, DemonstrationReflector]]:
        """Propose a set for each parent; the proposal is empty while the pool is."""
        found = [self.archive.pop(0) if self.archive else self._propose(job[0][COMPONENT]) for job in jobs]
        return [(ReflectionProposal({COMPONENT: text} if text else {}), self) for text in found]

    def reflect(
        self, candidate: dict[str, str], reflective_dataset: object, components_to_update: list[str]
    ) -> tuple[ReflectionProposal, DemonstrationReflector]:
        """Propose for one parent."""
        return self.reflect_many([(candidate, {}, components_to_update)])[0]

    def random_template(self) -> str:
        """Draw a set at random: the control that a search has to beat. Blank while the pool is empty."""
        turns = self.pool.draw_set(self.rng)
        return str(Parts("", turns)) if turns else ""

    def _propose(self, template: str) -> str:
        parent = parse_template(template)
        child = template
        for _ in range(PROPOSAL_TRIES):
            turns = self.rng.choice(self._moves(parent.turns))(parent.turns)
            child = str(Parts(parent.instruction, turns)) if turns else ""
            if child not in self.proposed:
                break
        self.proposed.add(child)
        return child

    def _moves(self, turns: Turns) -> list[Callable[[Turns], Turns]]:
        """Return the operators that can change this set."""
        if not turns:
            return [lambda _: self.pool.draw_set(self.rng)]
        moves: list[Callable[[Turns], Turns]] = [self._swap, self._reshape]
        if len(turns) < self.pool.config.turns:
            moves.append(self._add)
        if len(turns) > 1:
            moves.append(self._drop)
        return moves

    def _add(self, turns: Turns) -> Turns:
        turn = self.pool.draw(self.rng, turns)
        where = self.rng.randint(0, len(turns))
        return turns if turn is None else (*turns[:where], turn, *turns[where:])

    def _drop(self, turns: Turns) -> Turns:
        where = self.rng.randrange(len(turns))
        return turns[:where] + turns[where + 1 :]

    def _swap(self, turns: Turns) -> Turns:
        return self._replaced(turns, self.rng.randrange(len(turns)))

    def _reshape(self, turns: Turns) -> Turns:
        """Swap one of the commonest shape for another shape, where the pool has one."""
        ((common, _),) = Counter(shape(turn.answer) for turn in turns).most_common(1)
        where = self.rng.choice([index for index, turn in enumerate(turns) if shape(turn.answer) == common])
        return self._replaced(turns, where, unlike=common)

    def _replaced(self, turns: Turns, where: int, unlike: str | None = None) -> Turns:
        turn = self.pool.draw(self.rng, turns, unlike=unlike)
        return turns if turn is None else (*turns[:where], turn, *turns[where + 1 :])
