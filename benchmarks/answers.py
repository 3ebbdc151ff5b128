"""S7: 1,000 answers verified, against math-verify called in process with its own time-outs (5 s, as ours).

The answers are MATH-500's where P2O_BENCHMARK_ANSWERS names its file (each right once and once another problem's),
otherwise made in MATH's forms; so the row runs on any machine, and the result says which they were.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measuring import Meter
from benchmarks.row import OURS, THEIRS, CaseRuns, Disagreement, Row, Settings, Verdict, pooled

ANSWERS = "P2O_BENCHMARK_ANSWERS"
TIMEOUT_S = 5
CASES: Mapping[str, Settings] = {
    "1 % powers of powers": {"count": 1000, "huge": 10, "hanging": 0, "repeats": 1},
    "1 % endless expansions": {"count": 1000, "huge": 0, "hanging": 10, "repeats": 1},
    "honest": {"count": 1000, "huge": 0, "hanging": 0, "repeats": 1},
    "honest, each four times": {"count": 250, "huge": 0, "hanging": 0, "repeats": 4},
}
GOALS = {"1 % powers of powers": 20.0, "1 % endless expansions": 20.0, "honest": 1.9, "honest, each four times": 4.0}


def pairs(settings: Settings) -> list[tuple[str, str]]:
    from stress.hostile import math_pairs
    from stress.hostile_corpus import hanging, honest, huge

    path = os.environ.get(ANSWERS)
    made = math_pairs(Path(path)) if path else honest(settings["count"])
    made = made[:: max(1, len(made) // settings["count"])][: settings["count"]]  # right ones come first
    made = made * settings["repeats"]
    bad = hanging(settings["hanging"]) + huge(settings["huge"])
    for index, pair in enumerate(bad):
        made.insert(index * len(made) // len(bad), pair)
    return made


def ours(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    """:class:`p2o_core.verify.Verifier` with two workers, started before."""
    from benchmarks.search import descendants
    from p2o_core.verify import Verifier

    asked = pairs(settings)
    with Verifier(workers=2, timeout_s=TIMEOUT_S) as verifier:
        verifier.verify([(f"\\boxed{{{n}}}", f"{n}") for n in range(40)])  # sympy is imported in every worker
        meter.beside = descendants
        with meter:
            verdicts = verifier.verify(asked)
        looked = verifier.effort.look_s
    (folder / "verdicts.json").write_text(json.dumps([verdict.reward > 0 for verdict in verdicts]))
    return {"answers": len(asked), "honest_s": looked, "answers_a_second": len(asked) / meter.wall_s}


def in_process(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    """``math_verify.parse`` and ``verify``, one after the other; what they do not answer in time is wrong."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    asked = pairs(settings)

    def right(response: str, gold: str) -> bool:
        try:
            return bool(
                verify(
                    parse(f"${gold}$", parsing_timeout=TIMEOUT_S),
                    parse(response, parsing_timeout=TIMEOUT_S),
                    timeout_seconds=TIMEOUT_S,
                )
            )
        except Exception:  # its own time-out comes out as several kinds
            return False

    for number in range(40):
        right(f"\\boxed{{{number}}}", f"{number}")
    slow = 0.0
    verdicts = []
    with meter:
        for response, gold in asked:
            began = time.perf_counter()
            verdicts.append(right(response, gold))
            took = time.perf_counter() - began
            slow += took if took > 1 else 0.0
    (folder / "verdicts.json").write_text(json.dumps(verdicts))
    return {"answers": len(asked), "hanging_s": slow, "answers_a_second": len(asked) / meter.wall_s}


def agree(case: CaseRuns) -> Mapping[str, Any]:
    """The same verdicts; ours accepts spellings that math-verify refuses, which is counted apart."""
    mine, other = (json.loads((case.sides[side][0].folder / "verdicts.json").read_text()) for side in (OURS, THEIRS))
    only_theirs = sum(b and not a for a, b in zip(mine, other, strict=True))
    only_ours = sum(a and not b for a, b in zip(mine, other, strict=True))
    if only_theirs + only_ours > 0.02 * len(mine):
        raise Disagreement(f"{only_ours} answers are right for us alone, {only_theirs} for math-verify alone")
    source = os.environ.get(ANSWERS)
    return {
        "answers": len(mine),
        "right": sum(mine),
        "right_for_us_alone": only_ours,
        "right_for_them_alone": only_theirs,
        "source": Path(source).name if source else "made in MATH's forms",
    }


def _judge(cases: Mapping[str, CaseRuns]) -> Verdict:
    speed = {name: case.ratios("wall_s") for name, case in cases.items()}
    ratios = {name: pooled(found)[0] for name, found in speed.items()}
    ratio, spread = pooled(speed["1 % powers of powers"])
    hanging = cases["1 % endless expansions"]
    until_honest = hanging.median(THEIRS, "wall_s") / hanging.median(OURS, "honest_s")
    return Verdict(
        ratio=ratio,
        spread=spread,
        reached=all(ratios[name] >= goal for name, goal in GOALS.items()),
        limit_share=None,
        bound="a number beyond 2**20 bits is refused before it is computed; what hangs otherwise has its full time-out "
        "of 5 s here too, two at a time",
        more={"ratios": ratios, "goals": GOALS, "ratio_until_honest_answers_are_judged": until_honest},
    )


ROWS = {
    "S7": Row(
        name="S7",
        title="1,000 answers, 1 % hanging, against math-verify in process",
        goal="≥ 20×; honest alone ≥ 1.9× with 2 workers; ≥ 4× where answers repeat",
        cases=CASES,
        small={"count": 60, "repeats": 1, "huge": 0, "hanging": 0},
        sides={OURS: ours, THEIRS: in_process},
        agree=agree,
        judge=_judge,
        repetitions=1,
    )
}
