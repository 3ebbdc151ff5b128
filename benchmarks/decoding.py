"""S4: the embedded engine against ``transformers.generate`` on the same prompts, n = 8, skewed lengths.

Theirs has every row of the request in one batch, as ours has; both sample at temperature 1 without top-k and top-p and
stop a row at the same tokens. A token counts when it belongs to a completion, its end included.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import Meter, linear_rate
from benchmarks.row import OURS, THEIRS, CaseRuns, Disagreement, Row, Settings, Verdict, pooled

SOURCE: Settings = {"samples": 8, "temperature": 1.0}
MICRO: Settings = {**SOURCE, "base": "micro", "prompts": 64, "new_tokens": 44, "drawn": 2000}
SMOLLM2: Settings = {**SOURCE, "base": "smollm2", "prompts": 4, "new_tokens": 64, "drawn": 0}
CASES: Mapping[str, Settings] = {
    "micro-world float32": {**MICRO, "dtype": "float32"},
    "micro-world bfloat16": {**MICRO, "dtype": "bfloat16"},
    "SmolLM2-135M float32": {**SMOLLM2, "dtype": "float32"},
    "SmolLM2-135M bfloat16": {**SMOLLM2, "dtype": "bfloat16"},
}
ASKED = (
    "What is 17 plus 25? Answer with the number.",
    "Name three colours.",
    "Write one sentence about a river in winter.",
    "How many days are in a week? Explain briefly.",
    "Say hello in French.",
    "Why is the sky blue? Keep it short.",
    "List the first five prime numbers.",
    "Give a synonym of quick.",
)
LOGP_TOLERANCE = {"float32": 2e-3, "bfloat16": 0.4}
"""Largest difference allowed between a reported log-prob and the one of a plain forward pass."""
SIGNIFICANT = 1e-4
CHECKED = 4
"""Every so many rows are scored by plain forward passes."""


def _prepared(settings: Settings) -> tuple[Any, list[str]]:
    import torch

    from benchmarks.inputs import micro_base, smollm2_base
    from p2o_core.config import FullPolicy
    from p2o_core.policy import Policy

    torch.set_num_threads(int(settings.get("threads", 2)))
    base = micro_base() if settings["base"] == "micro" else smollm2_base()
    if base is None:
        raise SystemExit("no SmolLM2 here. Mend: `make smollm2`.")
    policy = Policy.load(base, base, FullPolicy(dtype=settings["dtype"]))
    return policy, questions(settings["base"], settings["prompts"])


def questions(base: str, count: int) -> list[str]:
    if base != "micro":
        return [ASKED[i % len(ASKED)] for i in range(count)]
    import random

    from microworld.problems import draw_split

    wanted = [("easy", 1, count // 2), ("hard", 4, count - count // 2)]
    return [p.question for p in draw_split(random.Random(0), "train", wanted, taken=set())]


def ours(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    from p2o_core.engines.base import RolloutRequest, Sampling
    from p2o_core.engines.embedded import EmbeddedEngine

    policy, asked = _prepared(settings)
    samples = tuple(range(settings["samples"]))
    engine = EmbeddedEngine(policy, rows_per_batch=max(512, settings["drawn"]))
    requests = [RolloutRequest(str(i), q, "", samples, 7 + settings["repetition"]) for i, q in enumerate(asked)]
    engine.generate(requests[:1], Sampling(settings["temperature"], 2))
    with meter:
        written = engine.generate(requests, Sampling(settings["temperature"], settings["new_tokens"]))
    checked = written[::CHECKED]
    prompts = [policy.chat.encode_prompt(asked[int(c.problem_id)]) for c in checked]
    forced = _forced(policy, prompts, [c.token_ids for c in checked])
    gap = max(abs(a - b) for c, row in zip(checked, forced, strict=True) for a, b in zip(c.logps, row, strict=True))
    tokens = sum(len(c.token_ids) for c in written)
    rate = linear_rate(policy.model, len(written))
    drawn: list[int] = []
    if settings["drawn"]:
        first = RolloutRequest("d", asked[-1], "", tuple(range(settings["drawn"])), 11)
        drawn = [c.token_ids[0] for c in engine.generate([first], Sampling(settings["temperature"], 1))]
    return {
        **_numbers(tokens, meter, forced),
        "logp_gap": gap,
        "limit_tokens_a_second": rate,
        "limit_share": tokens / meter.cpu_s / rate,
        "p_value": _p_value(policy, asked[-1], drawn),
        "lengths": sorted(len(c.token_ids) for c in written),
    }


def generate(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    import torch

    policy, asked = _prepared(settings)
    chat = policy.chat
    encoded = [chat.encode_prompt(question) for question in asked]
    torch.manual_seed(settings["repetition"])

    @torch.inference_mode()
    def sampled(prompts: Sequence[Sequence[int]], samples: int, new_tokens: int) -> list[list[int]]:
        width = max(map(len, prompts))
        ids = torch.tensor([[chat.pad_id] * (width - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        out = policy.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=settings["temperature"],
            top_k=0,
            top_p=1.0,
            max_new_tokens=new_tokens,
            num_return_sequences=samples,
            eos_token_id=list(chat.stop_ids),
            pad_token_id=chat.pad_id,
        )
        return [_ended(row, chat.stop_ids) for row in out[:, width:].tolist()]

    sampled(encoded[:1], settings["samples"], 2)
    with meter:
        written = sampled(encoded, settings["samples"], settings["new_tokens"])
    prompts = [encoded[index // settings["samples"]] for index in range(len(written))]
    forced = _forced(policy, prompts[::CHECKED], written[::CHECKED])
    drawn = [row[0] for row in sampled(encoded[-1:], settings["drawn"], 1)] if settings["drawn"] else []
    tokens = sum(map(len, written))
    return {**_numbers(tokens, meter, forced), "p_value": _p_value(policy, asked[-1], drawn)}


def _ended(row: Sequence[int], stops: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(row) if token in stops), len(row) - 1)
    return list(row[: end + 1])


def _forced(policy: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> list[Any]:
    """Log-probs of plain forward passes, a row each, no cache."""
    import torch

    rows = []
    with torch.inference_mode():
        for prompt, own in zip(prompts, completions, strict=True):
            logits = policy.model(torch.tensor([[*prompt, *own]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
            logps = logits.float().log_softmax(-1)
            rows.append(logps.gather(1, torch.tensor(own).unsqueeze(1)).squeeze(1).tolist())
    return rows


def _numbers(tokens: int, meter: Meter, forced: Sequence[Sequence[float]]) -> dict[str, Any]:
    logps = [value for row in forced for value in row]
    return {
        "tokens": tokens,
        "tokens_a_processor_second": tokens / meter.cpu_s,
        "seconds_a_token": meter.cpu_s / tokens,
        "mean_logp": sum(logps) / len(logps),
        "logp_error": (sum((v - sum(logps) / len(logps)) ** 2 for v in logps) / len(logps) / len(logps)) ** 0.5,
    }


def _p_value(policy: Any, question: str, drawn: Sequence[int]) -> float | None:
    """Of a chi-square test of first tokens against the policy's own probabilities; None without any."""
    import torch
    from scipy.stats import chisquare

    if not drawn:
        return None
    with torch.inference_mode():
        logits = policy.model(torch.tensor([policy.chat.encode_prompt(question)])).logits[0, -1]
    expected = logits.double().softmax(-1) * len(drawn)
    counts = Counter(drawn)
    common = [token for token in range(len(expected)) if expected[token] >= 5]
    seen, wanted = [counts[token] for token in common], [float(expected[token]) for token in common]
    if len(drawn) - sum(wanted) > 1:
        seen, wanted = [*seen, len(drawn) - sum(seen)], [*wanted, len(drawn) - sum(wanted)]
    scale = sum(seen) / sum(wanted)
    return float(chisquare(seen, [value * scale for value in wanted]).pvalue) if len(seen) > 1 else 1.0


def agree(case: CaseRuns) -> Mapping[str, Any]:
    """Reported log-probs are the policy's; first tokens follow its probabilities; both sides' mean log-prob is one."""
    gap = max(run.numbers["logp_gap"] for run in case.sides[OURS])
    if gap > LOGP_TOLERANCE[case.settings["dtype"]]:
        raise Disagreement(f"a reported log-prob is {gap:.3g} from the policy's own")
    values = {side: [run.numbers["p_value"] for run in case.sides[side]] for side in (OURS, THEIRS)}
    low = [side for side, found in values.items() if any(p is not None and p < SIGNIFICANT for p in found)]
    if low and case.settings["dtype"] == "float32":
        raise Disagreement(f"first tokens do not follow the policy's probabilities: {low}, p = {values}")
    means = {side: case.median(side, "mean_logp") for side in (OURS, THEIRS)}
    error = math.hypot(*(case.median(side, "logp_error") for side in (OURS, THEIRS)))
    return {"largest_logp_gap": gap, "p_values": values, "mean_logps": means, "mean_logps_error": error}


def _judge(cases: Mapping[str, CaseRuns]) -> Verdict:
    speed = {name: case.ratios("seconds_a_token") for name, case in cases.items()}
    worst = min(speed, key=lambda name: pooled(speed[name])[0])
    ratio, spread = pooled(speed[worst])
    shares = {name: round(case.median(OURS, "limit_share"), 3) for name, case in cases.items()}
    return Verdict(
        ratio=ratio,
        spread=spread,
        reached=ratio >= 4.0 and min(shares.values()) >= 0.5,
        limit_share=shares[worst],
        bound="the linear layers at all rows (limit_share), though rows end early and fewer rows are slower a row; "
        "beyond them attention over the cache, and in the micro-world one call of torch after the other",
        more={
            "ratios": {name: round(pooled(found)[0], 2) for name, found in speed.items()},
            "limit_shares": shares,
            "tokens_a_processor_second": {
                name: {side: round(case.median(side, "tokens_a_processor_second"), 1) for side in (OURS, THEIRS)}
                for name, case in cases.items()
            },
        },
    )


ROWS = {
    "S4": Row(
        name="S4",
        title="embedded engine against transformers.generate",
        goal="≥ 4×, ≥ 50 % of the linear layers' limit, the same distribution",
        cases=CASES,
        small={"prompts": 2, "new_tokens": 8},
        sides={OURS: ours, THEIRS: generate},
        agree=agree,
        judge=_judge,
        repetitions=1,
    )
}
