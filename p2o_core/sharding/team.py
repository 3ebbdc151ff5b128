"""The processes that train one policy together, as one of them sees it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

PATIENCE = timedelta(hours=2)
"""How long one waits for another in a collective operation. A process that dies ends the others at once, whatever this
is (torchrun sees to it); it is for the first one, which writes a large policy while they wait."""


CPU = torch.device("cpu")


@dataclass(frozen=True)
class Team:
    """``size`` processes, this one being number ``rank``. Every one of them makes the same calls in the same order:
    each operation here, and each forward and backward pass, waits for all of them.

    >>> ALONE.first, ALONE.sum([torch.ones(2)])
    (True, [tensor([1., 1.])])
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """The one that writes files."""
        return self.rank == 0

    def sum(self, values: Sequence[Tensor]) -> list[Tensor]:
        """All processes' ``values``, each added up, in one exchange; the same bits in each process. Adding zeros
        changes nothing, so this also puts together what each process knows a part of."""
        if self.size == 1 or not values:
            return list(values)
        total = torch.cat([value.flatten() for value in values]).to(self.device)
        torch.distributed.all_reduce(total)
        split = total.split([value.numel() for value in values])
        return [part.view_as(value).to(value.device) for part, value in zip(split, values, strict=True)]

    def sum_numbers(self, values: Sequence[float]) -> list[float]:
        """All processes' ``values``, each added up."""
        (total,) = self.sum([torch.tensor(values, dtype=torch.float64)])
        return [float(value) for value in total.tolist()]

    def sum_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Add up the gradients of parameters that every process holds whole. FSDP has added up those of sharded ones in
        the backward pass, each into its shard."""
        grads = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
        for grad, total in zip(grads, self.sum(grads), strict=True):
            grad.copy_(total)


ALONE = Team()
"""One process trains the policy by itself."""


def shares(lengths: Sequence[int], members: int) -> list[list[int]]:
    """The row numbers of each of ``members`` processes, in rising order: the longest row first, each goes to whoever
    has the fewest tokens until then.

    >>> shares([5, 1, 2, 9, 3], members=2)
    [[1, 3], [0, 2, 4]]
    """
    held: list[list[int]] = [[] for _ in range(members)]
    tokens = [0] * members
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        member = tokens.index(min(tokens))
        held[member].append(row)
        tokens[member] += lengths[row]
    return [sorted(rows) for rows in held]


@contextmanager
def joined(rank: int, size: int, device: str, store: Path) -> Iterator[Team]:
    """Meet the other processes of this machine, by the file ``store``. On GPUs each has one of its own."""
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(rank)
        own, backend = torch.device("cuda", rank), "nccl"
    else:
        own, backend = torch.device(device), "gloo"
    torch.distributed.init_process_group(
        backend, init_method=store.resolve().as_uri(), rank=rank, world_size=size, timeout=PATIENCE
    )
    yield Team(rank, size, own)
    torch.distributed.destroy_process_group()  # not after an error: NCCL may wait then for those who wait for this one
