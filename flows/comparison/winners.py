"""The map: which arm wins where, over how well the reviewer advises and how many of the sentences help at all."""

from __future__ import annotations

from dataclasses import dataclass

from flows.comparison.entries import World
from flows.comparison.runs import Evidence
from flows.comparison.statistics import Interval, difference, overall_mean, paired_bootstrap

QUALITY = "prepare.reviewer_quality"
SHARE = "prepare.helpful_share"


@dataclass(frozen=True)
class Cell:
    """One world of the map, on its hard problems. Without a winner not all arms are finished there."""

    world: str
    quality: float
    share: float
    finished: int
    """Arms."""
    winner: str = ""
    accuracy: float = 0.0
    second: str = ""
    margin: Interval | None = None
    """Of the winner over the second. Being the winner was seen in these same runs, so it is rather too large."""
    trials: int = 0


def winner_map(evidence: Evidence) -> list[Cell]:
    """A cell for each world of the sweep that sets both axes; none for other sweeps."""
    worlds = [world for world in evidence.comparison.worlds if {QUALITY, SHARE} <= world.settings.keys()]
    return [_cell(evidence, world) for world in worlds]


def _cell(evidence: Evidence, world: World) -> Cell:
    arms = evidence.comparison.sweep_arms
    quality, share = float(world.settings[QUALITY]), float(world.settings[SHARE])
    finished = sum(bool(evidence.trials(arm, world=world.name)) for arm in arms)
    trials = evidence.trials(*arms, world=world.name)
    if not trials or len(arms) < 2:
        return Cell(world.name, quality, share, finished)
    tier = evidence.focus(world.name)
    rewards = {arm: evidence.rewards(arm, trials, tier, world=world.name) for arm in arms}
    winner, second = sorted(arms, key=lambda arm: -overall_mean(rewards[arm]))[:2]
    margin = paired_bootstrap(rewards[winner], rewards[second], difference)
    accuracy = overall_mean(rewards[winner])
    return Cell(world.name, quality, share, finished, winner, accuracy, second, margin, len(trials))
