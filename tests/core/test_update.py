from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from p2o_core.batch import Batch
from p2o_core.config import DistillConfig, FullPolicy, LoraPolicy
from p2o_core.groups import Group, TrainingSample
from p2o_core.optimizer import PolicyOptimizer
from p2o_core.policy import Policy
from p2o_core.update import update_policy

CONFIG = DistillConfig(learning_rate=1e-3, groups_per_minibatch=2, tokens_per_microbatch=64)
TEMPLATE = "Do not stop early."


def rollout(
    policy: Policy,
    text: str,
    reward: float,
    template: str = "",
    question: str = "sum 4 a+5 ?",
    temperature: float = 1.0,
) -> TrainingSample:
    """A completion with the log-probs of the context it was sampled under."""
    ids = (*policy.chat.tokenizer(text, add_special_tokens=False)["input_ids"], policy.chat.eos_id)
    prompt = policy.chat.encode_prompt(question, template)
    with torch.no_grad():
        logits = policy.model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    logps = (logits / temperature).log_softmax(-1).gather(1, torch.tensor(ids).unsqueeze(1)).squeeze(1)
    return TrainingSample(
        problem_id=question,
        prompt_ids=policy.chat.encode_prompt(question),
        completion_ids=ids,
        sampling_logps=tuple(logps.tolist()),
        reward=reward,
        templated=bool(template),
    )


def mixed_groups(policy: Policy, count: int = 4, temperature: float = 1.0) -> list[Group]:
    """Groups as P²O has them: bare failures and a templated success."""
    groups = []
    for start in range(count):
        question = f"sum {start} a+5 b+2 ?"
        answers = (
            (f"a +5 {start + 5} \\boxed{{ {start + 5} }}", 0.0, ""),
            (f"\\boxed{{ {start} }}", 0.0, ""),
            (f"a +5 {start + 5} b +2 {start + 7} \\boxed{{ {start + 7} }}", 1.0, TEMPLATE),
        )
        groups.append([rollout(policy, *answer, question, temperature) for answer in answers])
    return groups


def flat_group(policy: Policy, reward: float) -> Group:
    return [rollout(policy, f"\\boxed{{ {n} }}", reward, question="sum 9 a+8 ?") for n in (1, 2, 3)]


def weights(policy: Policy) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in policy.trainable_parameters().values()])


def update(policy: Policy, groups: list[Group], config: DistillConfig = CONFIG, seed: int = 0):
    return update_policy(policy, PolicyOptimizer(policy, config), groups, config, temperature=1.0, seed=seed)[0]


def test_groups_without_variance_contribute_exactly_nothing(base_folder: Path) -> None:
    """With and without them the new weights are equal to the last bit."""
    with_them, without = (Policy.create(base_folder, FullPolicy(), seed=0) for _ in range(2))
    groups = mixed_groups(with_them)
    flat = [flat_group(with_them, 0.0), flat_group(with_them, 1.0), flat_group(with_them, 0.1)]
    report = update(with_them, [*flat[:2], *groups, flat[2]])
    update(without, groups)
    assert report.groups_with_signal == 4
    assert torch.equal(weights(with_them), weights(without))


def test_no_signal_is_said_and_changes_nothing(full_policy: Policy) -> None:
    before = weights(full_policy)
    report = update(full_policy, [flat_group(full_policy, 0.0)])
    assert (report.status, report.steps, report.planned_steps) == ("no_signal", 0, 0)
    assert torch.equal(weights(full_policy), before)


def test_success_becomes_likelier_at_the_bare_prompt(policy: Policy) -> None:
    groups = mixed_groups(policy)
    margins = [_bare_logp(policy, group[2]) - _bare_logp(policy, group[1]) for group in groups]
    report = update(policy, groups)
    assert (report.status, report.steps, report.planned_steps) == ("updated", 2, 2)
    for group, margin in zip(groups, margins, strict=True):
        assert _bare_logp(policy, group[2]) - _bare_logp(policy, group[1]) > margin


def _bare_logp(policy: Policy, rollout: TrainingSample) -> float:
    with torch.no_grad():
        ids = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]])
        logits = policy.model(ids).logits[0, len(rollout.prompt_ids) - 1 : -1]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(rollout.completion_ids).unsqueeze(1)).sum())


class GradientCatcher(PolicyOptimizer):
    """Keeps the gradient instead of stepping."""

    def step(self) -> float:
        self.caught = {name: p.grad.clone() for name, p in self.parameters.items() if p.grad is not None}
        self.steps_done += 1
        return 0.0


@pytest.mark.parametrize("context", ["bare", "templated"])
def test_the_gradient_is_taken_at_its_context(base_folder: Path, context: str) -> None:
    """Finite differences of an objective written down independently, one unpadded row at a time, in float64:
    under context distillation the update's gradient is the gradient at the bare prompt, and only there."""
    policy = Policy.create(base_folder, FullPolicy(), seed=0)
    policy.model.double()
    groups = mixed_groups(policy, count=2, temperature=0.9)
    if context == "templated":
        groups = [
            [
                replace(r, prompt_ids=policy.chat.encode_prompt(r.problem_id, TEMPLATE if r.templated else ""))
                for r in group
            ]
            for group in groups
        ]
    config = CONFIG.model_copy(update={"context": context})
    catcher = GradientCatcher(policy, config)
    update_policy(policy, catcher, groups, config, temperature=0.9, seed=0)

    advantage = {0.0: -(1 / 3) / (3**-0.5 + 1e-6), 1.0: (2 / 3) / (3**-0.5 + 1e-6)}
    rows = [r for group in groups for r in group]
    tokens = sum(len(r.completion_ids) for r in rows)

    def objective(prompt_of) -> float:
        """Sum over tokens of A * log pi: at the start of the update its gradient is that of the surrogate."""
        total = 0.0
        for row in rows:
            prompt = prompt_of(row)
            with torch.no_grad():
                logits = policy.model(torch.tensor([[*prompt, *row.completion_ids]])).logits[0]
            logps = (logits[len(prompt) - 1 : -1] / 0.9).log_softmax(-1)
            total += advantage[row.reward] * float(logps.gather(1, torch.tensor(row.completion_ids).unsqueeze(1)).sum())
        return -total / tokens

    bare = lambda r: policy.chat.encode_prompt(r.problem_id)  # noqa: E731
    templated = lambda r: policy.chat.encode_prompt(r.problem_id, TEMPLATE if r.templated else "")  # noqa: E731
    right, wrong = (bare, templated) if context == "bare" else (templated, bare)
    parameters = policy.trainable_parameters()
    generator = torch.Generator().manual_seed(0)
    direction = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in parameters.items()}

    def slope(prompt_of, step: float = 1e-5) -> float:
        values = []
        for sign in (1, -2):  # to +step, then back to -step
            for name, parameter in parameters.items():
                parameter.data.add_(sign * step * direction[name])
            values.append(objective(prompt_of))
        for name, parameter in parameters.items():
            parameter.data.add_(step * direction[name])
        return (values[0] - values[1]) / (2 * step)

    analytic = sum(float((catcher.caught[n] * direction[n]).sum()) for n in parameters)
    assert analytic == pytest.approx(slope(right), rel=1e-3)
    assert analytic != pytest.approx(slope(wrong), rel=1e-3)


def test_microbatches_do_not_change_the_update(base_folder: Path) -> None:
    small, large = (Policy.create(base_folder, FullPolicy(), seed=0) for _ in range(2))
    groups = mixed_groups(small)
    update(small, groups, CONFIG.model_copy(update={"tokens_per_microbatch": 16}))
    update(large, groups, CONFIG.model_copy(update={"tokens_per_microbatch": 100_000}))
    torch.testing.assert_close(weights(small), weights(large), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", [FullPolicy(), LoraPolicy(rank=4)], ids=["full", "lora"])
def test_interrupted_equals_uninterrupted(base_folder: Path, tmp_path: Path, config) -> None:
    """Weights, AdamW's moments and the warm-up's place survive a save and a load, bit for bit."""
    settings = CONFIG.model_copy(update={"warmup_steps": 3})
    policy = Policy.create(base_folder, config, seed=0)
    optimizer = PolicyOptimizer(policy, settings)
    groups = mixed_groups(policy)
    update_policy(policy, optimizer, groups, settings, temperature=1.0, seed=1)
    policy.save(tmp_path)
    optimizer.save(tmp_path / "optimizer")
    update_policy(policy, optimizer, groups, settings, temperature=1.0, seed=2)

    resumed = Policy.load(tmp_path, base_folder, config)
    continued = PolicyOptimizer(resumed, settings)
    continued.load(tmp_path / "optimizer")
    assert continued.steps_done == 2
    update_policy(resumed, continued, groups, settings, temperature=1.0, seed=2)
    assert torch.equal(weights(policy), weights(resumed))


def test_the_mask_drops_tokens_the_bare_prompt_would_never_write(base_folder: Path) -> None:
    """Sampling log-probs far above the bare ones put the ratio below its bound; bare rows are never masked."""
    policy = Policy.create(base_folder, FullPolicy(), seed=0)
    (group,) = mixed_groups(policy, count=1)
    shifted = [replace(r, sampling_logps=tuple(0.0 for _ in r.sampling_logps)) if r.templated else r for r in group]
    report = update(policy, [shifted])
    templated_share = len(group[2].completion_ids) / sum(len(r.completion_ids) for r in group)
    assert report.metrics["template_masked_fraction"] == pytest.approx(templated_share, abs=1e-6)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(full_policy: Policy) -> None:
    groups = mixed_groups(full_policy)
    groups[0][0] = replace(groups[0][0], sampling_logps=(float("nan"),) * len(groups[0][0].completion_ids))
    before = weights(full_policy)
    with pytest.raises(FloatingPointError, match="weights were not changed"):
        update(full_policy, groups, CONFIG.model_copy(update={"groups_per_minibatch": 8}))
    assert torch.equal(weights(full_policy), before)


def test_supervised_fine_tuning_is_cross_entropy_on_right_answers(policy: Policy) -> None:
    """Of mixed and of all-right groups alike, at temperature 1, whatever the answers were sampled at."""
    groups = [*mixed_groups(policy, 2, temperature=0.7), flat_group(policy, 1.0), flat_group(policy, 0.0)]
    right = [sample for group in groups for sample in group if sample.reward]
    batch = Batch.collate([s.prompt_ids for s in right], [s.completion_ids for s in right], policy.chat.pad_id)
    counts = batch.completion_mask.bool()
    logits = policy.model(batch.input_ids).logits.flatten(0, 1)[batch.predicted_by[counts]]
    expected = torch.nn.functional.cross_entropy(logits, batch.completion_ids[counts])
    gradient = torch.autograd.grad(expected, list(policy.trainable_parameters().values()))
    norm = torch.stack([part.norm() for part in gradient]).norm()

    config = CONFIG.model_copy(update={"loss": "sft", "groups_per_minibatch": 9, "learning_rate": 1e-4})
    report, _ = update_policy(policy, PolicyOptimizer(policy, config), groups, config, temperature=0.7, seed=0)
    assert (report.groups_with_signal, report.rollouts_trained, report.steps) == (3, 5, 1)
    assert report.metrics["loss"] == pytest.approx(expected.item(), rel=1e-4)
    assert report.metrics["cross_entropy"] == pytest.approx(expected.item(), rel=1e-4)
    assert report.metrics["gradient_norm"] == pytest.approx(norm.item(), rel=1e-3)
