"""A policy behind MLflow's pyfunc interface, without its weights: ``MLmodel`` and a pointer to the folder with them.

``mlflow models serve`` and ``mlflow.pyfunc.load_model`` load it on a machine that has the workspace's files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2o_core.digests import digest
from p2o_core.schemas import BadInput, read_record, write_record, write_text
from tasks.parameters.experiment import load_experiment
from tasks.running.layout import Layout
from tasks.running.runtime import Runtime

if TYPE_CHECKING:
    from tasks.parameters.experiment import Experiment

POINTER = "policy.json"
MLMODEL = f"""flavors:
  python_function:
    loader_module: flows.tracking.served
    data: {POINTER}
"""


@dataclass(frozen=True)
class Pointer:
    """Where a policy lies, and the digest it has to have."""

    workspace: str
    iteration: int
    policy: str


def write_model(folder: Path, experiment: Experiment, layout: Layout, iteration: int, policy: str) -> None:
    """What MLflow keeps of a policy: two small files, the same ones each time."""
    write_text(folder / "MLmodel", MLMODEL)
    write_record(folder / POINTER, Pointer(str(layout.workspace), iteration, policy))


class ServedPolicy:
    """Answers questions as an evaluation would: its prompt, its temperature, one completion each."""

    def __init__(self, experiment: Experiment, layout: Layout, iteration: int) -> None:
        self.experiment, self.layout, self.iteration = experiment, layout, iteration
        self.runtime = Runtime()

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[str]:
        """Completions of the texts in a column ``question``, or in the first one."""
        from p2o_core.engines.base import RolloutRequest, Sampling

        column = model_input["question"] if "question" in model_input else model_input.iloc[:, 0]
        settings, seed = self.experiment.evaluate, int((params or {}).get("seed", 0))
        folder, base = self.layout.iteration(self.iteration) / "policy", self.layout.base / "policy"
        engine = self.runtime.engine(folder, base, self.experiment)
        requests = [
            RolloutRequest(str(row), str(question), "", (0,), seed, settings.prompt)
            for row, question in enumerate(column)
        ]
        completions = engine.generate(requests, Sampling(settings.temperature, settings.max_new_tokens))
        return [completion.text for completion in completions]


def _load_pyfunc(path: str) -> ServedPolicy:
    """MLflow's entry. Raises BadInput: the policy is not where it was, or not what it was."""
    pointer = read_record(Path(path), Pointer)
    workspace = Path(pointer.workspace)
    experiment = load_experiment(workspace / "params.yaml")
    layout = Layout(workspace, experiment.experiment)
    policy = layout.iteration(pointer.iteration) / "policy"
    if not policy.exists() or digest(policy) != pointer.policy:
        raise BadInput(
            f"{policy}: not the policy that was registered ({pointer.policy[:12]}). Mend: bring it back, with "
            f"`dvc pull` or `p2o run` in {workspace}, or register what lies there: `p2o promote --candidate`."
        )
    return ServedPolicy(experiment, layout, pointer.iteration)
