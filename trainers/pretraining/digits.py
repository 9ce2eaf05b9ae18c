"""Make the demo's base model from a seed, offline: a tiny LLaVA that can name, place, color and describe handwritten digits.

Two phases, as `trainers/pretraining/spec.py` sets them out. (A) The vision tower alone learns what each cell of the canvas holds, on the
layer LLaVA reads. (B) Projector and language model learn to answer, with the tower frozen. (Learning both at once from nothing stays at
chance.) A hand-written loop in plain torch: two short phases, no checkpoints within. The bytes depend on seed, recipe and number of threads
alone.
"""

import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

import torch
from torch import nn

from foundation.files import publish_directory
from models.digits_llava import digits_llava, digits_processor
from models.load import save_checkpoint
from models.parts import LANGUAGE_MODEL, PROJECTOR, VISION_TOWER, set_trainable
from tasks.digits import all_texts
from trainers.pretraining.data import NO_COLOR, NO_DIGIT, Encoded, encode
from trainers.pretraining.spec import DigitsPretraining, Phase

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

Log = Callable[[int, dict[str, float]], None]
LOG_EVERY = 25


def pretrain_digits(
    seed: int, output: Path, on_log: Log | None = None, threads: int = 2, recipe: DigitsPretraining | None = None
) -> dict[str, float]:
    """Train the base model and publish it as the checkpoint directory `output`, which appears only when complete.

    `on_log(step, values)` is called every 25 steps, with steps counted through both phases. `seed` draws the weights, the training examples
    and their order; another number of `threads` gives another (equally good) model. Gives the last losses and the number of steps.
    """
    recipe = recipe or DigitsPretraining()
    log = on_log or (lambda step, values: None)
    output.parent.mkdir(parents=True, exist_ok=True)
    with reproducible(threads):
        model, processor = digits_llava(seed), digits_processor(all_texts())
        data = encode(processor, recipe.samples, data_seed=seed)
        tower_loss = teach_tower(model, data, recipe, seed, log)
        language_loss = teach_language(model, data, recipe, seed, log)
    temporary = output.with_name(f".{output.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        save_checkpoint(model.eval(), processor, temporary)
        publish_directory(temporary, output)
    finally:
        rmtree(temporary, ignore_errors=True)
    return {"tower_loss": tower_loss, "language_loss": language_loss, "steps": float(recipe.tower.steps + recipe.language.steps)}


def teach_tower(model: "LlavaForConditionalGeneration", data: Encoded, recipe: DigitsPretraining, seed: int, log: Log) -> float:
    """Phase A: tell each cell's digit and color from the tower's features; the readings are thrown away. Gives the last logged loss."""
    set_trainable(model, [VISION_TOWER])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        readings = Readings(model.config.vision_config.hidden_size)
    trained = [*(weight for weight in model.parameters() if weight.requires_grad), *readings.parameters()]

    def loss(rows: torch.Tensor) -> torch.Tensor:
        patches = model.model.vision_tower(data.pixels[rows], output_hidden_states=True).hidden_states[-1]
        return readings(patches, (data.digits[rows], data.colors[rows]))

    return descend(trained, loss, recipe.tower, recipe, shuffled(len(data), recipe.tower, seed), "tower_loss", log)


class Readings(nn.Module):
    """Linear readings of digit and color, or none: from the four patches of a cell together, and from each patch alone.

    The first teaches the tower to tell digits apart. The second puts what a cell holds into each of its patches, so that the language model
    need attend to only one of them; without it some seeds never learn to answer about a given cell.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.by_cell = nn.ModuleList([nn.Linear(4 * hidden, NO_DIGIT + 1), nn.Linear(4 * hidden, NO_COLOR + 1)])
        self.by_patch = nn.ModuleList([nn.Linear(hidden, NO_DIGIT + 1), nn.Linear(hidden, NO_COLOR + 1)])

    def forward(self, patches: torch.Tensor, held: Sequence[torch.Tensor]) -> torch.Tensor:
        """The summed cross-entropies for patches [B, 16, hidden] and what each cell holds: digits [B, 4] and colors [B, 4]."""
        size, _, hidden = patches.shape
        grid = patches.reshape(size, 2, 2, 2, 2, hidden)  # cell row, patch row, cell column, patch column
        cells = grid.permute(0, 1, 3, 2, 4, 5).reshape(size, 4, 4, hidden)
        total = patches.new_zeros(())
        for by_cell, by_patch, classes in zip(self.by_cell, self.by_patch, held, strict=True):
            total = total + nn.functional.cross_entropy(by_cell(cells.flatten(2)).flatten(0, 1), classes.flatten())
            of_patches = classes[:, :, None].expand(-1, -1, 4)
            total = total + nn.functional.cross_entropy(by_patch(cells).flatten(0, 2), of_patches.flatten())
        return total


def teach_language(model: "LlavaForConditionalGeneration", data: Encoded, recipe: DigitsPretraining, seed: int, log: Log) -> float:
    """Phase B: answer the mixture with projector and language model, the tower frozen. Gives the last logged loss."""
    set_trainable(model, [LANGUAGE_MODEL, PROJECTOR])
    trained = [weight for weight in model.parameters() if weight.requires_grad]

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return model(**data.batch(rows), use_cache=False).loss

    def log_on(step: int, values: dict[str, float]) -> None:
        log(recipe.tower.steps + step, values)

    return descend(trained, loss, recipe.language, recipe, shuffled(len(data), recipe.language, seed + 1), "language_loss", log_on)


def descend(
    weights: list[nn.Parameter],
    loss: Callable[[torch.Tensor], torch.Tensor],
    phase: Phase,
    recipe: DigitsPretraining,
    batches: Iterator[torch.Tensor],
    label: str,
    log: Log,
) -> float:
    """Run one phase over batches of row numbers; gives the mean loss of the steps logged last, which is logged as `label`."""
    optimizer = torch.optim.AdamW(weights, lr=phase.learning_rate, betas=(0.9, recipe.beta2), weight_decay=phase.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace(step, phase))
    recent: list[float] = []
    mean = math.nan
    for step, rows in enumerate(batches, start=1):
        value = loss(rows)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(weights, recipe.gradient_clip)
        optimizer.step()
        schedule.step()
        recent.append(float(value.detach()))
        if step % LOG_EVERY == 0 or step == phase.steps:
            mean, recent = math.fsum(recent) / len(recent), []
            log(step, {label: mean})
    return mean


def pace(step: int, phase: Phase) -> float:
    """The share of the full learning rate at `step`, counted from 0: linear up, then a cosine down to zero."""
    if step < phase.warmup_steps:
        return (step + 1) / phase.warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - phase.warmup_steps) / max(1, phase.steps - phase.warmup_steps)))


def shuffled(examples: int, phase: Phase, seed: int) -> Iterator[torch.Tensor]:
    """A phase's batches of row numbers, each pass over the data in a new order drawn from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    queue = torch.empty(0, dtype=torch.int64)
    for _ in range(phase.steps):
        while len(queue) < phase.batch_size:
            queue = torch.cat([queue, torch.randperm(examples, generator=generator)])
        yield queue[: phase.batch_size]
        queue = queue[phase.batch_size :]


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Within: `threads` threads and deterministic algorithms. After: as before."""
    before, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict)
