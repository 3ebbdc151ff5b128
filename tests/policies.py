"""Policy folders as users bring them: a tiny random Llama, and one change a kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
GENERATION = "generation_config.json"
INDEX = "model.safetensors.index.json"


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    change(content)
    path.write_text(json.dumps(content))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def set_fields(name: str, **fields: Any) -> Callable[[Path], None]:
    """Fields of a JSON file; None takes one out."""

    def change(folder: Path) -> None:
        def merged(content: dict[str, Any]) -> None:
            content |= fields
            for field in [field for field, value in fields.items() if value is None]:
                del content[field]

        edit_json(folder / name, merged)

    return change


def set_value(name: str, value: float) -> Callable[[Path], None]:
    """One weight of a matrix."""

    def change(folder: Path) -> None:
        def put(weights: dict[str, torch.Tensor]) -> None:
            weights[name][-1, -1] = value

        edit_weights(folder, put)

    return change


def all_zeros(folder: Path) -> None:
    edit_weights(folder, lambda weights: [tensor.zero_() for tensor in weights.values()])


def only_bin(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def truncated(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-100])


def lfs_pointer(folder: Path) -> None:
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 988097824\n")


def sharded(folder: Path) -> None:
    """As two shards with their index."""
    weights = load_file(folder / WEIGHTS)
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: weights[name] for name in held}, folder / shard, metadata={"format": "pt"})
    places = {name: shard for shard, held in shards.items() for name in held}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    (folder / WEIGHTS).unlink()


def tensor_in_two_shards(folder: Path) -> None:
    sharded(folder)
    first, second = sorted(folder.glob("model-*.safetensors"))
    name, value = next(iter(load_file(first).items()))
    save_file(load_file(second) | {name: 0 * value}, second, metadata={"format": "pt"})


def missing_shard(folder: Path) -> None:
    sharded(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def missing_tensor(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))


def wrong_shape(folder: Path) -> None:
    def cut(weights: dict[str, torch.Tensor]) -> None:
        name = "model.layers.1.mlp.up_proj.weight"
        weights[name] = weights[name][:-1].contiguous()

    edit_weights(folder, cut)


def integers(folder: Path) -> None:
    def rounded(weights: dict[str, torch.Tensor]) -> None:
        name = "model.layers.1.mlp.up_proj.weight"
        weights[name] = (100 * weights[name]).to(torch.int8)

    edit_weights(folder, rounded)


def no_tokenizer(folder: Path) -> None:
    for name in (TOKENIZER, TOKENIZER_CONFIG, TEMPLATE):
        (folder / name).unlink(missing_ok=True)


def no_chat_template(folder: Path) -> None:
    (folder / TEMPLATE).unlink()


def more_tokens(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.save_pretrained(folder)


def no_pad(folder: Path) -> None:
    set_fields(TOKENIZER_CONFIG, pad_token=None)(folder)


def no_eos(folder: Path) -> None:
    set_fields(TOKENIZER_CONFIG, eos_token=None)(folder)
    set_fields(CONFIG, eos_token_id=None)(folder)
    (folder / GENERATION).unlink()


def weights_are_a_folder(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


def weights_are_a_broken_link(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(folder / "blobs" / "gone")


def biases(folder: Path) -> None:
    """As a model with biases under a configuration that asks for none."""
    name = "model.layers.0.self_attn.q_proj"
    edit_weights(folder, lambda held: held.update({f"{name}.bias": torch.ones(held[f"{name}.weight"].shape[0])}))


def byte_order_mark(folder: Path) -> None:
    (folder / CONFIG).write_text("\ufeff" + (folder / CONFIG).read_text())


NO_SYSTEM = "{% for m in messages %}{% if m.role == 'user' %}<u>{{ m.content }}<a>{% endif %}{% endfor %}"


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("weights")


def no_model(folder: Path) -> None:
    empty(folder)
    (folder / "README.md").write_text("# my model")
    (folder / CONFIG).write_text('{"name": "an app"}')


def adapter(folder: Path) -> None:
    empty(folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen3-0.6B"}')
    save_file({"a.lora_A.weight": torch.zeros(2, 2)}, folder / "adapter_model.safetensors")


def write_text(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


NAN = float("nan")
UP = "model.layers.1.mlp.up_proj.weight"
CODE = {"AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}

REFUSED: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no folder": (no_folder, ("no Hugging Face model folder",)),
    "a file": (a_file, ("no Hugging Face model folder", "a file")),
    "an empty folder": (empty, (CONFIG,)),
    "a folder that is no model": (no_model, (CONFIG, "model_type")),
    "config.json is no JSON": (write_text(CONFIG, "{"), (CONFIG, "line 1")),
    "config.json is a list": (write_text(CONFIG, "[]"), (CONFIG,)),
    "an adapter": (adapter, ("adapter_config.json", "adapter")),
    "an adapter beside a base": (write_text("adapter_config.json", "{}"), ("adapter_config.json",)),
    "an unknown architecture": (set_fields(CONFIG, model_type="mine"), (CONFIG, "model_type", "mine")),
    "an encoder-decoder": (set_fields(CONFIG, model_type="t5", is_encoder_decoder=True), (CONFIG, "t5")),
    "a classifier": (set_fields(CONFIG, architectures=["LlamaForSequenceClassification"]), (CONFIG, "architectures")),
    "a model without head": (set_fields(CONFIG, architectures=["LlamaModel"]), (CONFIG, "architectures")),
    "a masked language model": (
        set_fields(CONFIG, model_type="bert", architectures=["BertLMHeadModel"]),
        (CONFIG, "model_type", "bert", "causal"),
    ),
    "outputs as tuples": (set_fields(CONFIG, return_dict=False), (CONFIG, "return_dict", "False")),
    "attentions asked for": (set_fields(CONFIG, output_attentions=True), (CONFIG, "output_attentions")),
    "a tensor in two shards": (tensor_in_two_shards, ("is here too",)),
    "a length that is no number": (set_fields(TOKENIZER_CONFIG, model_max_length="x"), (TOKENIZER_CONFIG,)),
    "a template with a byte order mark": (
        lambda folder: (folder / TEMPLATE).write_text("\ufeff" + (folder / TEMPLATE).read_text()),
        (TEMPLATE, "byte order mark"),
    ),
    "a template that escapes": (
        lambda folder: (folder / TEMPLATE).write_text(
            (folder / TEMPLATE).read_text().replace("message['content']", "message['content'] | e")
        ),
        ("does not hold the question",),
    ),
    "an index without metadata": (
        lambda folder: (sharded(folder), edit_json(folder / INDEX, lambda index: index.pop("metadata"))),
        (INDEX, "metadata"),
    ),
    "a template in Latin-1": (
        lambda folder: (folder / TEMPLATE).write_bytes(b"{# f\xfcr #}" + (folder / TEMPLATE).read_bytes()),
        (TEMPLATE, "UTF-8"),
    ),
    "custom code": (set_fields(CONFIG, auto_map=CODE), (CONFIG, "auto_map")),
    "a tokenizer's custom code": (
        set_fields(TOKENIZER_CONFIG, auto_map={"AutoTokenizer": ["tokenization_mine.Mine", None]}),
        (TOKENIZER_CONFIG, "auto_map"),
    ),
    "quantised": (
        set_fields(CONFIG, quantization_config={"quant_method": "gptq", "bits": 4}),
        (CONFIG, "quantization_config", "gptq"),
    ),
    "whole numbers": (integers, (WEIGHTS, UP, "I8")),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), ("safetensors",)),
    "only .bin weights": (only_bin, ("pytorch_model.bin", "safetensors")),
    "truncated weights": (truncated, (WEIGHTS,)),
    "a pointer of git-lfs": (lfs_pointer, (WEIGHTS, "git lfs pull")),
    "a missing shard": (missing_shard, (INDEX, "model-00002-of-00002.safetensors")),
    "a missing tensor": (missing_tensor, (UP,)),
    "a tensor of another shape": (wrong_shape, (UP,)),
    "a layer more than the configuration has": (
        set_fields(CONFIG, num_hidden_layers=1, layer_types=None, max_window_layers=1),
        ("'model.layers.1.", "num_hidden_layers"),
    ),
    "biases that the configuration does not ask for": (biases, ("q_proj.bias'", "without them")),
    "weights that are a folder": (weights_are_a_folder, (WEIGHTS, "is a folder")),
    "weights that are a broken link": (weights_are_a_broken_link, (WEIGHTS, "gone, which is not there")),
    "a byte order mark": (byte_order_mark, (CONFIG, "byte order mark")),
    "a chat template that drops the system message": (
        write_text(TEMPLATE, NO_SYSTEM),
        ("system message", "'qwen25-math'"),
    ),
    "NaN": (set_value(UP, NAN), (WEIGHTS, UP, "NaN")),
    "infinity": (set_value(UP, float("-inf")), (WEIGHTS, UP, "infinite")),
    "all zeros": (all_zeros, (WEIGHTS, "zero")),
    "no tokenizer": (no_tokenizer, (TOKENIZER,)),
    "tokenizer.json is broken": (write_text(TOKENIZER, '{"version": "1.0"}'), (TOKENIZER,)),
    "no chat template": (no_chat_template, ("chat_template",)),
    "a chat template that fails": (write_text(TEMPLATE, "{{ raise_exception('no users') }}"), ("no users",)),
    "a chat template that is no Jinja": (write_text(TEMPLATE, "{% for %}"), ("chat_template",)),
    "a chat template that forgets the question": (write_text(TEMPLATE, "<user> <assistant>"), ("chat_template",)),
    "tokens beyond the embedding": (more_tokens, ("<think>", "embedding")),
    "no end-of-sequence token": (no_eos, ("eos_token",)),
    "an end-of-sequence token beyond the embedding": (
        set_fields(GENERATION, eos_token_id=[3, 99_999]),
        (GENERATION, "eos_token_id", "99999"),
    ),
    "an end-of-sequence token that is a word": (set_fields(GENERATION, eos_token_id="<end>"), ("eos_token_id",)),
    "generation_config.json is no JSON": (write_text(GENERATION, "do_sample: false"), (GENERATION,)),
}
"""Kind to its change and to words of the refusal."""

TAKEN: dict[str, Callable[[Path], object]] = {
    "as it is": lambda folder: None,
    "shards": sharded,
    "no pad token": no_pad,
    "greedy with a temperature": set_fields(GENERATION, do_sample=False, temperature=0.6, top_p=0.9, top_k=20),
    "several end-of-sequence tokens": set_fields(GENERATION, eos_token_id=[3, 7, 9]),
    "a generation_config.json of junk": set_fields(
        GENERATION, cache_implementation="junk", early_stopping="maybe", max_new_tokens=0, watermarking_config="x"
    ),
    "no generation_config.json": lambda folder: (folder / GENERATION).unlink(),
    "the tokenizer knows no end": set_fields(TOKENIZER_CONFIG, eos_token=None),
    "bfloat16": lambda folder: edit_weights(
        folder, lambda weights: weights.update({name: tensor.bfloat16() for name, tensor in weights.items()})
    ),
}
"""Kind to its change: what works, or is mended on loading."""
