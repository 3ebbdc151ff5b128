"""The report: report.html (self-contained), its Markdown twin, and claims.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from flows.comparison import figures, search_costs, tables
from flows.comparison.arms import arm_experiment
from flows.comparison.catalogue import BASELINE, METHOD, ONLINE, claims_of, method_of
from flows.comparison.claims import findings, findings_with_prompts
from flows.comparison.entries import FILE, load_comparison
from flows.comparison.runs import WITH_PROMPTS, Evidence, Run, gather
from flows.comparison.search_costs import search_config
from flows.comparison.statistics import MIN_SEEDS, Interval
from flows.comparison.tables import SweepPoint
from flows.comparison.winners import Cell, winner_map
from flows.reporting.funnel import Funnel, fates, funnel
from flows.reporting.genealogy import Best, Genealogy, best_templates, genealogies
from flows.reporting.pictures import TIER_TITLES, funnel_picture, ratio_picture
from flows.reporting.rendering import number, render
from flows.tracking.parents import experiment_page
from p2o_core.schemas import write_json
from tasks.parameters.arms import arm_settings
from tasks.running.layout import home

FOLDER = "report"
MAIN_ARMS = (
    *(ONLINE, METHOD, BASELINE, "grpo-2x", "dapo", "p2o-no-distillation", "prompt-only", "p2o-random"),
    *("once", "once-each", "keep-all", "stranger", "blind", "p2o-useless"),
)
SHARES = {"train/all_fail": "groups whose rollouts all fail", "train/zero_signal": "groups without a signal"}
TRANSFER = {
    "update/transfer_log_ratio": "Δ of right templated rollouts",
    "evolve/fresh_rate": "rescue rate on fresh problems",
    "evolve/dev_rate": "rescue rate on dev problems",
}
BUDGET_STEPS = (0.25, 0.5, 0.75)
BEST = 3
"""Templates of an arm in the table of the best."""


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
    return render("flows.comparison", f"{name}.j2", content, interval=interval)


def contents(evidence: Evidence) -> dict[str, Any]:
    """What both forms of the report show."""
    claims, budgets = claims_of(evidence), [*smaller_budgets(evidence), evidence.budget]
    told, sweep, cells = funnels(evidence), tables.sweep(evidence), winner_map(evidence)
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
        "settings": {arm: arm_settings_text(evidence, arm) for arm in evidence.arms},
        "method": method_of(evidence.comparison),
        "findings": findings(claims, evidence),
        "with_prompts": findings_with_prompts(claims, evidence),
        "by_budget": [(tokens, findings(claims, evidence.within(tokens))) for tokens in budgets[:-1]],
        "budgets": budgets,
        "at_budgets": tables.at_budgets(evidence, budgets),
        "sweep": sweep,
        "map": cells,
        "map_runs": evidence.comparison.sweep_seeds * evidence.comparison.sweep_bases,
        "costs": search_costs.search_costs(evidence),
        "online": search_costs.online_costs(evidence),
        "transfers": search_costs.transfers(evidence),
        "tau": search_costs.TAU,
        "funnels": told,
        "best": best_of(evidence),
        "genealogies": genealogies_of(evidence),
        "bounds": mask_bounds(evidence),
        # made by matplotlib from numbers and arm names, so not escaped again
        "pictures": {name: Markup(svg) for name, svg in pictures(evidence, told, sweep, cells).items()},
    }


def pictures(
    evidence: Evidence, told: Sequence[Funnel], sweep: Sequence[SweepPoint], cells: Sequence[Cell]
) -> dict[str, str]:
    """SVG by name, blank where there is nothing to draw."""
    arms, method, budgets = evidence.arms, method_of(evidence.comparison), smaller_budgets(evidence)
    main = [arm for arm in MAIN_ARMS if arm in arms]
    variants = [*(arm for arm in (method,) if arm in arms), *(arm for arm in arms if arm not in MAIN_ARMS)]
    masked = {arm: evidence.of(arm, evidence.trials(arm)) for arm in (method, "p2o-no-mask") if arm in arms}
    accuracy = {f"accuracy/{tier}": TIER_TITLES.get(tier, tier) for tier in evidence.tiers}
    fewer = {name: title for name, title in accuracy.items() if name != "accuracy/easy"}
    return {
        "curves": figures.curves(evidence, main, accuracy, budgets=budgets),
        "prompts": figures.curves(evidence.with_prompts(*main), main, accuracy, WITH_PROMPTS),
        "variants": figures.curves(evidence, variants, fewer) if len(variants) > 1 else "",
        "shares": figures.curves(evidence, main, SHARES),
        "transfer": transfer_picture(evidence, main),
        "cost": figures.cost_picture(evidence, arms),
        "funnel": funnel_picture(told) if told else "",
        "ratios": ratio_picture(
            {arm: [folder for run in runs for folder in run.iterations] for arm, runs in masked.items()},
            mask_bounds(evidence),
        )
        if masked
        else "",
        "sweep": figures.sweep_picture(sweep, list(sweep[0].after)) if len(sweep) > 1 and not cells else "",
        "map": figures.map_picture(cells, evidence.comparison.sweep_arms),
    }


def transfer_picture(evidence: Evidence, arms: Sequence[str]) -> str:
    """Curves of what was measured of :data:`TRANSFER`, of the arms that have it; blank where none has any."""
    columns = {arm: {name for run in evidence.of(arm, evidence.trials(arm)) for row in run.rows for name in row}
               for arm in arms}  # fmt: skip
    metrics = {name: title for name, title in TRANSFER.items() if any(name in known for known in columns.values())}
    told = [arm for arm, known in columns.items() if metrics.keys() & known]
    return figures.curves(evidence, told, metrics, shares=False)


def funnels(evidence: Evidence) -> list[Funnel]:
    """Of the method and of the baseline, over all their runs."""
    return [
        funnel(arm, (fate for run in evidence.of(arm, evidence.trials(arm)) for fate in fates(run.iterations)))
        for arm in (method_of(evidence.comparison), BASELINE)
        if arm in evidence.arms
    ]


def mask_bounds(evidence: Evidence) -> tuple[float, float]:
    distill = arm_experiment(evidence.comparison, next(iter(evidence.runs)), home(evidence.workspace)).distill
    return distill.template_ratio_low, distill.template_ratio_high


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


def genealogies_of(evidence: Evidence) -> dict[str, list[Genealogy]]:
    """Of P²O and of every arm that searches online, with the first seed; the arm that the others are controls of is
    the first. Arms without a search are left out."""
    method = method_of(evidence.comparison)
    configs = {arm: search_config(evidence, arm) for arm in sorted(evidence.arms, key=lambda arm: arm != method)}
    shown = {arm: config for arm, config in configs.items() if arm in (method, METHOD) or config.search == "online"}
    found = {arm: genealogies(first_run(evidence, arm).iterations, config) for arm, config in shown.items()}
    return {arm: trees for arm, trees in found.items() if trees}


def best_of(evidence: Evidence) -> dict[str, list[Best]]:
    """The best templates of every arm that has any, with the first seed."""
    configs = {arm: search_config(evidence, arm) for arm in evidence.arms}
    found = {
        arm: best_templates(first_run(evidence, arm).iterations, config, BEST)
        for arm, config in configs.items()
        if config.enabled
    }
    return {arm: templates for arm, templates in found.items() if templates}


def first_run(evidence: Evidence, arm: str) -> Run:
    (run,) = evidence.of(arm, evidence.trials(arm)[:1])
    return run


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
