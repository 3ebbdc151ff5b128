"""The report: report.html (self-contained), its Markdown twin, and claims.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flows.comparison import figures, tables
from flows.comparison.arms import FILE, arm_experiment, load_comparison
from flows.comparison.catalogue import BASELINE, METHOD, ONLINE, claims_of, method_of
from flows.comparison.claims import findings, findings_with_prompts
from flows.comparison.runs import WITH_PROMPTS, Evidence, gather
from flows.comparison.statistics import MIN_SEEDS, Interval
from flows.tracking.parents import experiment_page
from p2o_core.schemas import write_json
from p2o_core.types import SearchCost, Template, TemplateSearch
from tasks.parameters.arms import arm_settings
from tasks.running.layout import home

FOLDER = "report"
MAIN_ARMS = (
    *(ONLINE, METHOD, BASELINE, "grpo-2x", "dapo", "p2o-no-distillation", "prompt-only", "p2o-random"),
    *("once", "once-each", "keep-all", "stranger", "blind", "p2o-useless"),
)
SHARES = {"train/all_fail": "groups whose rollouts all fail", "train/zero_signal": "groups without a signal"}
BUDGET_STEPS = (0.25, 0.5, 0.75)


def write_report(workspace: Path) -> Path:
    """Write ``report/`` of a comparison's workspace from the runs that are finished. Returns the page's path.

    Raises:
        BadInput: no finished run.
    """
    evidence = gather(load_comparison(workspace / FILE), workspace)
    content = contents(evidence)
    folder = workspace / FOLDER
    folder.mkdir(exist_ok=True)
    for name in ("report.html", "report.md"):
        (folder / name).write_text(rendering(name, content))
    write_json(folder / "claims.json", claims_json(content))
    return folder / "report.html"


def claims_json(content: dict[str, Any]) -> dict[str, Any]:
    """Each claim at equal generated tokens, at equal tokens with prompts included, and at smaller budgets."""
    found = {}
    for index, finding in enumerate(content["findings"]):
        by_budget = {str(round(tokens)): results[index].to_json() for tokens, results in content["by_budget"]}
        more = {"with_prompts": content["with_prompts"][index].to_json(), "by_budget": by_budget}
        found[finding.claim.name] = finding.to_json() | more
    return found


def rendering(name: str, content: dict[str, Any]) -> str:
    """One form of the report."""
    environment = Environment(
        loader=PackageLoader("flows.comparison"),
        autoescape=name.endswith(".html"),  # templates are model output: a script in one must stay text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": interval, "percent": percent, "share": share, "cell": cell, "number": number}
    return environment.get_template(f"{name}.j2").render(content)


def contents(evidence: Evidence) -> dict[str, Any]:
    """What both forms of the report show."""
    arms = evidence.arms
    main = [arm for arm in MAIN_ARMS if arm in arms]
    method, claims = method_of(evidence.comparison), claims_of(evidence)
    variants = [*(arm for arm in (method,) if arm in arms), *(arm for arm in arms if arm not in MAIN_ARMS)]
    accuracy = {f"accuracy/{tier}": figures.TIER_TITLES.get(tier, tier) for tier in evidence.tiers}
    masked = [arm for arm in (method, "p2o-no-mask") if arm in arms]
    distill = arm_experiment(evidence.comparison, next(iter(evidence.runs)), home(evidence.workspace)).distill
    sweep = tables.sweep(evidence)
    funnels = [tables.funnel(evidence, arm) for arm in (method, BASELINE) if arm in arms]
    pictures = {
        "curves": figures.curves(evidence, main, accuracy),
        "prompts": figures.curves(evidence.with_prompts(*main), main, accuracy, WITH_PROMPTS),
        "variants": figures.curves(
            evidence, variants, {name: title for name, title in accuracy.items() if name != "accuracy/easy"}
        )
        if len(variants) > 1
        else "",
        "shares": figures.curves(evidence, main, SHARES),
        "cost": figures.cost_picture(evidence, arms),
        "funnel": figures.funnel_picture(funnels) if funnels else "",
        "ratios": figures.ratio_picture(evidence, masked, (distill.template_ratio_low, distill.template_ratio_high))
        if masked
        else "",
        "sweep": figures.sweep_picture(sweep, list(sweep[0].after)) if len(sweep) > 1 else "",
    }
    return {
        "comparison": evidence.comparison,
        "workspace": evidence.workspace.name,
        "command": command(evidence),
        "mlflow": experiment_page(evidence.workspace, evidence.comparison.project),
        "finished": len(evidence.runs),
        "trained": evidence.trained,
        "min_seeds": MIN_SEEDS,
        "tiers": evidence.tiers,
        "focus": evidence.focus() or "all",
        "arms": tables.summarise_arms(evidence),
        "settings": {arm: arm_settings_text(evidence, arm) for arm in arms},
        "method": method,
        "findings": findings(claims, evidence),
        "with_prompts": findings_with_prompts(claims, evidence),
        "by_budget": [(tokens, findings(claims, evidence.within(tokens))) for tokens in smaller_budgets(evidence)],
        "sweep": sweep,
        "costs": tables.search_costs(evidence),
        "funnels": funnels,
        "searches": genealogies(evidence),
        "bounds": (distill.template_ratio_low, distill.template_ratio_high),
        # made by matplotlib from numbers and arm names, so not escaped again
        "pictures": {name: Markup(svg) for name, svg in pictures.items()},
    }


def smaller_budgets(evidence: Evidence) -> list[float]:
    """Where the claims are measured besides the end: at the comparison's ``budgets``, or at shares of the whole."""
    return sorted(evidence.comparison.budgets) or [share * evidence.budget for share in BUDGET_STEPS]


def command(evidence: Evidence) -> str:
    """The command line that makes this comparison."""
    name = evidence.workspace.name.removeprefix("compare-")
    by_iterations = evidence.comparison.budget_tokens is None
    name = name.removesuffix("-iterations") if by_iterations else name
    options = f" --seeds {evidence.comparison.seeds}" + " --quick" * name.endswith("-quick")
    options += f" --iterations {evidence.comparison.max_iterations}" * by_iterations
    return f"p2o compare --recipe {name.removesuffix('-quick')}{options}"


def arm_settings_text(evidence: Evidence, arm: str) -> str:
    settings = arm_settings(arm, home(evidence.workspace), evidence.comparison.own_arms)
    return ", ".join(f"{name} = {value}" for name, value in settings.items())


@dataclass(frozen=True)
class Node:
    """A candidate of a search with its children: the genealogy."""

    text: str
    score: float
    kept: bool
    found_at: int
    scores: tuple[float, ...]
    children: tuple[Node, ...]

    @property
    def size(self) -> int:
        return 1 + sum(child.size for child in self.children)


@dataclass(frozen=True)
class Search:
    """One search of the first seed, for the genealogy and the coverage map."""

    iteration: int
    dev_ids: Sequence[str]
    root: Node
    covering: list[Node]
    """The kept templates, in order of discovery."""
    cost: SearchCost


def genealogies(evidence: Evidence) -> list[Search]:
    """The searches of P²O with the first seed."""
    seeds = evidence.trials(METHOD)
    if not seeds:
        return []
    (run,) = evidence.of(METHOD, seeds[:1])
    return [_search(result) for result in tables.searches(run)]


def _search(result: TemplateSearch) -> Search:
    def node(template: Template) -> Node:
        children = (node(t) for t in result.templates if t.parents[:1] == (template.index,))
        score, found_at = template.mean_score, template.found_at
        return Node(template.text, score, template.kept, found_at, template.scores, tuple(children))

    nodes = [node(template) for template in result.kept]
    return Search(result.searched_at, result.dev_ids, node(result.templates[0]), nodes, result.cost)


def interval(value: Interval | None, points: bool = True) -> str:
    """``+62.0 [55.1, 68.3]`` in points, or plain numbers.

    >>> interval(Interval(0.62, 0.551, 0.683))
    '62.0 [55.1, 68.3]'
    """
    if value is None:
        return "–"
    scale, digits = (100, 1) if points else (1, 2)
    low, middle, high = (number(part * scale, digits) for part in (value.low, value.value, value.high))
    return f"{middle} [{low}, {high}]"


def number(value: float | None, digits: int = 1) -> str:
    """Rounded; a dash for what is missing, ∞ for what is infinite."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,.{digits}f}" if math.isfinite(value) else "∞"


def percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:.0f} %"


def share(value: float) -> str:
    """A share that may be small.

    >>> share(0.0213)
    '2.1 %'
    """
    return f"{number(100 * value)} %"


def cell(text: str) -> str:
    """Template text for a Markdown table or list: one line, nothing in it is markup.

    >>> cell("Go | on.\\nAnd `on`.")
    '`Go ¦ on. / And ʼonʼ.`'
    """
    flat = text.replace("|", "¦").replace("`", "ʼ").replace("\n", " / ").strip()
    return f"`{flat}`" if flat else "*(empty template)*"
