"""Train a U-Net: one loop, one checkpoint file, resumable at any step."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import torch
from tqdm import tqdm

from training import checkpoint
from training.data import Crops
from training.losses import sketch_loss
from training.model import UNet
from training.pages import Pages
from training.recipe import UNetConfig

LEARNING_RATE = 2e-3
WARMUP = 200  # steps


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """What `fit` is told.

    pages: folder written by `prepare`; output: folder for the checkpoint and the log;
    steps: optimizer steps of the whole run; batch: crops per step; seed: of weights and crops;
    device: a torch device; checkpoint_every: steps between checkpoints; compile: let torch.compile
    fuse the U-Net (a fifth faster on a CPU after half a minute; needs a C++ compiler).
    """

    pages: Path
    output: Path
    steps: int
    batch: int = 8
    seed: int = 0
    device: str = "cpu"
    checkpoint_every: int = 250
    compile: bool = False


def _forget_after(log: Path, step: int) -> None:
    """Leave out of a log what is about to be done again."""
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        log.write_text("".join(x for x in lines if json.loads(x)["step"] <= step), encoding="utf-8")


def fit(config: UNetConfig, options: FitOptions) -> Path:
    """Train, or go on with the checkpoint in ``options.output``; returns the checkpoint's path.

    The arithmetic of the convolutions is bfloat16, about twice as fast as float32 on a CPU with
    AVX-512 BF16; weights, BatchNorm statistics and the loss stay float32.

    Raises ValueError where the checkpoint there belongs to another configuration or other pages.
    """
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "checkpoint.pt"
    pages = Pages.load(options.pages)
    crops = Crops(pages, options.batch, options.seed)
    run = {
        "config": dataclasses.asdict(config),
        "pages": pages.digest,
        "steps": options.steps,
        "batch": options.batch,
        "seed": options.seed,
    }
    torch.manual_seed(options.seed)
    model = UNet(config).to(options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=1e-4)
    warmup = min(WARMUP, options.steps // 2)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=max(1, warmup)),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, options.steps - warmup)),
        ],
        milestones=[warmup],
    )
    first = 0
    if path.exists():
        state = checkpoint.load(path, options.device)
        differing = [name for name, value in run.items() if state[name] != value]
        if differing:
            raise ValueError(
                f"{path} was made with other {', '.join(differing)}; choose another output folder"
            )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["step"]

    model.train()
    forward = torch.compile(model) if options.compile else model
    started = time.monotonic()
    log_path = options.output / "log.jsonl"
    _forget_after(log_path, first)
    with log_path.open("a", encoding="utf-8") as log:
        for step in tqdm(range(first, options.steps), initial=first, total=options.steps):
            inputs, targets = (t.to(options.device) for t in crops[step])
            inputs = inputs.to(memory_format=torch.channels_last)
            with torch.autocast(torch.device(options.device).type, dtype=torch.bfloat16):
                tones = forward(inputs)
            loss = sketch_loss(tones.float(), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            done = step + 1
            if done % 10 == 0 or done == options.steps:
                entry = {"step": done, "loss": loss.item(), "seconds": time.monotonic() - started}
                log.write(json.dumps(entry) + "\n")
                log.flush()
            if done % options.checkpoint_every == 0 or done == options.steps:
                checkpoint.save(
                    path,
                    {
                        **run,
                        "step": done,
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "schedule": schedule.state_dict(),
                    },
                )
    return path
