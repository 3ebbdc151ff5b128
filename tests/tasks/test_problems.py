"""Problems from files as publishers write them, from generators, and what is kept out of the train split."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from p2o_core.rollout import gold_answers, judge
from p2o_core.schemas import BadInput
from p2o_core.types import Completion, Problem
from p2o_core.verify import Verifier
from tasks.benchmarks import benchmark_source
from tasks.parameters.experiment import FilesPrepare
from tasks.problems.answers import boxed, gsm8k, olympiad, whole
from tasks.problems.catalogue import catalogue
from tasks.problems.contamination import NGRAM, clean
from tasks.problems.sources import ProblemSource, load_source

PUBLISHED: dict[str, tuple[dict[str, Any], str, str]] = {
    "gsm8k": ({"question": "How many?", "answer": "2 * 600 = <<2*600=1200>>1200.\n#### 1,200"}, "How many?", "1200"),
    "svamp": ({"Body": "Ann has 3.", "Question": "How many?", "Answer": 3.0, "ID": "c-1"}, "Ann has 3. How many?", "3"),
    "math": (
        {"problem": "Half of 1?", "solution": "It is $\\boxed{\\frac{1}{2}}$.", "level": 3},
        "Half of 1?",
        "\\frac{1}{2}",
    ),
    "math500": ({"problem": "East?", "answer": "\\text{east}", "unique_id": "test/1"}, "East?", "\\text{east}"),
    "amc23": ({"problem": "m+n?", "answer": 142.0, "url": "x"}, "m+n?", "142"),
    "aime24": ({"problem": "Find it.", "answer": "204", "year": 2024}, "Find it.", "204"),
    "aime-train": ({"problem": "Find it.", "answer": "60", "difficulty": 4.0}, "Find it.", "60"),
    "minerva": ({"problem": "How long?", "answer": ["9.6\n"], "idx": 0}, "How long?", "9.6"),
    "olympiadbench": ({"id": 7, "problem": "n?", "answer": ["$2^{10}$"], "unit": None}, "n?", "2^{10}"),
    "deepmath-103k": ({"question": "Why?", "final_answer": "0", "difficulty": 6.5}, "Why?", "0"),
    "deepscaler": ({"problem": "Why?", "answer": "-3", "solution": ""}, "Why?", "-3"),
}


def written(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_publisher_s_columns(name: str, tmp_path: Path) -> None:
    row, question, answer = PUBLISHED[name]
    source = ProblemSource(name=name, path=written(tmp_path, [row]))
    (problem,) = load_source(source, "heldout", tmp_path, 0).problems
    assert (problem.question, problem.answer, problem.difficulty, problem.split) == (question, answer, name, "heldout")
    assert problem.id.startswith(f"{name}/")
    assert problem.alternatives == ()


def test_minerva_s_lists_are_alternatives_and_olympiadbench_s_are_sets(tmp_path: Path) -> None:
    rows = [{"problem": "p", "answer": ["15000 \\text{ kcal}\n", "15000\n"]}, {"problem": "q", "answer": ["2\n", "2"]}]
    first, second = load_source(ProblemSource(name="minerva", path=written(tmp_path, rows)), "t", tmp_path, 0).problems
    assert (first.gold, second.gold) == (("15000 \\text{ kcal}", "15000"), "2")
    path = written(tmp_path, [{"problem": "p", "answer": ["$69$,$84$"]}, {"problem": "q", "answer": ["$1$", "$2$"]}])
    problems = load_source(ProblemSource(name="olympiadbench", path=path), "t", tmp_path, 0).problems
    assert [problem.gold for problem in problems] == ["69,84", "1, 2"]


def test_any_spelling_is_paid_for(tmp_path: Path) -> None:
    """A Minerva row of two values that its rounding allows, verified as a stage verifies."""
    path = written(tmp_path, [{"problem": "p", "answer": ["6630.65\n", "6630\n"]}, {"problem": "q", "answer": ["2\n"]}])
    problems = load_source(ProblemSource(name="minerva", path=path), "t", tmp_path, 0).problems
    texts = {"minerva/1": ["6630", "6630.65", "6630.6"], "minerva/2": ["2", "6630"]}
    completions = [
        Completion(id_, sample, "", f"\\boxed{{{text}}}", (), (), False)
        for id_, answers in texts.items()
        for sample, text in enumerate(answers)
    ]
    with Verifier(workers=1, timeout_s=30.0) as verifier:
        judged = judge(verifier, completions, gold_answers(problems))
    assert [row.reward for row in judged] == [1, 1, 0, 1, 0]


def test_the_catalogue_has_what_the_recipes_need() -> None:
    benchmarks = {"aime24", "aime25", "amc23", "math500", "minerva", "olympiadbench"}
    assert benchmarks | {"deepmath-103k", "deepscaler", "gsm8k", "math"} <= set(catalogue())


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables(suffix: str, tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"Frage": ["1+1?", "1+2?"], "Antwort": [2, 3], "level": [1.0, 5.0]})
    path = tmp_path / f"rows.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    columns = {"question": "Frage", "answer": "Antwort", "difficulty": "level"}
    loaded = load_source(ProblemSource(path=path, columns=columns, min_difficulty=3), "train", tmp_path, 0)
    assert [(p.question, p.answer) for p in loaded.problems] == [("1+2?", "3")]
    assert (loaded.rows, loaded.filtered) == (2, 1)


def test_a_data_set_of_the_hub_s_kind(tmp_path: Path) -> None:
    """A folder stands for the hub: the same loader reads both."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    written(folder, [{"question": "1+1?", "answer": "2"}], "train.jsonl")
    loaded = load_source(ProblemSource(hub=str(folder)), "train", tmp_path, 0)
    assert [p.answer for p in loaded.problems] == ["2"]
    with pytest.raises(BadInput, match=r"no-such.*Mend"):
        load_source(ProblemSource(hub=str(tmp_path / "no-such")), "train", tmp_path, 0)


@pytest.mark.parametrize(
    ("source", "rows", "words"),
    [
        ({"name": "math500"}, [{"question": "?", "solution": "1"}], r"column 'answer' for answer is missing \(found"),
        ({}, [{"question": "?", "answer": None}], r"row 1 .*field 'answer' is empty"),
        ({"min_difficulty": 1}, [{"question": "?", "answer": "1"}], "row 1: no number as difficulty"),
        ({"name": "mth"}, [{"question": "?"}], "no data set 'mth' in the catalogue"),
        ({"columns": {"id": "nr"}}, [{"question": "?", "answer": "1"}], "column 'nr' for id is missing"),
    ],
)
def test_refusals(source: dict[str, Any], rows: list[dict], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=words) as refusal:
        load_source(ProblemSource(path=written(tmp_path, rows), **source), "train", tmp_path, 0)
    assert "Mend" in str(refusal.value)


def test_one_origin() -> None:
    for wrong in ({}, {"path": "a", "hub": "b"}, {"name": "gsm8k", "generator": {"type": "arithmetic", "count": 1}}):
        with pytest.raises(ValueError, match="give one of"):
            ProblemSource.model_validate(wrong)


def test_a_limit_is_drawn_by_seed(tmp_path: Path) -> None:
    path = written(tmp_path, [{"question": f"{n}?", "answer": str(n)} for n in range(50)])
    source = ProblemSource(path=path, limit=5)
    draws = [[p.answer for p in load_source(source, "train", tmp_path, seed).problems] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 5


def test_arithmetic_s_shards_share_nothing(tmp_path: Path) -> None:
    def sums(shard: int) -> list[Problem]:
        generator = {"type": "arithmetic", "digits": [1, 2, 3], "count": 40, "shard": shard}
        return load_source(ProblemSource.model_validate({"generator": generator}), "train", tmp_path, 3).problems

    for problem in (train := sums(0)):
        left, right = problem.question.removeprefix("What is ").removesuffix("?").split(" + ")
        assert int(left) + int(right) == int(problem.answer)
        assert problem.difficulty == f"{len(left)}-digit"
    assert len(train) == 40 * 3
    assert not {p.question for p in train} & {p.question for p in sums(1)}
    assert train == sums(0)


def problem(id_: str, question: str) -> Problem:
    return Problem(id_, question, "1", "t", "train")


def test_duplicates_and_contamination() -> None:
    long = "a train leaves the city at noon and meets another one after two hours of travel"
    words = " ".join(long.split()[:NGRAM])
    heldout = [problem("h1", "What is 2 + 3?"), problem("h2", long)]
    train = [
        problem("a", "what is 2 +  3 ?"),
        problem("b", "What is 2 - 3?"),
        problem("c", "What is 2 + 33?"),
        problem("d", f"Yesterday {words} somewhere else"),
        problem("e", f"Yesterday {' '.join(long.split()[: NGRAM - 1])} nowhere"),
        problem("f", "WHAT IS 2 - 3?"),
    ]
    cleaned = clean(train, heldout)
    assert cleaned.duplicates == ["f"]
    assert cleaned.contaminated == {"a": "h1", "d": "h2"}
    assert [p.id for p in cleaned.problems] == ["a", "b", "c", "d", "e"]
    assert clean(train, heldout, validation={"h1", "h2"}).contaminated == {"a": "h1"}, "phrases of one distribution"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is (1 + 2) * 3?", "What is 1 + 2 * 3?"),
        ("Compute 7 × 8", "Compute 7 ÷ 8"),
        ("Is 3 < 5?", "Is 3 > 5?"),
        ("What is 5!", "What is 5"),
        ("What is 2³?", "What is 23?"),
        ("What is √81?", "What is 81?"),
        ("What is A ∪ B?", "What is A ∩ B?"),
        ("The length of [1,2)", "The length of (1,2)"),
        ("What is 3.5 + 1?", "What is 35 + 1?"),
        ("Is |x| 3?", "Is x 3?"),
    ],
)
def test_signs_tell_problems_apart(one: str, other: str) -> None:
    assert clean([problem("a", one), problem("b", other)], []).duplicates == []
    assert clean([problem("a", one)], [problem("h", other)]).contaminated == {}


def test_sources_in_short() -> None:
    short = FilesPrepare.model_validate({"train": "t.jsonl", "heldout": [{"name": "aime24"}], "policy": "model"})
    assert (short.train[0].path, short.policy.type) == (Path("t.jsonl"), "folder")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{1} and \\boxed{\\frac{1}{\\sqrt{2}}}", "\\frac{1}{\\sqrt{2}}"),
        ("\\boxed{1} and \\boxed{2", "1"),
        ("no box", "no box"),
    ],
)
def test_boxes(text: str, answer: str) -> None:
    assert boxed(text) == answer


def test_odd_answers() -> None:
    assert gsm8k("no mark") == ""
    said = [gsm8k(f"#### {text}") for text in ("1,234,567", "-1,000", "(1, 2)", "3,5", "1,2,3")]
    assert said == ["1234567", "-1000", "(1, 2)", "3,5", "1,2,3"]
    assert [whole(text) for text in ("142.0", "-3.00", "0.5", "2.50", "x")] == ["142", "-3", "0.5", "2.50", "x"]
    assert olympiad("$1$, $ 2 $") == "1, 2"


@pytest.mark.parametrize("tier", [" ", "easy (A)", "75%", "a,b", "/tmp/a", "..", "a//b", "a/", "mean", "x" * 201])
def test_a_tier_that_is_no_metric_s_name(tier: str, tmp_path: Path) -> None:
    """MLflow would refuse the whole batch, so that nothing is ever logged. A train split's tiers are no metrics."""
    rows = [{"question": f"{n}?", "answer": "1", "difficulty": level} for n, level in enumerate(("Level 5", tier))]
    path = written(tmp_path, rows)
    assert len(load_source(ProblemSource(path=path), "train", tmp_path, 0).problems) == 2
    with pytest.raises(BadInput, match=r"rows.jsonl: row 2: its tier.*no name for a metric.*Mend: .*`tier:`"):
        load_source(ProblemSource(path=path), "heldout", tmp_path, 0)
    if tier.strip():
        with pytest.raises(BadInput, match=r"row 1: its tier"):
            load_source(ProblemSource(path=path, tier=tier), "heldout", tmp_path, 0)
        made: Any = {"type": "arithmetic", "count": 2}
        with pytest.raises(BadInput, match=r"arithmetic: row 1: its tier"):
            load_source(ProblemSource(generator=made, tier=tier), "heldout", tmp_path, 0)


def test_mlflow_takes_the_tiers_that_are_taken_here(tmp_path: Path) -> None:
    from mlflow.utils.validation import _validate_metric_name

    rows = [{"question": t, "answer": "1", "difficulty": t} for t in ("Level 5", "größer/7.5", "a_b-c: d", "3")]
    for problem in load_source(ProblemSource(path=written(tmp_path, rows)), "heldout", tmp_path, 0).problems:
        _validate_metric_name(f"accuracy/{problem.difficulty}")


def test_a_file_s_tier_and_ids_are_its_name(tmp_path: Path) -> None:
    """Wherever it lies: this machine's folders do not get into data sets and metrics. So for a form of file."""
    row = {"prompt": [{"role": "user", "content": "How many?"}], "reward_model": {"ground_truth": "4"}}
    for name in ("aime", "math"):
        (tmp_path / name).mkdir()
        path = written(tmp_path / name, [row | {"data_source": "x y%"}], f"{name}.jsonl")
        for source in (ProblemSource(path=path), ProblemSource(name="verl", path=path)):
            (problem,) = load_source(source, "heldout", tmp_path, 0).problems
            assert (problem.id, problem.difficulty) == (f"{name}/1", name)


def test_balancing_one_s_own_files(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": str(n), "difficulty": ("easy", "hard")[n % 2]} for n in range(40)]
    path = written(tmp_path, rows)
    balance: Any = {"type": "answer-types"}
    loaded = load_source(ProblemSource(path=path, balance=balance), "heldout", tmp_path, 0)
    assert Counter(problem.difficulty for problem in loaded.problems) == {"easy": 19, "hard": 19}, (
        "words are levels too"
    )
    with pytest.raises(BadInput, match=r"row 1: no number as difficulty to filter by \(column 'difficulty' is 'easy'"):
        load_source(ProblemSource(path=path, balance=balance, min_difficulty=1), "heldout", tmp_path, 0)
    row = {"prompt": "How many?", "reward_model": {"ground_truth": "4"}, "data_source": "gsm8k"}
    path = written(tmp_path, [row | {"prompt": f"{n}?"} for n in range(40)])
    assert len(load_source(ProblemSource(name="verl", path=path, balance=balance), "train", tmp_path, 0).problems) == 38
    path = written(tmp_path, [{"question": "?", "answer": "1"}])
    with pytest.raises(BadInput, match=r"balancing leaves none of 1 problems \(kinds of answers: numeric.*Mend"):
        load_source(ProblemSource(path=path, balance=balance), "train", tmp_path, 0)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"path": "a.jsonl", "columns": {"frage": "x"}}, "columns.frage is no field of a problem"),
        ({"name": "gsm8k", "columns": {"questoin": "x"}}, "columns.questoin is no field of a problem"),
        ({"generator": {"type": "arithmetic", "count": 1}, "min_difficulty": 3}, "a generator has no min_difficulty"),
        (
            {"generator": {"type": "arithmetic", "count": 1}, "answers": "set", "balance": {"type": "answer-types"}},
            "a generator has no answers, balance",
        ),
        ({"path": "a.jsonl", "split": "test"}, "a file has no split"),
        ({"hub": "a/b", "encoding": "cp1252"}, "a data set of the hub has no encoding"),
    ],
)
def test_settings_that_would_change_nothing(source: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ProblemSource.model_validate(source)


def test_a_written_source_is_read_again() -> None:
    source = ProblemSource.model_validate({"generator": {"type": "arithmetic", "count": 1}, "limit": 1})
    assert ProblemSource.model_validate(source.model_dump(mode="json")) == source


def test_benchmarks_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.csv").write_text("question,answer\n1?,1\n")
    assert benchmark_source("a=b.csv") == ProblemSource(path=tmp_path / "a=b.csv", tier="a=b")
    assert benchmark_source("aime24=b.csv") == ProblemSource(name="aime24", path=tmp_path / "b.csv")
    assert benchmark_source("x/b.csv.gz").tier == "b"
    with pytest.raises(
        BadInput, match=r"--benchmark mine=b.csv: no file of that name, and 'mine' is no data set.*Mend"
    ):
        benchmark_source("mine=b.csv")
