"""S5: vLLM through :class:`p2o_core.engines.vllm.VllmEngine` against bare ``vllm.LLM.generate`` with the same requests,
seeds and engine settings, start-up aside."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.decoding import questions
from benchmarks.measuring import Meter
from benchmarks.row import OURS, THEIRS, CaseRuns, Disagreement, Row, Settings, Verdict, pooled

GOAL = 0.97
LENGTH = 1024


def _base(settings: Settings) -> Path:
    from benchmarks.inputs import micro_base, smollm2_base

    base = micro_base() if settings["base"] == "micro" else smollm2_base()
    if base is None:
        raise SystemExit("no SmolLM2 here. Mend: `make smollm2`.")
    return base


def _length(settings: Settings) -> int:
    return 256 if settings["base"] == "micro" else LENGTH


def ours(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    from p2o_core.config import FullPolicy, VllmEngineConfig
    from p2o_core.engines.base import RolloutRequest, Sampling
    from p2o_core.engines.vllm import VllmEngine

    config = VllmEngineConfig(max_model_len=_length(settings), max_sequences=settings["sequences"])
    engine = VllmEngine(_base(settings), FullPolicy(dtype=settings["dtype"]), config)
    samples, asked = tuple(range(settings["samples"])), questions(settings["base"], settings["prompts"])
    requests = [RolloutRequest(str(i), question, "", samples, 7) for i, question in enumerate(asked)]
    engine.generate(requests[:1], Sampling(1.0, 4))
    with meter:
        written = engine.generate(requests, Sampling(1.0, settings["new_tokens"]))
    return _numbers([list(c.token_ids) for c in written], meter, folder)


def bare(settings: Settings, meter: Meter, folder: Path) -> Mapping[str, Any]:
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "ERROR"}
    os.environ |= {"VLLM_NO_USAGE_STATS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    from vllm import LLM, SamplingParams, TokensPrompt

    from p2o_core.engines.base import RolloutRequest
    from p2o_core.prompts import Chat

    base, length = _base(settings), _length(settings)
    chat = Chat.load(base)
    llm = LLM(
        model=str(base),
        dtype=settings["dtype"],
        max_model_len=length,
        max_num_seqs=settings["sequences"],
        enforce_eager=True,
        enable_chunked_prefill=False,
        max_num_batched_tokens=max(8192, length),
        enable_prefix_caching=True,
        logprobs_mode="processed_logprobs",
        generation_config="vllm",
        disable_log_stats=True,
        skip_tokenizer_init=True,
        seed=0,
    )
    samples, asked = range(settings["samples"]), questions(settings["base"], settings["prompts"])
    requests = [RolloutRequest(str(i), question, "", (s,), 7) for i, question in enumerate(asked) for s in samples]
    prompts = [TokensPrompt(prompt_token_ids=list(chat.encode_prompt(r.question))) for r in requests]
    params = [
        SamplingParams(
            temperature=1.0,
            max_tokens=settings["new_tokens"],
            stop_token_ids=list(chat.stop_ids),
            seed=r.seed(r.samples[0]),
            logprobs=0,
            detokenize=False,
        )
        for r in requests
    ]
    llm.generate(prompts[:2], [p.clone() for p in params[:2]], use_tqdm=False)
    llm.reset_prefix_cache()
    with meter:
        outputs = llm.generate(prompts, params, use_tqdm=False)
    return _numbers([list(output.outputs[0].token_ids) for output in outputs], meter, folder)


def _numbers(written: list[list[int]], meter: Meter, folder: Path) -> dict[str, Any]:
    (folder / "tokens.json").write_text(json.dumps(written))
    tokens = sum(map(len, written))
    return {"tokens": tokens, "tokens_a_processor_second": tokens / meter.cpu_s}


def agree(case: CaseRuns) -> Mapping[str, Any]:
    """The same tokens."""
    mine, other = (json.loads((case.sides[side][0].folder / "tokens.json").read_text()) for side in (OURS, THEIRS))
    equal = sum(a == b for a, b in zip(mine, other, strict=True))
    if equal < 0.99 * len(mine):
        raise Disagreement(f"{equal} of {len(mine)} completions are the same")
    return {"equal_completions": equal, "completions": len(mine)}


def _judge(cases: Mapping[str, CaseRuns]) -> Verdict:
    speed = {name: case.ratios("cpu_s") for name, case in cases.items()}
    worst = min(speed, key=lambda name: pooled(speed[name])[0])
    ratio, spread = pooled(speed[worst])
    return Verdict(
        ratio=ratio,
        spread=spread,
        reached=ratio >= GOAL,
        limit_share=None,
        bound="vLLM itself",
        more={"ratios": {name: pooled(found)[0] for name, found in speed.items()}},
    )


ROWS = {
    "S5": Row(
        name="S5",
        title="vLLM through our layer against bare vllm.LLM.generate",
        goal="≥ 0.97×, the same tokens",
        cases={
            "SmolLM2-135M": {
                "base": "smollm2",
                "prompts": 8,
                "samples": 8,
                "new_tokens": 64,
                "sequences": 64,
                "dtype": "float32",
            }
        },
        small={"prompts": 2, "new_tokens": 8, "samples": 2},
        sides={OURS: ours, THEIRS: bare},
        agree=agree,
        judge=_judge,
    )
}
