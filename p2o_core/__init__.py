"""The P²O algorithm as a library; it knows no Prefect, MLflow or DVC (import-linter checks it).

Start at ``iteration``: one iteration on one screen. Its lines, in order::

    rollout      what is sampled and judged      engines/   who samples         verify/     math-verify, killable
    mining       the hard set                    search/    GEPA over templates
    cover        the template set Z              prompts    T(x, z) as tokens   templates   T(x, z) as text
    groups       a problem's completions         advantages
    update       the training step               microbatch its tensors         losses      its mathematics
    policy       weights, LoRA, log-probs        optimizer  checkpoints         finite      update_report

Beside them: ``types`` (what flows between the steps), ``schemas`` (its files), ``config`` (settings), ``seeding`` (all
randomness), ``evaluation`` (avg@k, pass@k), ``policy_check`` and ``weight_check`` (a base policy before it is used),
``statistics`` and ``digests``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2o_core.iteration import Iteration, IterationConfig, Memory, p2o_iteration

__all__ = ["Iteration", "IterationConfig", "Memory", "p2o_iteration"]


def __getattr__(name: str) -> Any:
    """``from p2o_core import p2o_iteration`` imports torch; ``import p2o_core`` does not (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from p2o_core import iteration

    return getattr(iteration, name)
