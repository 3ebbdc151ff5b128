"""Finished units survive a kill: the same answers, nothing asked twice, nothing damaged used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2o_core.config import EvolveConfig, TeacherReflectorConfig
from p2o_core.engines.base import RolloutRequest, Sampling
from p2o_core.engines.language_models import Reply, TeacherModel
from p2o_core.search.evolve import Evolution, evolve_templates
from p2o_core.seeding import derive_seed
from p2o_core.types import Completion, Verdict, VerdictStatus
from p2o_core.verify import Verifier
from tasks.running.journal import Journal, JournaledEngine, JournaledModel, JournaledVerifier, shards
from tests.loopback import Reply as Answer
from tests.loopback import Request, served
from tests.world import HARD, POOL, Killed, ScriptedEngine

ASKED = {"params": "abc", "inputs": {"x": "1"}}
SAMPLING = Sampling(1.0, 8)


def search(engine: ScriptedEngine, journal: Journal, verifier: Verifier) -> Evolution:
    config = EvolveConfig(dev_size=6, minibatch=2, parents=4, samples_per_score=2, max_metric_calls=250)
    journaled = JournaledEngine(lambda: engine, journal, unit=16)
    checked = JournaledVerifier(verifier, journal)
    return evolve_templates(HARD, journaled, checked, POOL, config, SAMPLING, seed=derive_seed(3))


def test_a_killed_search_goes_on_and_pays_nothing_twice(tmp_path: Path, verifier: Verifier) -> None:
    """Wherever it is killed: same candidates, scores and winners, and together as many rollouts as undisturbed."""
    whole = ScriptedEngine()
    undisturbed = search(whole, Journal(tmp_path / "whole", ASKED), verifier)
    assert whole.calls > 20
    for dies_at in (1, 2, whole.calls // 2, whole.calls):
        folder = tmp_path / f"at-{dies_at}"
        first, second = ScriptedEngine(dies_at), ScriptedEngine()
        with pytest.raises(Killed):
            search(first, Journal(folder, ASKED), verifier)
        journal = Journal(folder, ASKED)
        assert search(second, journal, verifier) == undisturbed
        assert first.completions + second.completions == whole.completions
        assert journal.recalled > 0 or dies_at == 1
        journal.close()
        assert not folder.exists()


@pytest.mark.parametrize("damage", ["truncate", "flip", "swap", "empty"])
def test_damaged_units_are_found_before_use(
    tmp_path: Path, verifier: Verifier, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = search(ScriptedEngine(), Journal(tmp_path / "whole", ASKED), verifier)
    folder = tmp_path / "damaged"
    search(ScriptedEngine(), Journal(folder, ASKED), verifier)
    units = sorted(folder.glob("*-completions-*"))
    content = units[3].read_bytes()
    if damage == "truncate":
        units[3].write_bytes(content[:-20])
    elif damage == "flip":
        units[3].write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    elif damage == "swap":
        units[3].write_bytes(units[4].read_bytes())
    else:
        units[3].write_bytes(b"")
    engine, journal = ScriptedEngine(), Journal(folder, ASKED)
    assert search(engine, journal, verifier) == undisturbed
    assert (engine.calls, journal.damaged) == (1, 1)
    assert units[3].name in caplog.text


def test_units_of_other_inputs_are_not_used(tmp_path: Path, verifier: Verifier) -> None:
    search(ScriptedEngine(), Journal(tmp_path, ASKED), verifier)
    engine = ScriptedEngine()
    search(engine, Journal(tmp_path, ASKED | {"params": "other"}), verifier)
    assert engine.calls > 20


def test_another_question_in_the_same_place_is_asked(tmp_path: Path) -> None:
    def ask(template: str, journal: Journal) -> list[Completion]:
        engine = JournaledEngine(ScriptedEngine, journal, unit=4)
        return engine.generate([RolloutRequest("p0", "question 0", template, (0, 1), 5)], SAMPLING)

    ask("alpha", Journal(tmp_path, ASKED))
    assert ask("beta", Journal(tmp_path, ASKED))[0].template == "beta"


def test_an_engine_is_pointed_anew_at_each_use_and_not_started_for_nothing(tmp_path: Path) -> None:
    """Scoring and reflecting share vLLM: whoever used it last must not decide which policy answers."""
    pointed: list[str] = []

    def at(name: str) -> Callable[[], ScriptedEngine]:
        def point() -> ScriptedEngine:
            pointed.append(name)
            return ScriptedEngine()

        return point

    request = [RolloutRequest("p0", "question 0", "alpha", (0,), 5)]
    for expected in (["policy", "reference", "policy"], []):
        pointed.clear()
        journal = Journal(tmp_path, ASKED)
        policy = JournaledEngine(at("policy"), journal, unit=4)
        reference = JournaledEngine(at("reference"), journal, unit=4)
        for engine in (policy, reference, policy):
            engine.generate(request, SAMPLING)
        assert pointed == expected


def test_replies_and_verdicts_come_back_as_they_were(tmp_path: Path) -> None:
    replies = [Reply("ünï \u2028 ```x```", 3, 4, ("timeout", "http_500")), Reply(None, failures=("junk",))]
    verdicts = [Verdict(VerdictStatus.TIMEOUT, 0.0, ""), Verdict(VerdictStatus.CORRECT, 1.0, "½")]

    class Teacher:
        calls = 0

        def complete(self, prompts: Sequence[str]) -> list[Reply]:
            return replies

    class Judge:
        def verify(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
            return verdicts

    for _ in range(2):
        journal = Journal(tmp_path, ASKED)
        assert JournaledModel(Teacher(), journal).complete(["a", "b"]) == replies
        assert JournaledVerifier(Judge(), journal).verify([("a", "b"), ("c", "d")]) == verdicts
    assert journal.recalled == 2


@given(st.lists(st.integers(1, 9), max_size=8), st.integers(1, 7))
def test_shards_hold_every_sample_once_and_in_order(counts: list[int], unit: int) -> None:
    requests = [RolloutRequest(f"p{i}", "q", "", tuple(range(n)), 0) for i, n in enumerate(counts)]
    parts = list(shards(requests, unit))
    rows = [(r.problem_id, s) for part in parts for r in part for s in r.samples]
    assert rows == [(r.problem_id, s) for r in requests for s in r.samples]
    sizes = [sum(len(r.samples) for r in part) for part in parts]
    assert all(size == unit for size in sizes[:-1])
    assert all(0 < size <= unit for size in sizes)


def test_a_teacher_s_seeds_are_the_undisturbed_ones(tmp_path: Path) -> None:
    """An endpoint whose answer is the seed it was asked with; its usage is half missing."""

    def answer(request: Request) -> Answer:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant"}}
        choice["message"]["content"] = str(json.loads(request.body)["seed"])
        body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return Answer(200, json.dumps(body | {"usage": {"total_tokens": 5}}).encode())

    def ask(folder: Path, calls: int) -> list[str | None]:
        model = JournaledModel(TeacherModel(config, "key", seed=3), Journal(folder, ASKED))
        return [reply.text for call in range(calls) for reply in model.complete(["one", f"{call}"])]

    with served(answer) as url:
        config = TeacherReflectorConfig(base_url=f"{url}/v1", model="m", retries=0)
        undisturbed = ask(tmp_path / "whole", 3)
        ask(tmp_path / "killed", 2)
        assert ask(tmp_path / "killed", 3) == undisturbed
    assert None not in undisturbed
    assert len(set(undisturbed)) == 6


class SpreadScripted(ScriptedEngine):
    """Answers the last part first; dies after ``parts`` of them."""

    def __init__(self, parts: int = 99) -> None:
        super().__init__()
        self.parts = parts
        self.asked: list[int] = []

    def generate_parts(
        self, parts: Sequence[Sequence[RolloutRequest]], sampling: Sampling
    ) -> Iterator[tuple[int, list[Completion]]]:
        self.asked.append(len(parts))
        for number in reversed(range(len(parts))):
            if self.parts == 0:
                raise Killed
            self.parts -= 1
            yield number, self.generate(list(parts[number]), sampling)


def test_parts_that_come_out_of_order_are_kept_as_they_come(tmp_path: Path) -> None:
    """The same units as of an engine that takes them one by one, whichever were there when it was killed."""
    asked = [RolloutRequest(f"p{n}", f"question {n}", "alpha", (0, 1, 2), 5) for n in range(5)]
    alone = JournaledEngine(ScriptedEngine, Journal(tmp_path / "alone", ASKED), unit=2).generate(asked, SAMPLING)
    first, second, rows = SpreadScripted(parts=3), SpreadScripted(), list[int]()
    with pytest.raises(Killed):
        JournaledEngine(lambda: first, Journal(tmp_path / "spread", ASKED), unit=2).generate(asked, SAMPLING)
    journal = Journal(tmp_path / "spread", ASKED)
    assert JournaledEngine(lambda: second, journal, unit=2, on_rows=rows.append).generate(asked, SAMPLING) == alone
    assert (first.asked, second.asked, journal.recalled, rows) == ([8], [5], 3, [2, 2, 1])
    units = [sorted(p.name for p in (tmp_path / name).glob("*-completions-*")) for name in ("alone", "spread")]
    assert units[0] == units[1]
