"""The training loop that every part of emoji-sd shares: average, checkpoint, resume, show progress."""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from .optimisers import Optimisers, Parameters, adamw

SAVE_EVERY_S = 120.0
WARM_UP_STEPS = 200
LOG_EVERY_STEPS = 25


@dataclass(frozen=True)
class Stage:
    """One model to train: `loss(step)` draws its own batch from the step's number alone, so a run that
    resumes sees the batches that an unbroken one would have seen."""

    name: str
    model: nn.Module
    loss: Callable[[int], Tensor]
    steps: int
    learning_rate: float
    average_decay: float = 0.999
    optimisers: Optimisers = adamw


def train(stage: Stage, folder: Path, device: torch.device) -> None:
    """Trains `stage.model` in place and leaves the exponential average of its weights in it.

    `folder` keeps NAME.state.safetensors to resume from and NAME.curve.jsonl with the losses.
    Raises FloatingPointError when a loss is not a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = dict(stage.model.named_parameters())
    optimisers = stage.optimisers(parameters, stage.learning_rate)
    average = {name: value.detach().clone() for name, value in parameters.items()}
    state = folder / f"{stage.name}.state.safetensors"
    start = _resume(state, optimisers, parameters, average)

    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TextColumn("loss {task.fields[loss]:.4f}"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    losses: list[float] = []
    saved_at = time.monotonic()
    with Progress(*columns) as progress, (folder / f"{stage.name}.curve.jsonl").open("a") as curve:
        task = progress.add_task(stage.name, total=stage.steps, completed=start, loss=math.nan)
        for step in range(start, stage.steps):
            rate = stage.learning_rate * _schedule(step, stage.steps)
            for optimiser in optimisers:
                optimiser.param_groups[0]["lr"] = rate
            with torch.autocast(device.type, torch.bfloat16):
                loss = stage.loss(step)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            with torch.no_grad():
                decay = min(stage.average_decay, (1 + step) / (10 + step))
                torch._foreach_lerp_(list(average.values()), list(parameters.values()), 1 - decay)

            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"The loss of {stage.name} is {losses[-1]} at step {step}.")
            if (step + 1) % LOG_EVERY_STEPS == 0 or step + 1 == stage.steps:
                mean = sum(losses) / len(losses)
                losses.clear()
                progress.update(task, completed=step + 1, loss=mean)
                curve.write(json.dumps({"step": step + 1, "loss": round(mean, 6)}) + "\n")
                curve.flush()
            if time.monotonic() - saved_at > SAVE_EVERY_S or step + 1 == stage.steps:
                _save(state, step + 1, optimisers, parameters, average)
                saved_at = time.monotonic()
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(average[name])


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * (0.505 + 0.495 * math.cos(math.pi * step / steps))


def _save(
    path: Path, step: int, optimisers: list[Optimizer], parameters: Parameters, average: dict[str, Tensor]
) -> None:
    tensors = {f"average.{name}": value for name, value in average.items()}
    tensors |= {f"weight.{name}": value.detach() for name, value in parameters.items()}
    for number, optimiser in enumerate(optimisers):
        for place, value in enumerate(optimiser.param_groups[0]["params"]):
            for key, kept in optimiser.state[value].items():
                tensors[f"{number}.{place}.{key}"] = kept
    beside = path.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in tensors.items()}, beside, {"step": str(step)})
    os.replace(beside, path)


def _resume(
    path: Path, optimisers: list[Optimizer], parameters: Parameters, average: dict[str, Tensor]
) -> int:
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file, torch.no_grad():
        for name, value in parameters.items():
            value.copy_(file.get_tensor(f"weight.{name}"))
            average[name].copy_(file.get_tensor(f"average.{name}"))
        for number, optimiser in enumerate(optimisers):
            kept = [tensor for tensor in sorted(file.keys()) if tensor.startswith(f"{number}.")]
            for tensor in kept:
                _, place, key = tensor.split(".", 2)
                value = optimiser.param_groups[0]["params"][int(place)]
                optimiser.state[value][key] = _laid_out(file.get_tensor(tensor), value)
        return int(file.metadata()["step"])


def _laid_out(kept: Tensor, value: Tensor) -> Tensor:
    """As its parameter lies in memory: fused AdamW walks through both without a look at their strides."""
    if kept.shape != value.shape:
        return kept.to(value.device)
    return torch.empty_like(value, dtype=kept.dtype).copy_(kept)
