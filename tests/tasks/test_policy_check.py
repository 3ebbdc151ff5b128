"""Folders that users bring as base policy: what is refused, what is taken, and that the end is known everywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from p2o_core.config import FullPolicy, LoraPolicy
from p2o_core.digests import digest
from p2o_core.engines.base import PolicyNotFinite, RolloutRequest, Sampling
from p2o_core.engines.embedded import EmbeddedEngine
from p2o_core.policy import Policy
from p2o_core.prompts import Chat
from p2o_core.schemas import BadInput
from tasks.problems import weight_check
from tasks.problems.base_policy import FolderPolicy
from tasks.problems.policy_check import check_policy
from tests.policies import GENERATION, REFUSED, TAKEN, TEMPLATE, UP, WEIGHTS, set_fields, set_value

STYLES = ("plain", "p2o", "qwen25-math")
REQUESTS = [RolloutRequest(f"p{n}", f"sum {n} a+5 b+2 ?", "", tuple(range(8)), 7) for n in range(4)]
SAMPLING = Sampling(1.0, 40)


@pytest.fixture
def folder(base_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny policy, to be changed."""
    return Path(shutil.copytree(base_folder, tmp_path / "policy"))


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_file_field_and_mend(folder: Path, kind: str) -> None:
    change, words = REFUSED[kind]
    change(folder)
    with pytest.raises(BadInput) as refusal:
        FolderPolicy(path=Path(folder.name)).load(folder.parent, STYLES)
    assert str(folder) in str(refusal.value)
    assert all(word in str(refusal.value) for word in (*words, "Mend: ")), str(refusal.value)


@pytest.mark.parametrize("kind", TAKEN)
def test_taken_saved_and_sampled_from(folder: Path, kind: str, tmp_path: Path) -> None:
    TAKEN[kind](folder)
    policy = FolderPolicy(path=Path(folder.name)).load(folder.parent, STYLES)
    policy.save(tmp_path / "saved")
    check_policy(tmp_path / "saved", STYLES)
    again = Policy.load(tmp_path / "saved", tmp_path / "saved", FullPolicy())
    assert again.chat.stop_ids == policy.chat.stop_ids == Chat.load(folder).stop_ids
    again.save(tmp_path / "again")
    assert digest(tmp_path / "again") == digest(tmp_path / "saved")
    rows = [EmbeddedEngine(p, rows_per_batch=64).generate(REQUESTS, SAMPLING) for p in (policy, again)]
    assert rows[0] == rows[1]
    settings = json.loads((tmp_path / "saved" / GENERATION).read_text())
    assert not {"temperature", "top_p", "top_k", "do_sample"} & set(settings), "sampling is params.yaml's alone"


def test_a_style_that_the_chat_template_does_not_take(folder: Path) -> None:
    """Gemma's, for one, refuses system messages: only the style that has one is refused."""
    no_system = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    (folder / TEMPLATE).write_text(no_system + (folder / TEMPLATE).read_text())
    check_policy(folder, ("plain", "p2o"))
    with pytest.raises(BadInput, match=r"a system message \(TemplateError: no system role\).*qwen25-math"):
        check_policy(folder, ("plain", "qwen25-math"))


def ends(folder: Path) -> tuple[int, ...]:
    """Three tokens that a policy often writes, besides its own end."""
    completions = EmbeddedEngine(Policy.create(folder, FullPolicy(), seed=0), rows_per_batch=64).generate(
        REQUESTS, SAMPLING
    )
    written = [token for completion in completions for token in completion.token_ids]
    return tuple(sorted(set(written), key=lambda token: (-written.count(token), token))[:3])


@pytest.mark.parametrize("place", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("config", [FullPolicy(), LoraPolicy(rank=4)], ids=["full", "lora"])
def test_every_end_of_sequence_token_ends(
    folder: Path, place: str, config: FullPolicy | LoraPolicy, tmp_path: Path
) -> None:
    """Wherever the model names it: a completion ends with the first of them, and its text is without it."""
    own = Chat.load(folder).eos_id
    extra = ends(folder)
    set_fields(place, eos_token_id=list(extra) if place == GENERATION else extra[0])(folder)
    expected = {own, *(extra if place == GENERATION else extra[:1])}
    Policy.create(folder, config, seed=0).save(tmp_path / "saved")
    policy = Policy.load(tmp_path / "saved", folder, config)
    assert set(policy.chat.stop_ids) == expected
    assert policy.chat.eos_id == own
    completions = EmbeddedEngine(policy, rows_per_batch=64).generate(REQUESTS, SAMPLING)
    assert {completion.token_ids[-1] for completion in completions if not completion.truncated} >= set(extra[:1])
    for completion in completions:
        *inner, last = completion.token_ids
        assert not expected & set(inner)
        assert completion.truncated == (last not in expected)
        assert completion.truncated == (len(completion.token_ids) == SAMPLING.max_new_tokens) or last in expected
        written = inner if last in expected else completion.token_ids
        assert completion.text == policy.chat.tokenizer.decode(list(written), skip_special_tokens=True)


def test_padding_without_a_pad_token_changes_nothing(folder: Path) -> None:
    before = EmbeddedEngine(Policy.create(folder, FullPolicy(), seed=0), rows_per_batch=64)
    expected = before.generate(REQUESTS, SAMPLING)
    TAKEN["no pad token"](folder)
    policy = Policy.create(folder, FullPolicy(), seed=0)
    assert policy.chat.tokenizer.pad_token_id is None
    assert EmbeddedEngine(policy, rows_per_batch=64).generate(REQUESTS, SAMPLING) == expected


def test_values_are_read_slice_by_slice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last value of a matrix counts wherever the slices end, in every precision, also in a vector."""
    monkeypatch.setattr(weight_check, "SLICE", 100)
    weights = load_file(folder / WEIGHTS)
    for name in (UP, "model.norm.weight"):
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            spoilt = {key: value.to(dtype, copy=True) for key, value in weights.items()}
            save_file(spoilt, folder / WEIGHTS, metadata={"format": "pt"})
            weight_check.check_weights(folder)
            spoilt[name].view(-1)[-1] = float("nan")
            save_file(spoilt, folder / WEIGHTS, metadata={"format": "pt"})
            with pytest.raises(BadInput, match=f"'{name}' holds NaN"):
                weight_check.check_weights(folder)


@pytest.mark.parametrize("temperature", [1.0, 0.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_policy_that_gives_no_numbers_is_no_set_of_hard_problems(
    folder: Path, value: float, temperature: float
) -> None:
    """The engine says so at the first token, with the rows, instead of completions that are all wrong."""
    set_value("model.embed_tokens.weight", value)(folder)
    engine = EmbeddedEngine(Policy.create(folder, FullPolicy(), seed=0), rows_per_batch=64)
    with pytest.raises(PolicyNotFinite, match="p0, p1, p2, p3") as raised:
        engine.generate(REQUESTS, Sampling(temperature, 8))
    assert [completion.problem_id for completion in raised.value.completions] == [
        request.problem_id for request in REQUESTS for _ in request.samples
    ]
    assert all(len(completion.token_ids) == 1 for completion in raised.value.completions)
