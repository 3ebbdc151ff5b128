"""Several processes train one policy as one process would: gloo on the processor, started by torchrun."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from p2o_core.batch import Batch, rows_of
from p2o_core.config import DistillConfig, FullPolicy, LoraPolicy, PolicyConfig
from p2o_core.digests import digest
from p2o_core.finite import NotFinite, WeightsNotFinite
from p2o_core.groups import Group
from p2o_core.losses import p2o_loss
from p2o_core.microbatch import MicroBatch, microbatches
from p2o_core.optimizer import STATE_FILE, PolicyOptimizer
from p2o_core.policy import Policy
from p2o_core.schemas import BadInput, read_record
from p2o_core.sharding.job import (
    LOG,
    RESULT,
    Failure,
    ProcessFailed,
    UpdateJob,
    UpdateResult,
    error_of,
    failure_of,
    write_job,
)
from p2o_core.sharding.launch import run_torchrun, torchrun_command, update_in_processes
from p2o_core.sharding.perform import perform
from p2o_core.sharding.team import Team, shares
from p2o_core.update_report import UpdateReport
from p2o_core.witness import FILE as WITNESS
from p2o_core.witness import read_witness
from tests.core.test_checkpoints import Killed
from tests.core.test_update import CONFIG, flat_group, mixed_groups, weights

SETTINGS = CONFIG.model_copy(update={"groups_per_minibatch": 1, "warmup_steps": 3, "engine_ratio": "truncated"})
"""Four steps; the last log-probs before the first one are the trainer's own."""
SEED = 4
LOOPBACKS = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


class Case:
    """One update, from a policy in a folder, by one process and by several."""

    def __init__(self, folder: Path, base: Path, config: PolicyConfig, settings: DistillConfig = SETTINGS) -> None:
        self.folder, self.base, self.config, self.settings = folder, base, config, settings
        policy = Policy.create(base, config, seed=0)
        policy.save(folder / "policy")
        PolicyOptimizer(policy, settings).save(folder / "optimizer")
        self.groups = uneven_groups(policy)
        self.jobs = folder
        self.failures: list[Failure] = []

    def job(self, name: str) -> UpdateJob:
        new = self.folder / name
        return UpdateJob(
            policy=self.folder / "policy",
            base=self.base,
            optimizer=self.folder / "optimizer",
            new_policy=new / "policy",
            new_optimizer=new / "optimizer",
            checkpoints=new / "checkpoints",
            policy_config=self.config,
            config=self.settings,
            temperature=0.9,
            seed=SEED,
            threads=1,
        )

    def alone(self, name: str, dies_after: int | None = None, done: list[int] | None = None) -> UpdateReport:
        """In this process, from the job's checkpoints if there are any and to the job's folders."""
        job = self.job(name)

        def on_step(step: int, planned: int) -> None:
            if done is not None:
                done.append(step)
            if step == dies_after:
                raise Killed

        policy = Policy.load(job.policy, job.base, job.policy_config)
        return perform(job, policy, self.groups, on_step).report

    def assert_same(self, one: str, other: str) -> None:
        """Weights and moments within 1e-5, every other file to the byte."""
        ours, theirs = self.job(one), self.job(other)
        before = weights(Policy.load(ours.policy, self.base, self.config))
        after = [weights(Policy.load(job.new_policy, self.base, self.config)) for job in (ours, theirs)]
        assert (after[0] - before).abs().max() > 1e-3, "it learned something"
        torch.testing.assert_close(after[0], after[1], atol=1e-5, rtol=0)
        moments = [load_file(job.new_optimizer / STATE_FILE) for job in (ours, theirs)]
        assert moments[0].keys() == moments[1].keys()
        for name, tensor in moments[0].items():
            torch.testing.assert_close(tensor, moments[1][name], atol=1e-5, rtol=0)
        files = [sorted(path.name for path in job.new_policy.iterdir()) for job in (ours, theirs)]
        assert files[0] == files[1]
        for name in files[0]:
            if not name.endswith(".safetensors") and name != WITNESS:
                assert digest(ours.new_policy / name) == digest(theirs.new_policy / name)
        left = [read_witness(job.new_policy) for job in (ours, theirs)]
        assert left[0].request == left[1].request
        assert left[0].after == pytest.approx(left[1].after, abs=1e-4)


def uneven_groups(policy: Policy) -> list[Group]:
    """Groups of two and of five rollouts, so that processes are short of micro-batches, and one without a signal."""
    first, second, third, fourth = mixed_groups(policy)
    first = [*first, replace(first[0], sample=1), replace(first[1], sample=2)]
    return [first, second[1:], flat_group(policy, 0.0), third, fourth]


def assert_reports_agree(one: UpdateReport, other: UpdateReport) -> None:
    assert other.metrics.keys() == one.metrics.keys()
    assert dict(other.metrics) == pytest.approx(dict(one.metrics), abs=1e-4)
    assert replace(other, metrics={}) == replace(one, metrics={})


def untied(base: Path, folder: Path) -> Path:
    """The base policy with an output layer of its own."""
    policy = Policy.create(base, FullPolicy(), seed=0)
    policy.model.lm_head.weight = torch.nn.Parameter(0.5 * policy.model.lm_head.weight.detach().clone())
    policy.model.config.tie_word_embeddings = False
    policy.save(folder)
    return folder


@pytest.fixture(scope="module")
def cases(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Each was trained by two processes as ``two`` and, but for "bad", by one as ``one``. "killed" was begun by one."""
    folder, jobs = tmp_path_factory.mktemp("cases"), tmp_path_factory.mktemp("jobs")
    small = SETTINGS.model_copy(update={"tokens_per_microbatch": 32})
    made = {
        "full": Case(folder / "full", base_folder, FullPolicy()),
        "again": Case(folder / "again", base_folder, FullPolicy()),
        "untied": Case(folder / "untied", untied(base_folder, folder / "base"), FullPolicy(checkpointing=True), small),
        "mixed": Case(folder / "mixed", base_folder, FullPolicy(compute_dtype="bfloat16")),
        "lora": Case(folder / "lora", base_folder, LoraPolicy(rank=4), small),
        "killed": Case(folder / "killed", base_folder, LoraPolicy(rank=4)),
        "z-bad": Case(folder / "bad", base_folder, FullPolicy()),
    }
    bad = made["z-bad"].groups[0]
    bad[1] = replace(bad[1], sampling_logps=(float("inf"),) * len(bad[1].completion_ids))
    with pytest.raises(Killed):
        made["killed"].alone("two", dies_after=2)
    for name, case in made.items():
        (jobs / name).mkdir()
        write_job(jobs / name, case.job("two"), case.groups)
        case.jobs = jobs / name
    command = torchrun_command(jobs, 2, os.getpid(), "tests.core.sharded")
    said: list[tuple[str, Any]] = []
    status = run_torchrun(command, jobs / LOG, 1, lambda topic, content: said.append((topic, content)))
    assert status, "the last job fails"
    made["z-bad"].failures = [Failure(**content) for topic, content in said if topic == "failure"]
    return made


@pytest.mark.parametrize("name", ["full", "untied", "lora"])
def test_two_processes_are_one(cases: dict[str, Case], name: str) -> None:
    """Tied and own output layers, shards and adapters; checkpointed layers; micro-batches that one of them lacks."""
    case = cases[name]
    report = case.alone("one")
    case.assert_same("one", "two")
    result = read_record(case.jobs / RESULT, UpdateResult)
    assert_reports_agree(report, result.report)
    assert result.optimizer_steps == report.steps == 4
    assert result.log_ratios.keys() == {("sum 0 a+5 b+2 ?", 0), *((f"sum {n} a+5 b+2 ?", 0) for n in (1, 2, 3))}


def test_an_update_begun_by_one_process_is_ended_by_two(cases: dict[str, Case]) -> None:
    report = cases["killed"].alone("one")
    cases["killed"].assert_same("one", "two")
    assert_reports_agree(report, read_record(cases["killed"].jobs / RESULT, UpdateResult).report)


def test_the_same_processes_give_the_same_bytes(cases: dict[str, Case]) -> None:
    ours, theirs = cases["full"].job("two"), cases["again"].job("two")
    assert digest(ours.new_policy) == digest(theirs.new_policy)
    assert digest(ours.new_optimizer) == digest(theirs.new_optimizer)


def test_mixed_precision_is_the_same_function_in_shards(cases: dict[str, Case]) -> None:
    """Adam makes a step of any gradient, also of one that is rounding alone; so the gradients are compared."""
    report = cases["mixed"].alone("one")
    result = read_record(cases["mixed"].jobs / RESULT, UpdateResult)
    assert result.report.metrics["gradient_norm"] == pytest.approx(report.metrics["gradient_norm"], rel=0.02)
    assert load_file(cases["mixed"].job("two").new_policy / "model.safetensors").popitem()[1].dtype == torch.float32


def test_numbers_that_are_none_reach_the_stage_with_their_rows(cases: dict[str, Case]) -> None:
    error = error_of(cases["z-bad"].failures, cases["z-bad"].jobs, 2)
    assert isinstance(error, NotFinite)
    assert "sampling log-probs" in str(error)
    assert error.samples == [cases["z-bad"].groups[0][1]]
    assert not cases["z-bad"].job("two").new_policy.exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "weights.safetensors"),
        SafetensorError("I/O error: File too large (os error 27)"),
        BadInput("groups.parquet: no such file."),
        WeightsNotFinite("model.norm.weight", []),
    ],
    ids=lambda error: type(error).__name__,
)
def test_typed_errors_cross_the_boundary(error: Exception, tmp_path: Path) -> None:
    """Beside the untyped ones of processes that lost the one that failed."""
    lost = Failure(0, "RuntimeError", "RuntimeError: Connection reset by peer")
    raised = error_of([lost, failure_of(1, error, tmp_path)], tmp_path, 2)
    assert type(raised) is type(error)
    assert str(raised) == str(error)


def test_a_process_that_is_killed_ends_all_and_one_goes_on(base_folder: Path, tmp_path: Path) -> None:
    case, folder, seen = Case(tmp_path, base_folder, FullPolicy()), tmp_path / "job", []

    def on_step(step: int, planned: int) -> None:
        seen.append(step)
        if step == 2:
            workers = processes_with(folder)
            ports = [c for p in workers for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            assert ports, "they talk to each other"
            assert {port.laddr.ip for port in ports} <= LOOPBACKS
            next(p for p in workers if p.environ().get("RANK") == "1").kill()

    with pytest.raises(ProcessFailed, match="SIGKILL"):
        update_in_processes(case.job("two"), case.groups, folder, 2, on_step)
    assert processes_with(folder) == []
    done: list[int] = []
    report = case.alone("two", done=done)
    assert (seen[:2], done) == ([1, 2], [3, 4]) or (seen, done) == ([1, 2, 3], [4])
    assert_reports_agree(case.alone("one"), report)
    case.assert_same("one", "two")


def test_the_killed_one_is_named_and_not_the_one_that_missed_it(tmp_path: Path) -> None:
    """torchrun takes the lower rank for the root cause where it sees both gone at once."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, time\n"
        f"mark = {str(tmp_path / 'gone')!r}\n"
        "if os.environ['RANK'] == '1':\n"
        "    open(mark, 'w').close()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "while not os.path.exists(mark):\n"
        "    time.sleep(0.001)\n"
        "raise SystemExit(1)\n"
    )
    command = torchrun_command(tmp_path, 2, 0)
    command[-4:] = [str(program)]  # in place of -m, the worker and its arguments
    assert run_torchrun(command, tmp_path / LOG, 1, lambda topic, content: None)
    told = [Failure(0, "RuntimeError", "Connection reset by peer")]
    assert "process 1 died of SIGKILL" in str(error_of(told, tmp_path, 2))


def test_no_process_outlives_the_stage(base_folder: Path, tmp_path: Path) -> None:
    case, folder = Case(tmp_path, base_folder, LoraPolicy(rank=4)), tmp_path / "job"
    folder.mkdir()
    write_job(folder, case.job("two"), case.groups)
    stage = "import os, subprocess, sys; subprocess.run([*sys.argv[1:], str(os.getpid())])"
    command = torchrun_command(folder, 2, 0)[:-1]
    with subprocess.Popen([sys.executable, "-c", stage, *command], stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: sum("RANK" in p.environ() for p in processes_with(folder)) == 2)
        process.kill()
    wait_until(lambda: not processes_with(folder))


def processes_with(folder: Path) -> list[psutil.Process]:
    """Those that have the folder as an argument."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.cmdline() and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(true) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except psutil.Error:  # ended meanwhile
            pass
        time.sleep(0.1)
    raise AssertionError("it never came to that")


def test_shares_are_even() -> None:
    lengths = [7, 300, 12, 41, 41, 250, 9, 512, 100, 33, 33, 8]
    for members in (1, 2, 3, 5):
        held = shares(lengths, members)
        assert sorted(row for rows in held for row in rows) == list(range(len(lengths)))
        tokens = [sum(lengths[row] for row in rows) for rows in held]
        assert max(tokens) - min(tokens) <= max(lengths)
    assert shares([5, 5], 3) == [[0], [1], []]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_make_as_many_passes_and_leave_no_row_out(size: int) -> None:
    prompts, completions = [(1,), (1,), (2,), (3,), (4,)], [(5,), (6, 6), (7,) * 9, (8,), (9,) * 4]
    parts = [list(rows_of(prompts, completions, 12, share=True, team=Team(rank, size))) for rank in range(size)]
    assert len({len(batches) for batches in parts}) == 1
    numbers = [number for batches in parts for rows in batches for row in rows for number in row]
    assert sorted(numbers) == list(range(5))


def test_a_pass_without_rows_counts_nothing_and_reaches_every_weight(policy: Policy) -> None:
    """FSDP's exchanges hang on the backward pass of each layer."""
    batch = MicroBatch.build([], policy.chat.pad_id, policy.device)
    logp = policy.completion_logps(batch, 0.9)
    batch.check_finite(logp)
    outputs = p2o_loss(logp, batch, SETTINGS, 7.0)
    outputs.loss.backward()
    assert outputs.loss == 0
    for name, parameter in policy.trainable_parameters().items():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name
    assert Batch.of_rows([], 0).completion_mask.shape == (0, 1)
    assert next(microbatches(policy, [], 64), None) is None
