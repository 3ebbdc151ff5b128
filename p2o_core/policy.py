"""The policy: weights, LoRA adapter and chat format, and the log-probs of completions under it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, Cache, GenerationConfig, PreTrainedModel

from p2o_core.batch import Batch, Tokens, rows_of
from p2o_core.config import FullPolicy, LoraPolicy, PolicyConfig
from p2o_core.output_layer import linear_head, target_logps
from p2o_core.prompts import Chat
from p2o_core.sharding.team import ALONE, Team
from p2o_core.sharding.tensors import whole

ADAPTER_CONFIG = "adapter_config.json"
BASE_NAME = "base-policy"
"""What an adapter's config calls its base. The path peft would write differs from folder to folder, and the same
adapter has to be the same bytes everywhere."""


class Policy:
    """A causal language model with its tokenizer, all weights trainable or a LoRA adapter only. Several processes may
    train it together: ``team``."""

    def __init__(
        self, model: PreTrainedModel | PeftModel, chat: Chat, config: PolicyConfig | None = None, team: Team = ALONE
    ) -> None:
        self.model = model.eval()
        self.chat = chat
        self.config = config or FullPolicy()
        self.team = team
        if self.config.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})

    @classmethod
    def create(cls, base: Path, config: PolicyConfig, *, seed: int) -> Policy:
        """Iteration 0: the base policy, with a new adapter for LoRA.

        LoRA's A matrices are random, so they are seeded here and iteration 0 saves them.
        """
        policy = cls(_load_model(base, config), Chat.load(base), config)
        if isinstance(config, LoraPolicy):
            torch.manual_seed(seed)
            policy.model = get_peft_model(
                policy.model,
                LoraConfig(
                    r=config.rank,
                    lora_alpha=config.alpha,
                    target_modules="all-linear",
                    task_type="CAUSAL_LM",
                ),
            ).eval()
        return policy

    @classmethod
    def load(cls, folder: Path, base: Path, config: PolicyConfig) -> Policy:
        """A folder written by :meth:`save`; an adapter is put on top of ``base``."""
        chat = chat_of(folder, base)
        if (folder / ADAPTER_CONFIG).exists():
            model = PeftModel.from_pretrained(_load_model(base, config), str(folder), is_trainable=True)
            return cls(model, chat, config)
        return cls(_load_model(folder, config), chat, config)

    def save(self, folder: Path) -> None:
        """Write safetensors and config (for LoRA the adapter alone) and, for full weights, the tokenizer. Of several
        processes each calls it, and the first one writes."""
        weights = self._whole_state()
        if not self.team.first:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if not isinstance(self.model, PeftModel):
            self.model.generation_config = self._generation_config()
            self.model.save_pretrained(str(folder), state_dict=weights, safe_serialization=True)
            self.chat.tokenizer.save_pretrained(folder)
            return
        for config in self.model.peft_config.values():
            config.base_model_name_or_path = BASE_NAME
            if isinstance(config, LoraConfig) and isinstance(config.target_modules, set):
                config.target_modules = sorted(config.target_modules)  # a set's order differs from process to process
        # embeddings are not trained; "auto" would look BASE_NAME up on the hub to find that out
        self.model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's model card names paths of this machine

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def trainable_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Name to parameter, in the model's order."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def whole_parameters(self) -> dict[str, Tensor]:
        """The trainable ones, on the processor; empty in all processes but the first, and each has to ask."""
        gathered = ((name, whole(p.detach())) for name, p in self.trainable_parameters().items())
        return {name: weight.contiguous().cpu() for name, weight in gathered if self.team.first}

    @property
    def shares_prompts(self) -> bool:
        """Whether completions of one prompt can share a row: only attention may look at other tokens, and at all of
        them. A recurrent state would run from one completion into the next."""
        config = self.causal_model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        return (
            not self.causal_model._is_stateful
            and kinds == {"full_attention"}
            and not getattr(config, "sliding_window", None)
        )

    def completion_logps(self, batch: Batch, temperature: float) -> Tensor:
        """[B, T] log-probs of the completion tokens at ``temperature``, 0 where ``completion_mask`` is 0.

        Only the completion tokens go through the output layer, a few at a time (:mod:`p2o_core.output_layer`).

        Raises:
            ValueError: the model does more to its logits than a linear layer does.
        """
        head = linear_head(self.causal_model)
        counts = batch.completion_mask.bool()
        with self._arithmetic():
            hidden = self.hidden_states(batch)
        logps = target_logps(
            hidden.index_select(
                0, batch.predicted_by[counts]
            ),  # its gradient adds up in one order, indexing's does not
            head.weight,
            head.bias,
            batch.completion_ids[counts],
            temperature,
            dtype=getattr(torch, self.config.engine_dtype),
        )
        return torch.zeros(counts.shape, dtype=logps.dtype, device=logps.device).masked_scatter(counts, logps)

    def hidden_states(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """[R * S, H] of the last layer; a ``cache`` takes up keys and values."""
        states: Tensor = self.causal_model.base_model(
            input_ids=batch.input_ids,
            attention_mask=self._attention_mask(batch),
            position_ids=batch.position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return states.flatten(0, 1)

    @torch.no_grad()
    def score(
        self, prompts: Sequence[Tokens], completions: Sequence[Tokens], temperature: float, *, tokens: int
    ) -> list[tuple[float, ...]]:
        """Each completion's log-probs behind its prompt, computed in batches of at most ``tokens`` padded tokens."""
        lengths = list(map(len, completions))
        scored = [torch.zeros(length, dtype=torch.float64) for length in lengths]
        for rows in rows_of(prompts, completions, tokens, share=self.shares_prompts, team=self.team):
            shared = [(prompts[row[0]], [completions[number] for number in row]) for row in rows]
            logps = self.completion_logps(Batch.of_rows(shared, self.chat.pad_id).to(self.device), temperature).cpu()
            for number, own in zip((number for row in rows for number in row), logps, strict=True):
                scored[number] = own[: lengths[number]].double()
        return [tuple(own.tolist()) for own in self.team.sum(scored)]

    def _whole_state(self) -> dict[str, Tensor] | None:
        """The model's, where it is in shards."""
        return None

    @property
    def causal_model(self) -> Any:
        """The model without peft's wrapper; an adapter's layers are in it."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    def _attention_mask(self, batch: Batch) -> Tensor | None:
        """[R, 1, S, S] of what transformers takes as a finished mask; None: causal attention (padding comes last)."""
        if batch.attends is None:
            return None
        mask = batch.attends.unsqueeze(1)
        if self.config.attention == "sdpa":
            return mask
        dtype = getattr(torch, self.config.engine_dtype)
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)

    def _generation_config(self) -> GenerationConfig:
        """Token ids alone. A model's own sampling settings mean nothing here, and transformers does not save all that
        it loads (``do_sample: false`` beside a temperature)."""
        ids = self.chat.stop_ids
        return GenerationConfig(
            bos_token_id=self.model.config.bos_token_id,
            eos_token_id=ids[0] if len(ids) == 1 else list(ids),
            pad_token_id=self.chat.pad_id,
        )

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Mixed precision, and transformers' checkpointing. That asks for a layer's training mode (modeling_layers.py,
        ``GradientCheckpointingLayer``); what is inside the layer stays in evaluation, or a base policy's dropout would
        make the gradient another function than the sampling."""
        mixed = self.config.engine_dtype != self.config.dtype
        if self.config.checkpointing and torch.is_grad_enabled():
            for module in self.model.modules():
                module.training = getattr(module, "gradient_checkpointing", False)
        with torch.autocast(self.device.type, getattr(torch, self.config.engine_dtype), enabled=mixed):
            try:
                yield
            finally:
                self.model.eval()


def chat_of(folder: Path, base: Path) -> Chat:
    """The chat format of a policy saved in a folder, without its weights; an adapter has its base's."""
    return Chat.load(base if (folder / ADAPTER_CONFIG).exists() else folder)


def settle_arithmetic(threads: int) -> None:
    """Make this process's arithmetic reproducible. How many ``threads`` torch has is part of what decides the bytes."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)


def _load_model(folder: Path, config: PolicyConfig) -> PreTrainedModel:
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=getattr(torch, config.dtype),
        attn_implementation=config.attention,
        use_safetensors=True,
        trust_remote_code=False,
        generation_config=GenerationConfig(),  # of the folder's nothing counts but the stop tokens, which Chat reads
    )
    return model.to(config.device)  # type: ignore[return-value]
