"""The claims of this project, by name. A comparison says which of them it is about (``claims``)."""

from __future__ import annotations

from dataclasses import replace

from flows.comparison import measurements
from flows.comparison.claims import Claim
from flows.comparison.entries import Comparison
from flows.comparison.measurements import ratio, share_lost
from flows.comparison.runs import Evidence
from p2o_core.schemas import BadInput

METHOD = "p2o"
ONLINE = "p2o-online"
BASELINE = "grpo"
CONTROLS = ("once", "once-each", "keep-all")


def _more(name: str, statement: str, one: str, other: str, goal: float) -> Claim:
    """``one`` solves more of the hard problems than ``other`` does."""
    return Claim(name, statement, (one, other), goal, measurements.accuracy(one, other), must_exclude=0.0)


def _sooner(name: str, statement: str, one: str, other: str) -> Claim:
    """``one`` needs at most half of ``other``'s tokens to be as good."""
    measured = measurements.tokens_to_best(one, other)
    return Claim(name, statement, (one, other), 0.5, measured, at_most=True, statistic=ratio, in_points=False)


CLAIMS = (
    _more("V1", "P²O over GRPO on hard problems, bare accuracy at equal tokens", METHOD, BASELINE, 0.20),
    _more("V2", "P²O over GRPO with doubled rollouts on hard problems", METHOD, "grpo-2x", 0.15),
    Claim(
        "V3",
        "P²O over GRPO out of distribution",
        (METHOD, BASELINE),
        0.10,
        measurements.accuracy(METHOD, BASELINE, "ood"),
        must_exclude=0.0,
    ),
    Claim(
        "V4",
        "share of P²O's gain on hard problems that is lost without context distillation",
        (METHOD, "p2o-no-distillation"),
        0.80,
        measurements.gains(METHOD, "p2o-no-distillation"),
        statistic=share_lost,
    ),
    Claim(
        "V5",
        "P²O's share of all-fail groups over GRPO's, at the end of the budget",
        (METHOD, BASELINE),
        1 / 3,
        measurements.all_fail(METHOD, BASELINE),
        at_most=True,
        statistic=ratio,
        in_points=False,
    ),
    _sooner("S9", "tokens P²O needs to reach GRPO's best held-out accuracy over GRPO's own", METHOD, BASELINE),
    _more("V6-grpo", "P²O online over GRPO on hard problems, real model", ONLINE, BASELINE, 0.0),
    _more("V6-dapo", "P²O online over DAPO on hard problems, real model", ONLINE, "dapo", 0.0),
    Claim(
        "V6-collapse",
        "runs of P²O online that end with less than half of the accuracy from before training",
        (ONLINE,),
        0.0,
        measurements.collapsed(ONLINE),
        at_most=True,
    ),
    _more("V7", "P²O online over random templates on hard problems", ONLINE, "p2o-random", 0.50),
    Claim(
        "V8",
        "P²O online over the best arm that reflects without selecting, on hard problems",
        (ONLINE, *CONTROLS),
        0.10,
        measurements.over_the_best(ONLINE, CONTROLS),
        must_exclude=0.0,
    ),
    _more("V9", "P²O online over P²O with GEPA's own budget on hard problems", ONLINE, METHOD, 0.10),
    Claim(
        "V9-cost",
        "the search's share of P²O online's tokens",
        (ONLINE,),
        0.05,
        measurements.search_share(ONLINE),
        at_most=True,
        statistic=ratio,
    ),
    _more("V10", "P²O online over a reader of a stranger's failures on hard problems", ONLINE, "stranger", 0.0),
    Claim(
        "V11",
        "P²O online over random templates from a pool of sentences that mostly help, on hard problems",
        (ONLINE, "p2o-random"),
        0.0,
        measurements.accuracy(ONLINE, "p2o-random"),
    ),
    _sooner(
        "S9-online",
        "tokens P²O online needs to reach GRPO's best held-out accuracy over GRPO's own",
        ONLINE,
        BASELINE,
    ),
)
BY_NAME = {claim.name: claim for claim in CLAIMS}


def claims_of(evidence: Evidence) -> list[Claim]:
    """The comparison's claims; without a tier ``hard`` they are about all held-out problems, and say so."""
    claims = [BY_NAME[name] for name in evidence.comparison.claims]
    if evidence.focus() is not None:
        return claims
    return [replace(c, statement=c.statement.replace("hard problems", "held-out problems")) for c in claims]


def check_claims(comparison: Comparison, source: object) -> None:
    """Raises BadInput for a claim that there is not."""
    for name in comparison.claims:
        if name not in BY_NAME:
            raise BadInput(f"{source}: field 'claims': there is no claim {name!r}. Mend: one of {', '.join(BY_NAME)}.")


def method_of(comparison: Comparison) -> str:
    """The arm that the others are controls of."""
    return ONLINE if ONLINE in (*comparison.arms, *comparison.sweep_arms) else METHOD
