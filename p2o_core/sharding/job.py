"""What a stage asks of the processes that train for it and what it gets, as files in a folder of its own."""

from __future__ import annotations

import re
import signal
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from safetensors import SafetensorError

from p2o_core.config import AnyPolicy, DistillConfig
from p2o_core.finite import NotFinite, WeightsNotFinite
from p2o_core.groups import Group, TrainingSample
from p2o_core.schemas import BadInput, read_record, read_rows, write_record, write_rows
from p2o_core.transfer import SampleId
from p2o_core.update_report import UpdateReport

JOB, GROUPS, RESULT, LOG = "job.json", "groups.parquet", "result.json", "log.txt"
TYPED = ("NotFinite", "WeightsNotFinite", "OSError", "SafetensorError", "BadInput")
MESSAGE = 2000
"""Characters of an error's message at most: a line on a pipe is whole below 4,096 bytes."""
KILLED = re.compile(r"\brank +: (\d+) [^\n]*\n *exitcode +: -(\d+)\b")
"""Process and signal, in what torchrun says at the end of each that was killed."""


@dataclass(frozen=True)
class UpdateJob:
    """An update: :func:`p2o_core.update.update_policy`'s arguments, values in folders in place of those in memory.

    ``policy``, ``base`` and ``optimizer`` are what it starts from, ``new_policy`` and ``new_optimizer`` where it ends;
    ``checkpoints`` is what a killed one goes on from, be it with another number of processes. ``threads`` are torch's,
    in each process.
    """

    policy: Path
    base: Path
    optimizer: Path
    new_policy: Path
    new_optimizer: Path
    checkpoints: Path
    policy_config: AnyPolicy
    config: DistillConfig
    temperature: float
    seed: int
    threads: int


@dataclass(frozen=True)
class UpdateResult:
    """What :func:`p2o_core.update.update_policy` returned, and the optimiser's steps of all iterations."""

    report: UpdateReport
    measured: Sequence[tuple[str, int, float]]
    optimizer_steps: int

    @property
    def log_ratios(self) -> Mapping[SampleId, float]:
        """The mean log template ratio by problem and sample."""
        return {(problem, sample): ratio for problem, sample, ratio in self.measured}


class ProcessFailed(RuntimeError):
    """A process of an update died, or met what no typed error says."""


@dataclass(frozen=True)
class Failure:
    """Why process ``rank`` ended, told to the one that started it over a pipe: the disk may be what failed. ``kind``
    names the exception, whose rows lie in the job's folder; an OSError has its number and file too."""

    rank: int
    kind: str
    message: str
    what: str = ""
    errno: int = 0
    file: str = ""


def write_job(folder: Path, job: UpdateJob, groups: Sequence[Group]) -> None:
    """For :func:`read_job`. Each problem has one group."""
    write_record(folder / JOB, job)
    write_rows(folder / GROUPS, [sample for group in groups for sample in group], TrainingSample)


def read_job(folder: Path) -> tuple[UpdateJob, list[Group]]:
    """What :func:`write_job` wrote. Raises BadInput."""
    rows = read_rows(folder / GROUPS, TrainingSample)
    groups = [list(group) for _, group in groupby(rows, key=lambda sample: sample.problem_id)]
    return read_record(folder / JOB, UpdateJob), groups


def failure_of(rank: int, error: Exception, folder: Path) -> Failure:
    """What there is to tell of an error; the samples of an update's own are written to the job's folder."""
    kind, message = type(error).__name__, str(error)[:MESSAGE]
    if isinstance(error, NotFinite):
        write_rows(_samples(folder, rank), error.samples, TrainingSample)
        return Failure(rank, kind, message, what=error.what)
    if isinstance(error, OSError):
        file = str(error.filename or "")
        return Failure(rank, "OSError", error.strerror or message, errno=error.errno or 0, file=file)
    if isinstance(error, BadInput | SafetensorError):
        return Failure(rank, kind, message)
    return Failure(rank, kind, "".join(traceback.format_exception_only(error)).strip()[:MESSAGE])


def error_of(failures: Sequence[Failure], folder: Path, processes: int) -> Exception:
    """The error that ended the update, as it would have been raised in this process; or which process died. Once one is
    gone the others fail too, at the next exchange, with errors that say nothing."""
    for failure in failures:
        if failure.kind in TYPED:
            return _as_raised(failure, folder)
    log = folder / LOG
    ends = _killed(log.read_text(errors="replace"))
    ends = ends or [f"process {failure.rank}: {failure.message}" for failure in failures]
    return ProcessFailed(
        f"update by {processes} processes: {'; '.join(ends) or 'they did not come to an end'}. Mend: start again, it "
        "goes on after its last step; was memory short, lower distill.tokens_per_microbatch or set "
        f"policy.checkpointing. What they said: {log}"
    )


def _killed(said: str) -> list[str]:
    """Who was killed, and by what. torchrun's "root cause" may be another, which failed for want of the killed one
    within the same tenth of a second; those that it ended itself have SIGTERM and are named only where nobody else is.
    """
    killed = [(int(rank), signal.Signals(int(number))) for rank, number in KILLED.findall(said)]
    first = [end for end in killed if end[1] != signal.SIGTERM]
    return [f"process {rank} died of {cause.name}" for rank, cause in sorted(set(first or killed))]


def _as_raised(failure: Failure, folder: Path) -> Exception:
    if failure.kind == "OSError":
        return OSError(failure.errno, failure.message, failure.file)
    if failure.kind in ("BadInput", "SafetensorError"):
        return {"BadInput": BadInput, "SafetensorError": SafetensorError}[failure.kind](failure.message)
    kind = WeightsNotFinite if failure.kind == "WeightsNotFinite" else NotFinite
    error = kind(failure.what, read_rows(_samples(folder, failure.rank), TrainingSample))
    error.args = (failure.message,)
    return error


def _samples(folder: Path, rank: int) -> Path:
    return folder / f"rejected-{rank}.parquet"
