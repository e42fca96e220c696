"""Several processes, one GPU each, as `torchrun` starts them; with one, all of this is nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sketchify_rt.errors import OptionsError

RANK = int(os.environ.get("RANK", "0"))
WORLD = int(os.environ.get("WORLD_SIZE", "1"))
_PATIENCE = timedelta(hours=2)  # of the others, while the first one validates


@contextmanager
def group(device: str) -> Iterator[torch.device]:
    """Join the processes of this run; gives the device of this one.

    device: a torch device, or "auto" for the GPU if there is one. Raises OptionsError where it
    cannot be used.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.empty(1, device=found).item()
    except (RuntimeError, AssertionError, AttributeError, NotImplementedError) as error:
        raise OptionsError(f"--device {device}: torch cannot use it here ({error})") from error
    if found.type == "cuda" and found.index is None:
        found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(found)
    if WORLD == 1:
        yield found
        return
    backend = "nccl" if found.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield found
    finally:
        torch.distributed.destroy_process_group()


def parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """The model, averaging its gradients over the processes."""
    if WORLD == 1:
        return model
    return DistributedDataParallel(model, [device] if device.type == "cuda" else None)


def shared_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """The model, its BatchNorm layers taking statistics over all processes (GPUs only)."""
    if WORLD == 1 or device.type != "cuda":
        return model
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process, so that all stop at the same step."""
    if WORLD == 1:
        return flag
    told = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
    return bool(told.item())
