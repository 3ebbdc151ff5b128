"""Do gold answers pass, also in other spellings than their own, and do wrong numbers fail?

    python -m stress.golds FOLDER

reads every file of a folder through the catalogue's column mappings and prints: each gold answer against itself; other
spellings (:mod:`stress.spellings`) against it; where a publisher gives several spellings, each against the others
only; signs and units added and taken off; and wrong numbers. Exit status 1 when a file has less than 99.5 % of its gold
answers verified, or a wrong number is accepted.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.table import Table

from p2o_core.types import Gold, Problem, VerdictStatus
from p2o_core.verify import Verifier
from stress.spellings import spelt
from tasks.problems.catalogue import entry_named
from tasks.problems.sources import ProblemSource, load_source

ENTRIES = {
    "aime24": "aime24",
    "aime_train": "aime-train",
    "amc": "amc23",
    "gsm8k_test": "gsm8k-test",
    "gsm8k_train": "gsm8k",
    "math500": "math500",
    "math_train": "math",
    "minerva": "minerva",
    "olympiadbench": "olympiadbench",
    "svamp": "svamp",
}
"""File stem to entry of the catalogue."""
NEEDED = 0.995
SPELT = 300
"""Gold answers of a file that are spelt otherwise: its first ones that have another spelling."""
SHOWN = 40
"""Refused spellings that are printed, a file."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def boxed(answer: str) -> str:
    return f"The answer is \\boxed{{{answer}}}."


def decorated(answer: str) -> Iterator[tuple[str, str]]:
    """(kind, the same answer with a sign added or taken off)."""
    if re.search(r"\\?%", answer):
        yield "percent dropped", re.sub(r"\\?%", "", answer)
    if NUMBER.fullmatch(answer):
        yield "percent added", answer + "\\%"
        yield "dollar added", "\\$" + answer
        yield "unit added", answer + " \\text{ cm}"
        yield "degrees added", answer + "^\\circ"
        if "." not in answer and len(answer.lstrip("-")) > 3:
            yield "separator added", f"{int(answer):,}"
    if "\\$" in answer:
        yield "dollar dropped", answer.replace("\\$", "")
    if "\\text{ " in answer:
        yield "unit dropped", re.sub(r"\\text\{ [^}]*\}(?:\^\d)?", "", answer)
    if "\\circ" in answer:
        yield "degrees dropped", re.sub(r"\^\{?\\circ\}?", "", answer)


def wrong(answer: str) -> Iterator[str]:
    """Answers with another number in the same clothes."""
    if "=" in answer or "approx" in answer:
        return  # several values: any of them may be the answer
    for match in NUMBER.finditer(answer):
        value = match[0]
        if answer[: match.start()].endswith(("}", "\\sqrt", "frac")):
            continue  # \\sqrt2 with another digit behind it is \\sqrt2 times that digit
        for other in (value + "1", str(float(value) + 1) if "." in value else str(int(value) + 1)):
            yield answer[: match.start()] + other + answer[match.end() :]
    if NUMBER.fullmatch(answer) and float(answer):
        yield f"{float(answer) / 100:g}"
        yield answer + " \\cdot 100"


def main(folder: Path) -> int:
    """Print the tables; 0 when all is as it has to be."""
    console, table = Console(), Table("file", "rows", "verified", "share", "answers/s", title="Gold against itself")
    failures: list[tuple[str, Problem, VerdictStatus]] = []
    fine = True
    math: list[Problem] = []
    files: dict[str, list[Problem]] = {}
    with Verifier(workers=2, timeout_s=10.0) as verifier:
        for path in sorted(folder.glob("*.jsonl")):
            source = ProblemSource(name=ENTRIES[path.stem], path=path.resolve())
            loaded = load_source(source, "heldout", folder, 0)
            problems = loaded.problems
            console.print(*(f"{path.stem}: no answer given for {id_}" for id_ in loaded.unanswered), sep="\n")
            started = time.monotonic()
            verdicts = verifier.verify([(boxed(p.answer), p.gold) for p in problems])
            seconds = time.monotonic() - started
            right = sum(verdict.status is VerdictStatus.CORRECT for verdict in verdicts)
            share = right / loaded.rows
            fine &= share >= NEEDED
            table.add_row(path.stem, str(loaded.rows), str(right), f"{share:.2%}", f"{len(problems) / seconds:.0f}")
            pairs = zip(problems, verdicts, strict=True)
            failures += [(path.stem, p, v.status) for p, v in pairs if v.status is not VerdictStatus.CORRECT]
            math += problems if path.stem in ("math500", "math_train") else []
            files[path.stem] = problems
        console.print(table)
        for name, problem, status in failures:
            console.print(f"{name} {problem.id}: {status}: {problem.answer[:110]!r}", markup=False)
        _publishers(console, verifier, files)
        _independent(console, verifier, files)
        fine &= _equivalence(console, verifier, math)
    return 0 if fine else 1


def _publishers(console: Console, verifier: Verifier, files: Mapping[str, list[Problem]]) -> None:
    """Where a publisher spells an answer in several ways: each spelling against the others, and against all."""
    table = Table("file", "answers", "spellings", "by the others", "by all", title="Publishers' own spellings")
    for name, problems in files.items():
        several = [problem for problem in problems if problem.alternatives]
        others: list[tuple[str, Gold]] = []
        whole: list[tuple[str, Gold]] = []
        for problem in several:
            for spelling in problem.spellings:
                rest = tuple(other for other in problem.spellings if other != spelling)
                others.append((boxed(spelling), rest if len(rest) > 1 else rest[0]))
                whole.append((boxed(spelling), problem.gold))
        if several:
            refused = [pair for pair, v in zip(others, verifier.verify(others), strict=True) if not v.reward]
            by_all = sum(verdict.reward > 0 for verdict in verifier.verify(whole))
            right = len(others) - len(refused)
            table.add_row(name, str(len(several)), str(len(others)), str(right), str(by_all))
            for response, gold in refused:
                console.print(f"{name}: refused: {response} for {gold}", markup=False)
    console.print(table)


def _independent(console: Console, verifier: Verifier, files: Mapping[str, list[Problem]]) -> None:
    """Spellings made without the verifier, by file and by kind."""
    table = Table("file", "answers", "spellings", "accepted", title="Independent spellings")
    kinds: dict[str, list[bool]] = {}
    for name, problems in files.items():
        meaning = entry_named(ENTRIES[name]).answers
        spellings = ((problem, list(spelt(problem.answer, meaning))) for problem in problems)
        chosen = list(islice(((problem, others) for problem, others in spellings if others), SPELT))
        asked = [(kind, boxed(text), problem.gold) for problem, others in chosen for kind, text in others]
        verdicts = verifier.verify([(response, gold) for _, response, gold in asked])
        refused = []
        for (kind, response, gold), verdict in zip(asked, verdicts, strict=True):
            kinds.setdefault(kind, []).append(verdict.reward > 0)
            if not verdict.reward:
                refused.append(f"{name}: {kind}: {verdict.status}: {response} for {gold!r}")
        console.print(*refused[:SHOWN], sep="\n", markup=False)
        table.add_row(name, str(len(chosen)), str(len(asked)), _share(len(asked) - len(refused), len(asked)))
    console.print(table)
    by_kind = Table("kind", "spellings", "accepted", title="The same by kind")
    for kind, accepted in sorted(kinds.items()):
        by_kind.add_row(kind, str(len(accepted)), _share(sum(accepted), len(accepted)))
    console.print(by_kind)


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.2%})" if whole else "–"


def _equivalence(console: Console, verifier: Verifier, math: list[Problem]) -> bool:
    """On MATH's answers: each decoration must pass, each wrong number must not."""
    table = Table("change", "pairs", "accepted", title="Equivalence on MATH's answers")
    kinds: dict[str, list[tuple[str, Gold]]] = {}
    for problem in math[:3000]:
        for kind, changed in decorated(problem.answer):
            kinds.setdefault(kind, []).append((boxed(changed), problem.answer))
        for changed in wrong(problem.answer):
            kinds.setdefault("WRONG NUMBER", []).append((boxed(changed), problem.answer))
    bad = 0
    for kind, pairs in sorted(kinds.items()):
        accepted = [pair for pair, v in zip(pairs, verifier.verify(pairs), strict=True) if v.reward]
        table.add_row(kind, str(len(pairs)), _share(len(accepted), len(pairs)))
        if kind == "WRONG NUMBER":
            bad = len(accepted)
            for response, gold in accepted[:40]:
                console.print(f"accepted: {response} for {gold}", markup=False)
    console.print(table)
    return bad == 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
