"""One process, or one of several under torchrun: who writes, and which rows of the batch are whose."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Workers:
    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """The only process that prints and writes."""
        return self.rank == 0

    def rows(self, batch: int) -> tuple[int, int]:
        """First and last + 1 of this process's rows: contiguous, every row somebody's, sizes one apart at most."""
        return batch * self.rank // self.count, batch * (self.rank + 1) // self.count

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier()


@contextmanager
def join(device: torch.device) -> Iterator[Workers]:
    """This process among those that torchrun started, or the only one."""
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        yield Workers(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Workers(dist.get_rank(), count, device)
    finally:
        dist.destroy_process_group()
