"""What runs inside a vLLM server so that it takes full weights between iterations: ``--worker-extension-cls``."""

from __future__ import annotations

from typing import Any

import torch


class PolicySwap:
    """vLLM gives its workers this class as a base; ``POST /collective_rpc`` calls its methods by name."""

    model_runner: Any
    served_policy = ""
    """Name of the one whose weights were read last; blank for those it was started with, or none after a failure."""

    def serve_policy(self, folder: str, name: str) -> str:
        """Read the weights in ``folder``, which are the policy ``name``, unless it is served already. Returns the name
        of what is served."""
        if self.served_policy != name:
            self.served_policy = ""
            self.model_runner.reload_weights(weights_path=folder)
            model = self.model_runner.get_model()
            if next(model.parameters()).device.type == "cpu":
                repack_tied_output(model)
            self.served_policy = name
        return self.served_policy


def repack_tied_output(model: torch.nn.Module) -> None:
    """Pack the output layer again after a reload. On CPU vLLM computes with packed copies of its matrices and repacks
    only the layers it read weights for; an output layer tied to the embedding would keep the old ones (vLLM 0.32)."""
    output = getattr(model, "lm_head", None)
    if output is not None and hasattr(output, "quant_method"):
        output.quant_method.process_weights_after_loading(output)
