"""The loop of a modality-expert transformer's stage: the shared loop, with the losses of its objectives."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel
from transformers.trainer_callback import TrainerCallback

from trainers.base import BaseTrainer, Collate, StageArguments
from trainers.data.order import StageOrder
from trainers.modality.data.addresses import generator
from trainers.modality.gathering import rank, workers
from trainers.modality.loss import Learner, counting, shares, targets
from trainers.modality.spec import ModalitySpec, Objective
from trainers.workers import summed

TEXTS = {
    "attention_mask": ("input_ids", "attention_mask", "masked_ids", "masked_labels"),
    "text_mask": ("text_ids", "text_mask", "text_labels"),
}
"""What of a batch has a column for each token, by the mask that tells which are real; real ones come first."""


class ModalityTrainer(BaseTrainer):
    """The loop of one stage over the showings that `collate` makes batches of, from their numbers (see `trainers/modality/data`)."""

    def __init__(
        self,
        model: PreTrainedModel,
        args: StageArguments,
        order: StageOrder,
        collate: Collate,
        modality: ModalitySpec,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.modality = modality
        self.shares: dict[Objective, float] = {}
        self.losses: list[Tensor] = []
        # Whatever is trained may take no part: an expert that no objective uses, a head of another stage.
        super().__init__(model, Learner(model, modality), args, order, collate, callbacks, find_unused=True)
        if workers() > 1:  # or all would drop the same layers of their first samples, of their second, ...
            torch.manual_seed(int(generator(f"worker/{args.seed}/{rank()}").integers(2**63)))

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The micro batches of an optimizer step, texts cut to the longest in all of them; and what a target weighs among them all."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        names = counting(self.modality)
        if names and batches:
            counted = zip(*(targets(self.modality, batch) for batch in batches), strict=True)
            totals = summed([sum(column) for column in counted], device)
            self.shares = shares(self.modality, dict(zip(names, totals, strict=True)), len(batches) * workers())
        return cut(batches, device), None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: torch.Tensor | None = None
    ) -> Any:
        """The weighted sum of the objectives' losses on one micro batch, whose mean over micro batches and workers is the step's."""
        loss, losses = model(inputs, self.shares)
        self.losses.append(losses)
        return (loss, losses) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer does, with each objective's loss, before it is weighed."""
        if self.losses and "loss" in logs:
            mean = torch.stack(self.losses).mean(dim=0)
            self.losses.clear()
            if workers() > 1:
                dist.all_reduce(mean)
                mean /= workers()
            names = [f"loss_{name.value}" for name, _ in self.modality.objectives]
            logs = {**logs, **dict(zip(names, mean.tolist(), strict=True))}
        super().log(logs, start_time)


def cut(batches: Sequence[Mapping[str, Tensor]], device: torch.device) -> list[dict[str, Tensor]]:
    """The batches without the columns in which no text of any batch of any worker has a token: they would be computed and not be read."""
    made = [dict(batch) for batch in batches]
    for mask, names in TEXTS.items():
        held = [batch[mask] for batch in made if mask in batch]
        if not held:
            continue
        longest = torch.stack([each.sum(dim=1).max() for each in held]).max().to(device)
        if workers() > 1:
            dist.all_reduce(longest, dist.ReduceOp.MAX)
        for batch in made:
            batch |= {name: batch[name][:, : int(longest)] for name in names if name in batch}
    return made
