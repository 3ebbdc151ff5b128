"""Finished units of a stage that is still running, so that what was computed before a kill is not computed again.

A stage asks engine, verifier and reflection model in an order that its inputs decide. Each answer is written down as
it comes, under its place in that order and the digest of the question. A stage that is started again asks the same
questions and is given the answers that are there: rollouts shard by shard, a search call by call. gepa's random
numbers, budget and archive need no saving, since the search runs again from its seed, only without waiting for
rollouts; nothing is ever unpickled. The last unit, half written, is a draft that nobody reads.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from p2o_core.digests import is_whole, short_digest
from p2o_core.engines.base import LogprobRequest, RolloutEngine, RolloutRequest, Sampling, SpreadingEngine, shards
from p2o_core.engines.language_models import LanguageModel, Reply
from p2o_core.schemas import read_json, read_rows, write_json, write_rows, written_whole
from p2o_core.types import AnswerVerifier, Completion, Gold, Verdict
from tasks.running.storage import remove_empty

Answer = TypeVar("Answer")
Row = TypeVar("Row")
SHORT = 16
"""Hexadecimal digits of a question's digest in a unit's name."""
ASKED_FILE = "asked.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Form(Generic[Answer]):
    """How an answer lies on disk."""

    suffix: str
    write: Callable[[Path, Answer], object]
    read: Callable[[Path], Answer]


def _rows(row_type: type[Row]) -> Form[list[Row]]:
    def write(path: Path, rows: list[Row]) -> object:
        return write_rows(path, rows, row_type)

    return Form(".parquet", write, lambda path: read_rows(path, row_type))


COMPLETIONS = _rows(Completion)
VERDICTS = _rows(Verdict)
LOGPS = Form[list[tuple[float, ...]]](".json", write_json, lambda path: [tuple(row) for row in read_json(path)])
REPLIES = Form[list[Reply]](
    ".json",
    lambda path, replies: write_json(path, [asdict(reply) for reply in replies]),
    lambda path: [Reply(**reply | {"failures": tuple(reply["failures"])}) for reply in read_json(path)],
)


class Journal:
    """The units of one stage of one iteration, in ``folder``. ``asked`` says what the stage was started with
    (parameters, digests of inputs); units of anything else are deleted. ``recalled`` counts the answers that were
    there, ``damaged`` those whose content was not what their name says.

    A unit is named ``<place>-<kind>-<digest of the question>-<digest of the content>``: one that was truncated,
    changed or swapped is recognised before use, and computed again.
    """

    def __init__(self, folder: Path, asked: dict[str, Any]) -> None:
        self.folder = folder
        self.recalled = 0
        self.damaged = 0
        self._place = 0
        known = folder / ASKED_FILE
        if folder.exists() and not (known.exists() and _same(known, asked)):
            shutil.rmtree(folder)
        if not folder.exists():
            folder.mkdir(parents=True)
            write_json(known, asked)
        self._left: dict[str, list[Path]] = {}  # by place; the folder is listed once, a search has thousands of units
        for path in sorted(folder.iterdir()):
            self._left.setdefault(path.name.partition("-")[0], []).append(path)

    def once(self, kind: str, question: object, compute: Callable[[], Answer], form: Form[Answer]) -> Answer:
        """The answer to the stage's next question: from disk if it is there and whole, otherwise computed and kept."""
        (answer,) = self.several(kind, [question], lambda missing: iter([(0, compute())]), form)
        return answer

    def several(
        self,
        kind: str,
        questions: Sequence[object],
        compute: Callable[[list[int]], Iterator[tuple[int, Answer]]],
        form: Form[Answer],
        on_recalled: Callable[[int], None] = lambda number: None,
    ) -> list[Answer]:
        """The answers to the stage's next questions. ``compute`` is given the numbers of those that are not there, and
        yields their answers in any order; each is kept as it comes. ``on_recalled`` is told the others' numbers."""
        stems = [f"{self._place + n:05d}-{kind}-{_digest(question)}-" for n, question in enumerate(questions, start=1)]
        self._place += len(questions)
        answers: dict[int, Answer] = {}
        for number, stem in enumerate(stems):
            for path in self._left.pop(stem.partition("-")[0], []):
                if path.name.startswith(stem) and is_whole(path):
                    self.recalled += 1
                    answers[number] = form.read(path)
                    on_recalled(number)
                    break
                self.damaged += 1
                log.warning("%s is not what its name says, or answers another question: computed again", path)
                path.unlink()
        missing = [number for number in range(len(questions)) if number not in answers]
        for number, answer in compute(missing) if missing else ():
            self._keep(stems[number], answer, form)
            answers[number] = answer
        return [answers[number] for number in range(len(questions))]

    def _keep(self, stem: str, answer: Answer, form: Form[Answer]) -> None:
        with written_whole(self.folder / "unit", lambda draft: f"{stem}{short_digest(draft)}{form.suffix}") as draft:
            form.write(draft, answer)

    def drop_if_unused(self) -> None:
        """A stage that was refused before its first unit leaves nothing."""
        if [path.name for path in self.folder.iterdir()] == [ASKED_FILE]:
            shutil.rmtree(self.folder)
            remove_empty(self.folder.parent)

    def close(self) -> None:
        """The stage is finished: its outputs hold it all."""
        shutil.rmtree(self.folder, ignore_errors=True)


class JournaledEngine:
    """A rollout engine whose completions are units of at most ``unit`` completions. ``point`` gives the engine,
    pointed at its policy: called before each use, since another user may have pointed it elsewhere meanwhile, and
    not called at all when every unit is there."""

    def __init__(
        self,
        point: Callable[[], RolloutEngine],
        journal: Journal,
        *,
        unit: int,
        on_rows: Callable[[int], None] | None = None,
    ) -> None:
        self._point = point
        self._journal = journal
        self._unit = unit
        self._on_rows = on_rows or (lambda rows: None)

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[Completion]:
        """See :class:`p2o_core.engines.base.RolloutEngine`."""
        parts = list(shards(requests, self._unit))
        answers = self._journal.several(
            "completions",
            [[[asdict(request) for request in part], asdict(sampling)] for part in parts],
            lambda missing: self._ask(parts, missing, sampling),
            COMPLETIONS,
            lambda number: self._on_rows(sum(len(request.samples) for request in parts[number])),
        )
        return [completion for answer in answers for completion in answer]

    def completion_logps(self, requests: Sequence[LogprobRequest]) -> list[tuple[float, ...]]:
        """See :class:`p2o_core.engines.base.RolloutEngine`."""
        question = [asdict(request) for request in requests]
        return self._journal.once("logps", question, lambda: self._point().completion_logps(requests), LOGPS)

    def _ask(
        self, parts: Sequence[list[RolloutRequest]], missing: Sequence[int], sampling: Sampling
    ) -> Iterator[tuple[int, list[Completion]]]:
        engine = self._point()
        if isinstance(engine, SpreadingEngine):
            for place, completions in engine.generate_parts([parts[number] for number in missing], sampling):
                yield missing[place], completions
        else:
            for number in missing:
                yield number, engine.generate(parts[number], sampling)


class JournaledVerifier:
    """Verdicts are units too: a time-out that fell once must not fall otherwise when the stage is started again."""

    def __init__(self, verifier: AnswerVerifier, journal: Journal) -> None:
        self._verifier = verifier
        self._journal = journal

    def verify(self, pairs: Sequence[tuple[str, Gold]]) -> list[Verdict]:
        """See :class:`p2o_core.verify.Verifier`."""
        return self._journal.once("verdicts", list(pairs), lambda: self._verifier.verify(pairs), VERDICTS)


class JournaledModel:
    """What a reflection model wrote: a call that came to its end is paid for once."""

    def __init__(self, model: LanguageModel, journal: Journal) -> None:
        self._model = model
        self._journal = journal

    def complete(self, prompts: Sequence[str]) -> list[Reply]:
        """See :class:`p2o_core.engines.language_models.LanguageModel`."""
        before = self._journal.recalled
        replies = self._journal.once("replies", list(prompts), lambda: self._model.complete(prompts), REPLIES)
        self._model.calls += self._journal.recalled - before  # the next one has the seeds it would have had
        return replies

    @property
    def calls(self) -> int:
        return self._model.calls

    @calls.setter
    def calls(self, number: int) -> None:
        self._model.calls = number


def _digest(question: object) -> str:
    return hashlib.sha256(json.dumps(question).encode("utf-8", "surrogatepass")).hexdigest()[:SHORT]


def _same(path: Path, asked: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(path.read_text()) == asked)
    except ValueError:
        return False
