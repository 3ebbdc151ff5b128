"""The policy: which weights are trained, and in which precision."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from p2o_core.config.section import Dtype, Section, variant_of


class PolicySection(Section):
    """What full fine-tuning and LoRA share."""

    dtype: Dtype = Field("float32", description="of the weights the trainer keeps")
    compute_dtype: Dtype | None = Field(
        None,
        description="of arithmetic and engine, dtype's by default; bfloat16 beside float32 weights is mixed precision: "
        "a step of 1e-6 is lost in bfloat16 weights",
    )
    checkpointing: bool = Field(
        False, description="activations are computed again in the backward pass: a third more time, far less memory"
    )
    device: str = Field("cpu", pattern=r"^(cpu|mps|(cuda|xpu)(:\d+)?)$", description="torch device; cuda:0 for a GPU")
    processes: PositiveInt = Field(
        1,
        description="processes that update the policy together, on CUDA each with a GPU of its own, from 0; the last "
        "bits depend on it, but nothing finished is made again, and a killed update goes on with any number",
    )
    attention: Literal["sdpa", "eager"] = Field("sdpa", description="transformers attention implementation")

    @property
    def engine_dtype(self) -> Dtype:
        """What engines compute in, and the trainer's forward pass."""
        return self.compute_dtype or self.dtype


class FullPolicy(PolicySection):
    """All weights are trained."""

    type: Literal["full"] = "full"


class LoraPolicy(PolicySection):
    """A LoRA adapter (arXiv 2106.09685) on all linear layers of the frozen base policy. No dropout: old and new
    log-probs must come from the same function."""

    type: Literal["lora"] = "lora"
    rank: PositiveInt = Field(16, description="rank of A and B")
    alpha: PositiveInt = Field(32, description="scale alpha / rank; twice the rank is common practice")


PolicyConfig = FullPolicy | LoraPolicy
AnyPolicy = Annotated[PolicyConfig, Field(discriminator="type"), variant_of("full")]
