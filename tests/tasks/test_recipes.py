"""Every recipe and every arm of it is complete and within bounds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from flows.versioning.workspace import NOT_RECIPES, preview
from tasks.parameters.arms import apply_settings, arm_settings
from tasks.parameters.experiment import Experiment, load_experiment

REPOSITORY = Path(__file__).parents[2]
RECIPES = sorted(path for path in (REPOSITORY / "recipes").glob("*.yaml") if path.stem not in NOT_RECIPES)
PAPER = [path for path in RECIPES if path.stem.startswith("qwen3-4b")]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe(path: Path) -> None:
    experiment = load_experiment(path)
    assert experiment.experiment == path.stem
    assert experiment.iterations % experiment.evaluate.every == 0, "the last iteration is evaluated"
    length = getattr(experiment.engine, "max_model_len", None)
    assert length is None or length > max(experiment.rollout.max_new_tokens, experiment.evaluate.max_new_tokens)


def test_every_recipe_is_there() -> None:
    assert {path.stem for path in RECIPES} == {
        *("microworld", "reflective", "smollm2", "smollm2-numbers"),
        *("qwen3-4b-deepmath", "qwen3-4b-deepscaler", "qwen3-0.6b-gsm8k"),
    }


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_paper_s_hyper_parameters(path: Path) -> None:
    """arXiv 2603.21877 and the scripts of its code, as shared/REFERENCE.md lists them."""
    e = load_experiment(path)
    assert (e.rollout.problems, e.rollout.samples, e.rollout.temperature) == (128, 6, 0.6)
    assert (e.rollout.max_new_tokens, e.rollout.prompt) == (12_288, "p2o")
    assert e.engine.max_model_len == 4_096 + 12_288  # type: ignore[union-attr]
    assert (e.distill.groups_per_minibatch, e.distill.learning_rate) == (64, 1e-6)
    assert (e.distill.clip_low, e.distill.clip_high, e.distill.dual_clip) == (0.2, 0.2, 3.0)
    assert (e.distill.aggregation, e.distill.normalize_std) == ("token-mean", True)
    assert (e.distill.template_mask, e.distill.template_ratio_low, e.distill.template_ratio_high) == ("hard", 0.01, 10)
    assert (e.distill.hard_groups, e.mine.near_hard, e.evolve.one_template_per_group) == ("templated", True, False)
    assert (e.evolve.min_hard, e.evolve.dev_size, e.evolve.minibatch, e.evolve.parents) == (100, 300, 3, 16)
    assert (e.evolve.max_metric_calls, e.evolve.reflector.max_new_tokens) == (11_040, 2_048)  # type: ignore[union-attr]
    epoch = 5_000 // 128
    assert e.iterations == 10 * epoch
    assert (e.mine.window, e.evolve.first, e.evolve.every) == (epoch, epoch, epoch)
    steps = e.iterations * 128 // 64
    assert (e.distill.warmup_steps, e.distill.weight_decay) == (round(0.05 * steps), 0.01)
    train, validation = e.prepare.train[0], e.prepare.heldout[0]  # type: ignore[union-attr]
    assert (train.limit, train.validation, train.draw_seed) == (5_000, 500, 42)
    same = {"limit": None, "tier": "validation"}
    assert validation == train.model_copy(update=same), "the two draws are of one shuffled whole"


def test_deepmath_is_balanced_as_published() -> None:
    train = load_experiment(REPOSITORY / "recipes/qwen3-4b-deepmath.yaml").prepare.train[0]  # type: ignore[union-attr]
    assert (train.name, train.min_difficulty) == ("deepmath-103k", 7)
    assert train.balance is not None
    assert (train.balance.yes_no, train.balance.power, train.balance.seed) == (0.05, 0.5, 42)


def test_the_set_of_ten_thousand_as_the_how_to_says_it() -> None:
    """The command in docs/how-to.md, on the recipe."""
    text = (REPOSITORY / "docs/how-to.md").read_text()
    command = next(line for line in text.replace("\\\n", " ").splitlines() if "prepare.train.limit=10000" in line)
    settings = dict(re.findall(r"--set ([\w.]+)=(\d+)", command))
    overrides = {name: int(value) for name, value in settings.items()}
    e, _ = preview(REPOSITORY, recipe="qwen3-4b-deepmath", overrides=overrides)
    epoch = 10_000 // 128
    assert e.prepare.train[0].limit == 10_000  # type: ignore[union-attr]
    assert e.iterations == 10 * epoch
    assert {e.mine.window, e.evolve.first, e.evolve.every, e.evaluate.every} == {epoch}
    assert e.distill.warmup_steps == round(0.05 * e.iterations * 2)


def test_an_adapter_in_place_of_all_weights() -> None:
    for path in PAPER:
        content = yaml.safe_load(path.read_text())
        apply_settings(content, arm_settings("p2o-lora", REPOSITORY))
        experiment = Experiment.model_validate(content)
        assert experiment.policy.type == "lora"
        assert experiment.distill.learning_rate == pytest.approx(1e-5)
