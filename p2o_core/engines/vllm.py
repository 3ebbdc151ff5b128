"""The ``vllm`` engine: vLLM in this process, one start for the whole experiment.

Between iterations adapters are swapped by request and full weights are read in place. On a GPU the engine sleeps
while the trainer works, so that both share the card.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from p2o_core.config import LoraPolicy, PolicyConfig, VllmEngineConfig
from p2o_core.engines.base import LogprobRequest, RolloutRequest, Sampling, check_sampled, check_scored, point_mass
from p2o_core.engines.serving import QUIET, adapted_modules, lora_rank
from p2o_core.engines.swap import repack_tied_output
from p2o_core.policy import ADAPTER_CONFIG
from p2o_core.prompts import Chat
from p2o_core.types import Completion


class VllmEngine:
    """See :class:`p2o_core.engines.base.RolloutEngine`.

    The same requests in the same order on the same machine give the same completions: every request has its own seed,
    and no prefix stays cached from one call to the next. Unlike in the embedded engine, the last bits of a log-prob
    depend on which requests share a batch.
    """

    def __init__(self, base: Path, policy: PolicyConfig, config: VllmEngineConfig) -> None:
        self.base = base
        self.config = config
        self.chat = Chat.load(base)
        self.on_rows: Callable[[int], None] | None = None
        self._on_gpu = torch.cuda.is_available() and policy.device.startswith("cuda")
        self._lora = isinstance(policy, LoraPolicy)
        self._adapter: Any = None
        self._adapters = 0
        self._weights = base
        self._asleep = False
        _set_environment(config)
        from vllm import LLM

        self.llm = LLM(
            model=str(base),
            dtype=policy.engine_dtype,
            max_model_len=config.max_model_len,
            max_num_seqs=config.max_sequences,
            tensor_parallel_size=config.tensor_parallel,
            gpu_memory_utilization=config.gpu_memory,
            enforce_eager=not self._on_gpu,
            enable_chunked_prefill=self._on_gpu,  # a prompt in parts and a seed: vLLM 0.32 fails so on CPU
            max_num_batched_tokens=max(8192, config.max_model_len),
            enable_prefix_caching=True,  # a group shares its prompt, a template its beginning
            enable_lora=self._lora,
            max_lora_rank=lora_rank(policy),
            lora_target_modules=adapted_modules(base) if self._lora else None,
            logprobs_mode="processed_logprobs",  # of the distribution really sampled from, temperature included
            generation_config="vllm",  # not the model's own top-p and top-k: they bias importance ratios
            enable_sleep_mode=self._on_gpu and config.sleep,
            disable_log_stats=True,
            skip_tokenizer_init=True,  # prompts are token ids, answers too
            trust_remote_code=False,
            seed=0,
        )

    def use(self, policy: Path) -> None:
        """Sample from the policy in this folder from now on: an adapter, full weights, or the base itself."""
        if not (policy / ADAPTER_CONFIG).exists():
            self._adapter = None
            self._read_weights(policy if not self._lora else self.base)
        elif self._adapter is None or self._adapter.lora_path != str(policy):
            from vllm.lora.request import LoRARequest

            self._adapters += 1  # a new id: cached prefixes of the last adapter are not this one's
            self._adapter = LoRARequest(f"policy-{self._adapters}", self._adapters, str(policy))
            self._wake()
        else:
            self._wake()

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[Completion]:
        """See :class:`p2o_core.engines.base.RolloutEngine`."""
        from vllm import SamplingParams, TokensPrompt

        rows = [(request, sample) for request in requests for sample in request.samples]
        if not rows:
            return []
        prompts = [
            TokensPrompt(prompt_token_ids=list(self.chat.encode_prompt(r.question, r.template, r.style)))
            for r, _ in rows
        ]
        self._check_lengths([request.problem_id for request, _ in rows], prompts, sampling.max_new_tokens)
        params = [
            SamplingParams(
                temperature=sampling.temperature,
                max_tokens=sampling.max_new_tokens,
                stop_token_ids=list(self.chat.stop_ids),
                seed=request.seed(sample),
                logprobs=0,  # the sampled token's alone
                detokenize=False,
            )
            for request, sample in rows
        ]
        # what is cached from earlier calls would change the last bits, and a run that goes on after a kill has less
        self.llm.reset_prefix_cache()
        progress = partial(_Progress, self.on_rows) if self.on_rows else False
        outputs = self.llm.generate(prompts, params, lora_request=self._adapter, use_tqdm=progress)
        return check_sampled(
            [
                self._completion(*row, output.outputs[0], sampling, len(prompt["prompt_token_ids"]))
                for row, prompt, output in zip(rows, prompts, outputs, strict=True)
            ]
        )

    def completion_logps(self, requests: Sequence[LogprobRequest]) -> list[tuple[float, ...]]:
        """See :class:`p2o_core.engines.base.RolloutEngine`: prompt and completion go in as one prompt, whose log-probs
        vLLM gives. It cannot give them alone, so each request generates one token, which nobody reads."""
        from vllm import SamplingParams, TokensPrompt

        if not requests:
            return []
        rows = [[*r.prompt(self.chat), *r.token_ids] for r in requests]
        prompts = [TokensPrompt(prompt_token_ids=row) for row in rows]
        self._check_lengths([r.problem_id for r in requests], prompts, 1)
        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        self.llm.reset_prefix_cache()
        outputs = self.llm.generate(prompts, params, lora_request=self._adapter, use_tqdm=False)
        scored = []
        for request, row, output in zip(requests, rows, outputs, strict=True):
            given: Any = output.prompt_logprobs
            steps = zip(given[len(row) - len(request.token_ids) :], request.token_ids, strict=True)
            scored.append(tuple(step[token].logprob for step, token in steps))
        return check_scored(requests, scored, self.chat.decode)

    def sleep(self) -> None:
        """Give the GPU's memory back until the next :meth:`use`; on CPU nothing happens."""
        if self._on_gpu and self.config.sleep and not self._asleep:
            self.llm.sleep(level=1 if self._lora else 2)  # full weights are read anew, so they need no copy
            self._asleep = True

    def close(self) -> None:
        """End the engine; it cannot be used again."""
        self.llm.llm_engine.engine_core.shutdown()

    def _wake(self) -> None:
        if self._asleep:
            self.llm.wake_up()
            self._asleep = False

    def _read_weights(self, folder: Path) -> None:
        if folder == self._weights and not (self._asleep and not self._lora):
            return self._wake()
        if self._asleep:
            self.llm.wake_up(tags=["weights"])
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        if not self._on_gpu:
            self.llm.apply_model(repack_tied_output)
        if self._asleep:
            self.llm.wake_up(tags=["kv_cache"])
            self._asleep = False
        self._weights = folder

    def _check_lengths(self, problem_ids: Sequence[str], prompts: Sequence[Any], new_tokens: int) -> None:
        for problem_id, prompt in zip(problem_ids, prompts, strict=True):
            needed = len(prompt["prompt_token_ids"]) + new_tokens
            if needed > self.config.max_model_len:
                raise ValueError(
                    f"problem {problem_id}: prompt and completion need {needed} tokens, engine.max_model_len "
                    f"is {self.config.max_model_len}. Mend: raise it, or lower max_new_tokens."
                )

    def _completion(
        self, request: RolloutRequest, sample: int, output: Any, sampling: Sampling, prompt_tokens: int
    ) -> Completion:
        tokens = tuple(output.token_ids)
        logps = tuple(step[token].logprob for step, token in zip(output.logprobs, tokens, strict=True))
        return Completion(
            problem_id=request.problem_id,
            sample=sample,
            template=request.template,
            text=self.chat.decode(tokens),
            token_ids=tokens,
            logps=logps if sampling.temperature else point_mass(logps),
            truncated=output.finish_reason == "length",
            prompt_tokens=prompt_tokens,
        )


class _Progress(tqdm):
    """vLLM's progress bar: it calls ``on_rows`` instead of drawing."""

    def __init__(self, on_rows: Callable[[int], None], *rows: Any, total: int | None = None, **_: Any) -> None:
        self.on_rows = on_rows
        super().__init__(*rows, total=total, disable=True)

    @property
    def format_dict(self) -> dict[str, Any]:
        return super().format_dict | {"elapsed": 1.0}  # vLLM divides by it, and a bar that is off has none

    def update(self, n: float | None = 1) -> bool | None:
        self.on_rows(int(n or 0))
        return None


def _set_environment(config: VllmEngineConfig) -> None:
    """Set the variables that vLLM reads at import: in process, silent, on loopback. The user's own values stay."""
    defaults = QUIET | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": str(config.cpu_cache_gib),
        "VLLM_LOGGING_LEVEL": "ERROR",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
