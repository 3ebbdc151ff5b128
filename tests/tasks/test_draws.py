"""Draws of problems: by seed as ``datasets`` draws, by kinds of answers as the paper's code does."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
import yaml
from datasets import Dataset

from p2o_core.rollout import gold_answers
from p2o_core.schemas import BadInput, read_json, read_problems
from tasks.parameters.experiment import load_experiment
from tasks.problems.draws import AnswerTypes, answer_kind, drawn
from tasks.problems.sources import ProblemSource, load_source
from tasks.registry import STAGES
from tasks.running.layout import Layout
from tasks.running.runner import run_stage
from tasks.running.runtime import Runtime

KINDS = {
    "yes_no": ["Yes", "no", "TRUE", "False"],
    "multiple_choice": ["A", "(b)", "x"],
    "numeric": ["0", "-12", "3.50", "-7/3"],
    "percentage": ["12%", "-0.5%"],
    "numeric_with_unit": ["3 cm", "2.5kg"],
    "mathematical_symbol": ["√2", "2π", "∞"],
    "interval_set": ["(0,1]", "[-1, 2)", "(1, 2, 3)"],
    "text_answer": ["it is not true for any n"],
    "other": ["\\frac{1}{2}", "x^2", "not enough words", "yes.", "1e3", "50 \\%"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_answers(kind: str) -> None:
    assert {answer_kind(answer) for answer in KINDS[kind]} == {kind}
    assert {answer_kind(f" {answer}\n") for answer in KINDS[kind]} == {kind}


@pytest.mark.parametrize("seed", [0, 42])
def test_the_draw_is_train_test_split_s(seed: int) -> None:
    rows = Dataset.from_dict({"row": list(range(1000))})
    split = rows.train_test_split(test_size=50, seed=seed)
    validation, others = drawn(list(range(1000)), 50, seed)
    assert (validation, others) == (split["test"]["row"][:], split["train"]["row"][:])


def made(count: int, yes_no: float) -> tuple[list[float], list[str]]:
    rng = random.Random(count)
    others = ["7", "-3", "x+1", "A", "(0,1)", "9", "12", "5/6"]
    answers = [rng.choice(["Yes", "No"]) if rng.random() < yes_no else rng.choice(others) for _ in range(count)]
    return [rng.choice([7.0, 7.5, 8.0]) for _ in range(count)], answers


@pytest.mark.parametrize("yes_no", [0.0, 0.05, 0.4, 0.9])
def test_balancing(yes_no: float) -> None:
    levels, answers = made(2000, yes_no)
    chosen = AnswerTypes().draw(levels, answers)
    assert len(set(chosen)) == len(chosen)
    before = Counter(map(answer_kind, answers))["yes_no"]
    after = Counter(answer_kind(answers[index]) for index in chosen)["yes_no"]
    assert (after > 0) == (before > 0)
    assert after <= 0.05 * (len(chosen) + before), "a share of what there was before the last cap: the official count"
    assert chosen == AnswerTypes().draw(levels, answers) != AnswerTypes(seed=1).draw(levels, answers)


def test_balancing_draws_by_the_square_root_within_each_level() -> None:
    levels = [7.0] * 2500 + [8.0] * 500
    answers = ["1"] * 1600 + ["x+1"] * 900 + ["1"] * 400 + ["Yes"] * 100
    chosen = AnswerTypes().draw(levels, answers)
    drawn_at = Counter((levels[index], answer_kind(answers[index])) for index in chosen)
    assert drawn_at[7.0, "numeric"] == int(40 / 70 * 2375), "sqrt(1600) of sqrt(1600) + sqrt(900)"
    assert drawn_at[7.0, "other"] == 900, "fewer than its share of 1,017: all of them"
    assert drawn_at[8.0, "numeric"] == 400
    assert drawn_at[8.0, "yes_no"] == int(475 * 0.05 / 0.95)
    scarce = AnswerTypes().draw([7.0] * 1000, ["1"] * 300 + ["x+1"] * 300 + ["Yes"] * 400)
    assert len(scarce) == 600 + int(0.05 * (600 + 50)), "50 of 1,000 before the cap"
    assert AnswerTypes().draw([7.0] * 3, ["Yes", "No", "Yes"]) == [], "nothing for yes/no to be a share of"


def source(path: Path, **settings: object) -> ProblemSource:
    deepmath = {"name": "deepmath-103k", "path": path, "min_difficulty": 7, "balance": {"type": "answer-types"}}
    return ProblemSource.model_validate(deepmath | {"validation": 50, "draw_seed": 42} | settings)


def test_training_and_validation_problems_of_one_source(tmp_path: Path) -> None:
    levels, answers = made(1000, 0.3)
    rows = [
        {"question": f"q{n}", "final_answer": answer, "difficulty": level - 1 if n % 4 == 0 else level}
        for n, (level, answer) in enumerate(zip(levels, answers, strict=True))
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    train = load_source(source(path, limit=200), "train", tmp_path, 0)
    heldout = load_source(source(path), "heldout", tmp_path, 0)
    assert (len(train.problems), len(heldout.problems)) == (200, 50)
    assert not {p.id for p in train.problems} & {p.id for p in heldout.problems}
    assert (train.rows, train.filtered) == (1000, sum(row["difficulty"] < 7 for row in rows))
    assert train.unbalanced == heldout.unbalanced > 0
    everything = load_source(source(path), "train", tmp_path, 0).problems
    kinds = Counter(answer_kind(p.answer) for p in (*everything, *heldout.problems))
    assert 0 < kinds["yes_no"] < 0.06 * (len(everything) + 50)
    assert train == load_source(source(path, limit=200), "train", tmp_path, 1), "draw_seed, not prepare.seed"
    with pytest.raises(BadInput, match=r"field 'validation' is 5000, of .*Mend"):
        load_source(source(path, validation=5000), "train", tmp_path, 0)
    path.write_text(json.dumps({"question": "q", "final_answer": "Yes", "difficulty": 7}))
    with pytest.raises(BadInput, match=r"balancing leaves none of 1 problems.*yes_no.*Mend"):
        load_source(source(path), "train", tmp_path, 0)


def test_prepare_writes_what_was_drawn(tmp_path: Path) -> None:
    """The stage itself, as the paper's recipe has it, and a benchmark with two spellings of an answer."""
    layout = Layout(tmp_path, "tiny")
    layout.sources.mkdir(parents=True)
    rows = [{"question": f"q{n}", "final_answer": ["Yes", str(n), "x+1"][n % 3], "difficulty": 7} for n in range(200)]
    (layout.sources / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (layout.sources / "m.jsonl").write_text('{"problem": "A third?", "answer": ["1/3\\n", "\\\\frac13"], "idx": 4}')
    drawn_from = {"name": "deepmath-103k", "path": "d.jsonl", "balance": {"type": "answer-types"}, "validation": 20}
    prepare = {
        "type": "files",
        "policy": {"type": "random"},
        "train": drawn_from | {"limit": 50},
        "heldout": [drawn_from | {"tier": "validation"}, {"name": "minerva", "path": "m.jsonl"}],
        "phrases": ["Add the tens first.", "Check it."],
    }
    params = yaml.safe_load((Path(__file__).parents[1] / "platform/params.yaml").read_text())
    layout.params.write_text(yaml.safe_dump(params | {"prepare": prepare}))
    run_stage(STAGES["prepare"], load_experiment(layout.params), layout, 0, Runtime())
    train, heldout = (read_problems(layout.base / f"{split}.parquet") for split in ("train", "heldout"))
    assert (len(train), [p.difficulty for p in heldout]) == (50, ["validation"] * 20 + ["minerva"])
    assert not {p.id for p in train} & {p.id for p in heldout}
    assert gold_answers(heldout)["minerva/4"] == ("1/3", "\\frac13")
    first, second, third = read_json(layout.base / "problems.json")["sources"]
    assert first["unbalanced"] == second["unbalanced"] > 0
    assert "unbalanced" not in third
