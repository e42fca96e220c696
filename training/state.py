"""What changes in a run from step to step, all of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training import distributed
from training.discriminator import Adversary
from training.errors import TrainingError
from training.initial import begin_with
from training.model import UNet
from training.recipe import Recipe

_Tensors = tuple[Tensor, ...] | list[Tensor]


class State:
    """Model, averaged weights, optimizer, adversary, steps and seconds done, random numbers."""

    def __init__(self, recipe: Recipe, pages: str, device: torch.device) -> None:
        """A new run on the pages of this digest. Raises TrainingError about `recipe.initial`."""
        torch.manual_seed(recipe.seed)
        self._run: dict[str, Any] = {"recipe": dataclasses.asdict(recipe), "pages": pages}
        self._ema = recipe.ema
        network = UNet(recipe.model)
        if recipe.initial is not None:
            self._run["initial"] = begin_with(network, recipe.initial)
        model = distributed.shared_norms(network, device)
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(self.model, multi_avg_fn=self._mean, use_buffers=True)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.adversary = (
            Adversary(recipe.learning_rate / 10, device) if recipe.loss.adversarial else None
        )
        self.step, self.seconds = 0, 0.0

    def _mean(self, averages: _Tensors, values: _Tensors, count: Tensor | int) -> None:
        # The first steps are far from where the run goes: their share is kept small.
        decay = min(self._ema, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(decay)(averages, values, count)  # type: ignore[no-untyped-call]

    def snapshot(self) -> dict[str, Any]:
        """For `checkpoint.save`."""
        return {
            **self._run,
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "average": self.average.module.state_dict(),
            "averaged": self.average.n_averaged,
            "optimizer": self.optimizer.state_dict(),
            "adversary": None if self.adversary is None else self.adversary.state_dict(),
            "random": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Go on with what `snapshot` gave, read from `path`.

        Raises TrainingError where it is of another recipe or other pages.
        """
        ours, theirs = (_flat({**x["recipe"], "pages": x["pages"]}) for x in (self._run, state))
        differing = [
            f"{name} {theirs.get(name)}, not {value}"
            for name, value in ours.items()
            if theirs.get(name) != value
        ]
        if differing:
            raise TrainingError(
                f"{path} was made with {'; '.join(differing)}; choose another folder for this "
                "run, or give what that one was made with"
            )
        self.model.load_state_dict(state["model"])
        self.average.module.load_state_dict(state["average"])
        self.average.n_averaged.copy_(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.adversary is not None:
            self.adversary.load_state_dict(state["adversary"])
        torch.set_rng_state(state["random"])
        self.step, self.seconds = state["step"], state["seconds"]


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Those of inner dicts by names such as loss.dark."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = _flat(value) if isinstance(value, dict) else None
        flat |= {name: value} if inner is None else {f"{name}.{k}": v for k, v in inner.items()}
    return flat
