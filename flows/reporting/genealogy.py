"""The templates that searches found: who descends from whom, what each solves, and how the best did in training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean

from p2o_core.config import EvolveConfig
from p2o_core.schemas import read_record, read_rows
from p2o_core.search.posterior import Posterior
from p2o_core.transfer import TemplatedOutcome
from p2o_core.types import Template, TemplateSearch

SHOWN = 120
"""Templates of one family tree, beside their ancestors; an archive of a long online search has hundreds."""


@dataclass(frozen=True)
class Node:
    """A template with its children. ``score`` is its mean dev score, online its posterior mean; ``found_at`` the metric
    calls spent when it was known, online the iteration; ``trials`` its training rollouts, online only."""

    text: str
    score: float
    kept: bool
    found_at: int
    trials: int
    children: tuple[Node, ...]


@dataclass(frozen=True)
class Coverage:
    """What each kept template solves of each dev problem, online of each kind of problem: ``scores[row][column]``."""

    columns: Sequence[str]
    texts: Sequence[str]
    scores: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Genealogy:
    """One search with a budget, or the archive of an online one as ``iteration`` left it. ``evaluations`` are metric
    calls, online the training rollouts that count."""

    iteration: int
    online: bool
    candidates: int
    kept: int
    hidden: int
    """Retired templates without a kept descendant that are not in ``roots``, the least tried ones."""
    evaluations: int
    roots: tuple[Node, ...]
    coverage: Coverage

    def lines(self) -> Iterator[tuple[int, Node]]:
        """(generation, template), each before its children. Without recursion, which ends at some 250 generations: an
        online search can have one more an iteration."""
        waiting = [(0, root) for root in reversed(self.roots)]
        while waiting:
            generation, node = waiting.pop()
            yield generation, node
            waiting += [(generation + 1, child) for child in reversed(node.children)]


@dataclass(frozen=True)
class Best:
    """A template that a run thinks well of. ``score`` is the search's word, None where templates are drawn at random;
    ``rollouts``, ``solved`` and ``log_ratio`` (Δ of the right ones) are what it did in training, in all iterations."""

    text: str
    iteration: int
    score: float | None
    fresh: float | None
    rollouts: int
    solved: int
    log_ratio: float | None


def searches(folders: Sequence[Path]) -> list[TemplateSearch]:
    """The searches with a budget of their own, in order. ``folders`` are a run's iterations from 1 on."""
    return [search for search in map(_search, folders) if search.status == "searched"]


def archive(folders: Sequence[Path]) -> TemplateSearch | None:
    """What an online search knows at the end; None before it has found anything."""
    last = _search(folders[-1]) if folders else None
    return last if last is not None and last.templates else None


def genealogies(folders: Sequence[Path], evolve: EvolveConfig) -> list[Genealogy]:
    """Of each search of a run; of an online one, one. None of templates that were drawn at random."""
    if evolve.search == "online":
        return [_of_archive(known) for known in [archive(folders)] if known is not None]
    return [_of_search(search) for search in searches(folders)]


def evaluations(templates: Iterable[Template]) -> int:
    """Training rollouts that an online search counted. A text that was forgotten and found again has two templates,
    and the older one has seen all of them."""
    return sum({t.text: t.trials for t in sorted(templates, key=lambda t: -t.index)}.values())


def best_templates(folders: Sequence[Path], evolve: EvolveConfig, limit: int) -> list[Best]:
    """Up to ``limit`` of the template set at the end of a run, the best first."""
    used = uses(folders)
    last = next((search for search in map(_search, reversed(folders)) if search.kept), TemplateSearch())
    score = _scoring(last, evolve)
    found = [
        Best(
            text=template.text,
            iteration=template.found_at if evolve.search == "online" else last.searched_at,
            score=score(template),
            fresh=template.fresh,
            rollouts=len(outcomes := used.get(template.text, [])),
            solved=sum(outcome.reward > 0 for outcome in outcomes),
            log_ratio=fmean(ratios) if (ratios := _log_ratios(outcomes)) else None,
        )
        for template in last.kept
    ]
    return sorted(found, key=_goodness, reverse=True)[:limit]


def uses(folders: Sequence[Path]) -> dict[str, list[TemplatedOutcome]]:
    """Template to its training rollouts."""
    found: dict[str, list[TemplatedOutcome]] = {}
    for outcome in chain.from_iterable(read_rows(folder / "transfer.parquet", TemplatedOutcome) for folder in folders):
        found.setdefault(outcome.template, []).append(outcome)
    return found


def generations(templates: Sequence[Template]) -> int:
    """Of the longest line from a template without parents."""
    depth: list[int] = []
    for template in templates:  # parents come first
        depth.append(1 + max((depth[parent] for parent in template.parents), default=0))
    return max(depth, default=0)


def _search(folder: Path) -> TemplateSearch:
    return read_record(folder / "templates.json", TemplateSearch)


def _log_ratios(outcomes: Sequence[TemplatedOutcome]) -> list[float]:
    return [outcome.log_ratio for outcome in outcomes if outcome.log_ratio is not None]


def _scoring(search: TemplateSearch, evolve: EvolveConfig) -> Callable[[Template], float | None]:
    if evolve.search == "online":
        posterior = Posterior(search.templates, by_kind=evolve.online.by_kind)
        return lambda template: posterior.mean(template.index)
    return lambda template: template.mean_score if search.dev_ids else None


def _goodness(best: Best) -> float:
    """The search's word, or the solve rate in training and two failures, so that one lucky success is not the best."""
    return best.score if best.score is not None else best.solved / (best.rollouts + 2)


def _of_search(search: TemplateSearch) -> Genealogy:
    kept = search.kept
    return Genealogy(
        iteration=search.searched_at,
        online=False,
        candidates=len(search.templates),
        kept=len(kept),
        evaluations=search.cost.metric_calls,
        coverage=Coverage(search.dev_ids, [t.text for t in kept], [t.scores for t in kept]),
        **_tree(search.templates, lambda template: template.mean_score),
    )


def _of_archive(known: TemplateSearch) -> Genealogy:
    posterior = Posterior(known.templates, by_kind=True)
    kept = sorted(known.kept, key=lambda t: -posterior.mean(t.index))[:SHOWN]
    kinds = sorted({kind for template in known.templates for kind in template.evidence})
    return Genealogy(
        iteration=known.searched_at,
        online=True,
        candidates=len(known.templates),
        kept=len(known.kept),
        evaluations=evaluations(known.templates),
        coverage=Coverage(
            [kind or "all" for kind in kinds],
            [t.text for t in kept],
            [[posterior.mean(t.index, kind) for kind in kinds] for t in kept],
        ),
        **_tree(known.templates, lambda template: posterior.mean(template.index)),
    )


def _tree(templates: Sequence[Template], score: Callable[[Template], float]) -> dict:
    """``roots`` and ``hidden``: the family tree of the kept templates, those tried most, and their ancestors."""
    ranked = sorted(templates, key=lambda t: (not t.kept, -t.trials, t.index))
    shown: set[int] = set()
    for template in ranked[:SHOWN]:
        index = template.index
        while index not in shown:
            shown.add(index)
            index = next(iter(templates[index].parents), index)
    nodes: dict[int | None, list[Node]] = {}
    for template in reversed(templates):  # children come after their parents
        if template.index in shown:
            children = tuple(reversed(nodes.get(template.index, [])))
            node = Node(template.text, score(template), template.kept, template.found_at, template.trials, children)
            nodes.setdefault(template.parents[0] if template.parents else None, []).append(node)
    return {"roots": tuple(reversed(nodes.get(None, []))), "hidden": len(templates) - len(shown)}
