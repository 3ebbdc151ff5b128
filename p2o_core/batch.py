"""Completions behind their prompts, as tensors. Completions of one prompt share a row, in which the prompt is computed
once: with prompts of 40 tokens and answers of 10, a group of eight is a third of the tokens that eight rows are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from p2o_core.sharding.team import ALONE, Team, shares

SHARED_ROW = 512
"""Tokens of a row with a shared prompt, at most. Attention costs a row's square, so long completions gain nothing."""

Tokens = Sequence[int]


@dataclass(frozen=True, eq=False)
class Batch:
    """B completions of at most T tokens in R rows of S columns: a prompt, the completions that share it, padding.

    ``input_ids`` [R, S]; ``position_ids`` [R, S], every completion's go on from its prompt's; ``attends`` [R, S, S]
    bool, which tokens (last axis) a token sees, None where no row is shared and all before it is seen.
    ``completion_ids`` and ``completion_mask`` [B, T], right padded; ``predicted_by`` [B, T], the place in
    ``input_ids``, flattened, of the token before each.

    >>> Batch.collate([[5, 6], [7]], [[1], [2, 3]], pad=0).input_ids.tolist()
    [[5, 6, 1], [7, 2, 3]]
    """

    input_ids: Tensor
    position_ids: Tensor
    attends: Tensor | None
    completion_ids: Tensor
    completion_mask: Tensor
    predicted_by: Tensor

    @classmethod
    def collate(cls, prompts: Sequence[Tokens], completions: Sequence[Tokens], pad: int) -> Batch:
        """A row each; ``prompts`` and ``completions`` run in parallel."""
        return cls.of_rows([(prompt, [own]) for prompt, own in zip(prompts, completions, strict=True)], pad)

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[Tokens, Sequence[Tokens]]], pad: int) -> Batch:
        """A row for each prompt with the completions that share it; the batch's completions come in their order.
        Without rows, B = 0 and one token of padding: for a process that has none left while others have.

        >>> batch = Batch.of_rows([([5, 6], [[1, 2], [3]])], pad=0)
        >>> batch.input_ids.tolist(), batch.position_ids.tolist(), batch.predicted_by.tolist()
        ([[5, 6, 1, 2, 3]], [[0, 1, 2, 3, 2]], [[1, 2], [1, 0]])
        """
        rows = rows or [([pad], [])]
        width = max(len(prompt) + sum(map(len, own)) for prompt, own in rows)
        longest = max((len(completion) for _, own in rows for completion in own), default=1)
        ids, places, owners, targets, counts, before = [], [], [], [], [], []
        for row, (prompt, own) in enumerate(rows):
            tokens, positions, owner = list(prompt), list(range(len(prompt))), [0] * len(prompt)
            for number, completion in enumerate(own, start=1):
                first, padding = len(tokens), longest - len(completion)
                predicting = [len(prompt) - 1, *range(first, first + len(completion) - 1)][: len(completion)]
                before.append([row * width + column for column in predicting] + [0] * padding)
                targets.append([*completion] + [pad] * padding)
                counts.append([1] * len(completion) + [0] * padding)
                tokens += completion
                positions += range(len(prompt), len(prompt) + len(completion))
                owner += [number] * len(completion)
            free = width - len(tokens)
            ids.append(tokens + [pad] * free)
            places.append(positions + list(range(len(tokens), width)))
            owners.append(owner + [0] * free)
        owner_of = torch.tensor(owners)
        return cls(
            input_ids=torch.tensor(ids),
            position_ids=torch.tensor(places),
            attends=_attends(owner_of) if any(len(own) > 1 for _, own in rows) else None,
            completion_ids=torch.tensor(targets, dtype=torch.long).view(len(targets), longest),
            completion_mask=torch.tensor(counts, dtype=torch.float32).view(len(targets), longest),
            predicted_by=torch.tensor(before, dtype=torch.long).view(len(targets), longest),
        )

    def to(self, device: torch.device) -> Batch:
        return Batch(*(None if tensor is None else tensor.to(device) for tensor in vars(self).values()))  # type: ignore


def _attends(owner: Tensor) -> Tensor:
    """[R, S, S] bool; ``owner`` [R, S] is the number of a token's completion, 0 for the prompt's."""
    seen, seeing = owner.unsqueeze(1), owner.unsqueeze(2)
    before = torch.ones(owner.shape[1], owner.shape[1], dtype=torch.bool).tril()
    return before & ((seen == 0) | (seen == seeing))


def rows_of(
    prompts: Sequence[Tokens], completions: Sequence[Tokens], tokens: int, *, share: bool, team: Team = ALONE
) -> Iterator[list[list[int]]]:
    """Yield each batch's rows, as the numbers of their completions: rows of similar length, at most ``tokens`` padded
    tokens together. A row longer than that is a batch of its own. With ``share``, completions of one prompt share a row
    of at most :data:`SHARED_ROW` tokens.

    Each process of a ``team`` gets rows of its own, nearly as many tokens as the others, and exactly as many batches:
    those that it is short of have no rows.

    >>> list(rows_of([(5, 6), (7,), (5, 6)], [(1,), (2, 3), (4,)], tokens=8, share=True))
    [[[1], [0, 2]]]
    """
    rows: list[list[int]] = []
    lengths: list[int] = []
    open_row: dict[tuple[int, ...], int] = {}
    for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        row = open_row.get(tuple(prompt)) if share else None
        if row is not None and lengths[row] + len(completion) <= SHARED_ROW:
            rows[row].append(number)
            lengths[row] += len(completion)
        else:
            open_row[tuple(prompt)] = len(rows)
            rows.append([number])
            lengths.append(len(prompt) + len(completion))
    batches = [
        [[rows[own[number]] for number in part] for part in parts([lengths[row] for row in own], tokens)]
        for own in shares(lengths, team.size)
    ]
    passes = max(map(len, batches))
    yield from batches[team.rank] + [[]] * (passes - len(batches[team.rank]))


def parts(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Yield each part's row numbers: rows of similar length, at most ``tokens`` padded tokens together. A single row
    longer than that is a part of its own.

    >>> list(parts([5, 1, 2, 9], tokens=6))
    [[1, 2], [0], [3]]
    """
    part: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if part and (len(part) + 1) * lengths[row] > tokens:
            yield part
            part = []
        part.append(row)
    if part:
        yield part
