from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from p2o_core.advantages import group_advantages

reward = st.floats(-2, 2, width=32)


@given(st.lists(st.lists(reward, min_size=2, max_size=6), min_size=1, max_size=5), st.booleans())
def test_agrees_with_the_definition(groups: list[list[float]], normalize: bool) -> None:
    rewards = torch.tensor([r for group in groups for r in group])
    index = torch.tensor([i for i, group in enumerate(groups) for _ in group])
    expected = []
    for group in groups:
        values = torch.tensor(group)
        centred = values - values.mean()
        if len(set(group)) == 1:
            centred = torch.zeros(len(group))
        expected.append(centred / (values.std() + 1e-6) if normalize else centred)
    torch.testing.assert_close(
        group_advantages(rewards, index, normalize_std=normalize), torch.cat(expected), rtol=1e-4, atol=1e-5
    )


@given(reward, st.integers(1, 64))
def test_equal_rewards_give_exactly_zero(value: float, size: int) -> None:
    """0.1 summed and divided is not 0.1 again: without care 1e-9 / 1e-6 would be a signal."""
    advantages = group_advantages(torch.full((size,), value), torch.zeros(size, dtype=torch.long))
    assert (advantages == 0).all()


def test_groups_may_be_interleaved() -> None:
    advantages = group_advantages(torch.tensor([1.0, 5.0, 0.0, 5.0]), torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(advantages, torch.tensor([0.7071, 0.0, -0.7071, 0.0]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("bad", [torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("inf")])])
def test_refuses_rewards_that_are_not_finite(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        group_advantages(bad, torch.zeros(2, dtype=torch.long))


def test_refuses_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"\[N\]"):
        group_advantages(torch.zeros(3), torch.zeros(2, dtype=torch.long))
