"""A policy as a user brings it, looked at before anything is paid for.

``prepare`` and ``p2o doctor`` ask :func:`check_policy` about a Hugging Face folder. What transformers would load in
silence and train to nothing is refused: parts of the model that are not in the file come out random, a model that
knows no end writes to the limit, NaN solves no problem and makes every one hard.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers import logging as transformers_logging
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from p2o_core.config import PromptStyle
from p2o_core.output_layer import linear_head
from p2o_core.prompts import QUESTION, STOP_FILES, STYLES, Chat, saved_stop_ids
from p2o_core.schemas import BadInput, read_object
from tasks.problems.weight_check import AGAIN, check_weights

CONFIG, TOKENIZER_CONFIG, ADAPTER = "config.json", "tokenizer_config.json", "adapter_config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
CACHE = "past_key_values"
BUFFERS = ("rotary_emb.inv_freq", "masked_bias", "attn.bias", "attention.bias", "position_ids")
"""Ends of the names of tensors that older versions of transformers saved and newer ones compute."""
SAMPLE = "What is 12 + 30?"
RICH = 'Is 3 < 5 & "x"? Say why, and then\nwhat the sum of 4, 56 and 789 is.'
"""A question with what templates escape, cut off or replace."""


def check_policy(folder: Path, styles: Iterable[PromptStyle]) -> tuple[Chat, Any]:
    """Refuse a folder that is no policy which can be sampled from and trained; ``styles`` are the prompts to be made.
    Returns its chat and its model without values.

    Looked at in this order: the folder, its configuration, tokenizer and chat template, the shape of the weights, and
    every value. Nothing is run that the folder brings but its chat template, in Jinja's sandbox.

    Raises:
        BadInput: naming file, field or tensor, and the mend.
    """
    _check_config(folder)
    chat = _tokenizer(folder)
    with _contradictions(folder / TOKENIZER_CONFIG):
        check_chat(chat, folder, styles)
    check_weights(folder)
    model = _shapes(folder)
    _check_vocabulary(chat, model, folder)
    return chat, model


def check_chat(chat: Chat, folder: Path, styles: Iterable[PromptStyle]) -> None:
    """Refuse a tokenizer that knows no end or cannot write the prompts. Raises BadInput."""
    if not chat.stop_ids:
        raise BadInput(
            f"{folder / TOKENIZER_CONFIG}: field 'eos_token' is missing, and no 'eos_token_id' is in "
            f"{' or '.join(STOP_FILES)}: every answer would be cut off. Mend: name the token that ends an answer there."
        )
    if chat.tokenizer.chat_template is None:
        raise BadInput(
            f"{folder}: neither chat_template.jinja nor field 'chat_template' in {TOKENIZER_CONFIG}, so no prompt can "
            "be written. Mend: put the template of the instruct model of the same family there as chat_template.jinja."
        )
    for style in dict.fromkeys(styles):
        prompt, shape = chat.prompt_text(RICH, "", style), STYLES[style]
        if prompt.startswith("\ufeff"):
            raise BadInput(
                f"{folder}: every prompt would begin with a byte order mark. Mend: save chat_template.jinja as UTF-8 "
                "without one."
            )
        if shape.user.replace(QUESTION, RICH) not in prompt:
            raise BadInput(
                f"{folder}: what the chat_template makes of a question does not hold the question: {prompt[:200]!r}. "
                "Mend: correct chat_template.jinja; messages are texts, not lists of parts."
            )
        if shape.system not in prompt:
            raise BadInput(
                f"{folder}: the chat_template leaves out the system message of prompt style {style!r}: "
                f"{prompt[:200]!r}. Mend: correct chat_template.jinja, or choose a style without one (rollout.prompt, "
                "evaluate.prompt)."
            )


def _check_config(folder: Path) -> None:
    """Whether the folder holds a whole causal model that transformers knows by itself."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing is there"
        raise BadInput(
            f"{folder}: no Hugging Face model folder ({found}). Mend: correct prepare.policy in params.yaml."
        )
    if (folder / ADAPTER).exists():
        raise BadInput(
            f"{folder / ADAPTER}: this is a LoRA adapter, not a model. Mend: merge it into its base "
            "(peft's merge_and_unload, then save_pretrained) and name that folder; or delete the file if the folder "
            "holds a whole model."
        )
    path = folder / CONFIG
    if not path.exists():
        raise BadInput(
            f"{path}: no such file, so no Hugging Face model folder. Mend: correct prepare.policy, or copy "
            "the whole model there."
        )
    config = read_object(path)
    for name, wanted in (("return_dict", True), ("output_attentions", False), ("output_hidden_states", False)):
        if config.get(name, wanted) is not wanted:
            raise BadInput(
                f"{path}: field {name!r} is {config[name]!r}, with which the model cannot be sampled from. Mend: "
                "delete it."
            )
    _check_code(path, config)
    if (folder / TOKENIZER_CONFIG).exists():
        _check_code(folder / TOKENIZER_CONFIG, read_object(folder / TOKENIZER_CONFIG))
    quantised = config.get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise BadInput(
            f"{path}: field 'quantization_config': the weights are quantised ({method}) and cannot be trained. Mend: "
            "take the model they were made from."
        )
    _check_architecture(path, config)
    for name in STOP_FILES:
        saved_stop_ids(folder / name)


def _check_code(path: Path, content: dict[str, Any]) -> None:
    if "auto_map" in content:
        raise BadInput(
            f"{path}: field 'auto_map' asks for code that the model brings along ({str(content['auto_map'])[:120]}); "
            "none is ever run. Mend: if transformers knows this architecture itself, delete the field; otherwise take "
            "another model."
        )


def _check_architecture(path: Path, config: dict[str, Any]) -> None:
    kind, named = config.get("model_type"), config.get("architectures")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING_NAMES:
        known = "is missing" if kind is None else f"is {kind!r}, which this version of transformers does not know"
        raise BadInput(f"{path}: field 'model_type' {known}. Mend: take a model of an architecture that it knows.")
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    with _contradictions(path):
        loaded = AutoConfig.from_pretrained(str(path.parent), trust_remote_code=False)
    looks_ahead = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not loaded.is_decoder
    if causal is None or loaded.is_encoder_decoder or looks_ahead:
        raise BadInput(
            f"{path}: field 'model_type' is {kind!r}, no causal language model (decoder only). Mend: take one that is."
        )
    if named is not None and causal.lower() not in [str(name).lower() for name in named]:
        raise BadInput(
            f"{path}: field 'architectures' is {named}; a policy needs {causal}, with its output layer. Mend: take the "
            "language model itself, not its trunk, a classifier or a reward model."
        )


def _tokenizer(folder: Path) -> Chat:
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise BadInput(
            f"{folder}: no tokenizer ({', '.join(TOKENIZERS[:3])} …). Mend: copy the model's tokenizer.json, "
            f"{TOKENIZER_CONFIG} and chat template there."
        )
    try:
        chat = Chat.load(folder)
        if not isinstance(length := chat.tokenizer.model_max_length, int | float):
            raise BadInput(
                f"{folder / TOKENIZER_CONFIG}: field 'model_max_length' is {length!r}, no number. Mend: correct it."
            )
        return chat
    except BadInput:
        raise
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{folder}: a file of the tokenizer is no UTF-8 ({error.reason} at byte {error.start}), perhaps "
            "chat_template.jinja. Mend: save it as UTF-8."
        ) from error
    except Exception as error:  # tokenizers raises bare ones, and KeyError for what it misses
        raise BadInput(
            f"{folder}: the tokenizer cannot be read from tokenizer.json or its like ({type(error).__name__}: "
            f"{str(error)[:200]}). Mend: download its files again, or save it anew with save_pretrained."
        ) from error


def _shapes(folder: Path) -> Any:
    """The model without its values, every tensor of it found in the files with the right shape."""
    with _contradictions(folder / CONFIG), _silent():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder),
            device_map="meta",
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # refused here, with their names
            generation_config=GenerationConfig(),  # nothing in the file counts but the stop tokens
            output_loading_info=True,
        )
    model, report = loaded
    _check_report(report, folder)
    if CACHE not in inspect.signature(model.forward).parameters:
        raise BadInput(
            f"{folder / CONFIG}: {type(model).__name__} takes no {CACHE}, which sampling needs. Mend: "
            "take a transformer, not a recurrent model."
        )
    try:
        linear_head(model)
    except ValueError as error:
        raise BadInput(f"{folder / CONFIG}: {error}") from error
    return model


def _check_report(report: dict[str, Any], folder: Path) -> None:
    """transformers' report on a loading: what it would make up is refused, and what it would leave out: a layer beyond
    num_hidden_layers, biases or norms that another configuration would ask for."""
    if report["missing_keys"]:
        names = sorted(report["missing_keys"])
        raise BadInput(
            f"{folder}: the weights lack {len(names)} tensors that {CONFIG} asks for, first {names[0]!r}; they would "
            f"be random. Mend: {AGAIN}, or correct {CONFIG}."
        )
    if report["mismatched_keys"]:
        name, found, asked = sorted(report["mismatched_keys"], key=lambda key: key[0])[0]
        raise BadInput(
            f"{folder}: tensor {name!r} has shape {list(found)}, {CONFIG} asks for {list(asked)}. Mend: use the "
            f"{CONFIG} that belongs to these weights."
        )

    if left_out := sorted(name for name in report["unexpected_keys"] if not name.endswith(BUFFERS)):
        raise BadInput(
            f"{folder}: the weights have {len(left_out)} tensors that {CONFIG} does not ask for, first "
            f"{left_out[0]!r}: the model would be loaded without them. Mend: correct {CONFIG} (num_hidden_layers, "
            f"biases), or {AGAIN}; "
            "or take them out, if they are none of the model's own (a value head)."
        )


def _check_vocabulary(chat: Chat, model: Any, folder: Path) -> None:
    """No token that a prompt or an end may need lies beyond the embedding."""
    rows = model.get_input_embeddings().weight.shape[0]
    vocabulary = chat.tokenizer.get_vocab()
    if strangers := sorted((token for token, id_ in vocabulary.items() if id_ >= rows), key=vocabulary.__getitem__):
        raise BadInput(
            f"{folder / 'tokenizer.json'}: field 'added_tokens': {', '.join(map(repr, strangers[:4]))} have ids from "
            f"{vocabulary[strangers[0]]} on, the embedding has {rows} rows: a text with one of them would end the run. "
            "Mend: take them out (special tokens of tokenizer_config.json that the vocabulary lacks are added too), "
            "or resize the embedding (model.resize_token_embeddings(len(tokenizer))) and train the new rows."
        )
    for name in STOP_FILES:
        if beyond := [id_ for id_ in saved_stop_ids(folder / name) if id_ >= rows]:
            raise BadInput(
                f"{folder / name}: field 'eos_token_id' has {beyond[0]}, the embedding {rows} rows. Mend: write the "
                "ids of this model's own end-of-sequence tokens."
            )


@contextmanager
def _contradictions(path: Path) -> Iterator[None]:
    """Around transformers' reading of a configuration: fields that contradict each other end in any kind of error."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(
            f"{path}: transformers makes no model of it ({type(error).__name__}: {str(error)[:300]}). Mend: correct "
            "the field, or download the file again."
        ) from error


@contextmanager
def _silent() -> Iterator[None]:
    """Without transformers' progress bars and its report on what is missing: it is said here."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
