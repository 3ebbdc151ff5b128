"""The P²O algorithm as a library; it knows no Prefect, MLflow or DVC (import-linter checks it).

Start at ``iteration``: one iteration on one screen. Its steps, in order:

``rollout``      what is sampled and judged          ``engines``   what samples: embedded, vLLM, servers
``mining``       the hard set                        ``verify``    judges answers, in processes that can be killed
``cluster``      both of these spread over a Ray cluster
``search``       templates, by GEPA or online        ``cover``     the template set Z, a template for each rollout
``groups``       a problem's completions             ``advantages``  their group-relative advantages
``update``       the policy update, step by step     ``update_report``  what it did
``batch``        rows that share a prompt            ``microbatch``  the tensors of a step
``losses``       the mathematics of a step
``policy``       weights, LoRA adapter, log-probs    ``output_layer``  log-probs without the logits
``optimizer``    AdamW, its state kept between iterations
``finite``       stops on NaN and infinity           ``checkpoints``  an update goes on where it was killed
``sharding``     an update by several processes or GPUs, with torchrun
``witness``      whether an engine serves the policy that it was given
``transfer``     what bare training can take over of what a template brings

Beside them:

``types``        what flows between the steps        ``schemas``   its files, and the checks of bad input
``templates``    T(x, z) as text and chat turns      ``prompts``   T(x, z) as tokens
``demonstrations``  right answers that templates show  ``encoding``  special tokens are the chat template's alone
``config``       the settings, a section a stage     ``seeding``   all randomness
``evaluation``   avg@k, pass@k, maj@k                ``digests``   what a file holds, as one number
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
