"""What of a finished iteration MLflow keeps beside its points: templates, policy, traces. All of it is read from the
artefacts, and delivered again after a kill it is what it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.tracing.client import TracingClient

from flows.tracking.models import log_policy
from flows.tracking.notes import KEY_TAG
from flows.tracking.prompts import Prompts, prompt_name, register_templates
from flows.tracking.traces import log_traces

if TYPE_CHECKING:
    from tasks.parameters.experiment import Experiment
    from tasks.running.layout import Layout


@dataclass(frozen=True)
class Finished:
    """An iteration that is whole on disk and has its run. ``mark`` is the digest of its closing manifests, ``at`` the
    time of its points in ms."""

    experiment: Experiment
    layout: Layout
    iteration: int
    parent: Run
    child: Run
    mark: str
    at: int

    @property
    def folder(self) -> Path:
        return self.layout.iteration(self.iteration)

    @property
    def key(self) -> str:
        """By which the experiment's run is found."""
        return str(self.parent.data.tags[KEY_TAG])


class Records:
    """Delivers the records of one experiment's iterations, in order; the store is asked once for the prompt's versions
    it has."""

    def __init__(self, client: MlflowClient, tracing: TracingClient, experiment: Experiment, parent: Run) -> None:
        self.client = client
        self.tracing = tracing
        self.experiment = experiment
        self.parent = parent
        self._prompts: Prompts | None = None

    def deliver(self, done: Finished) -> None:
        """Raises what the store does."""
        if self.experiment.tracking.registry:
            log_policy(self.client, done)
            if self.experiment.evolve.enabled:
                register_templates(self.client, self.prompts(done), done)
        if self.experiment.tracking.traces and done.iteration:
            log_traces(self.tracing, self._prompts, done)

    def prompts(self, done: Finished) -> Prompts:
        if self._prompts is None:
            name = prompt_name(self.experiment.experiment)
            self._prompts = Prompts.known(self.client, name, done.key, self.parent.info.experiment_id)
        return self._prompts
