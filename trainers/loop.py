"""The loop of a vision-language model's stage: the shared loop, with the strategy's loss, and sharding among workers."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_callback import TrainerCallback

from foundation.errors import InputError
from trainers.base import SCHEDULES, BaseTrainer, Collate, StageArguments, training_arguments
from trainers.checkpoints.resume import save_trained, whole
from trainers.counted_loss import counting_loss, uncounted
from trainers.data.order import StageOrder
from trainers.parallelize import Uses, check_sharded, load_whole_optimizer_state, looks_for_unused, whole_optimizer_state
from trainers.spec import Sharding
from trainers.strategy import Adaptation, Penalty
from trainers.workers import summed

__all__ = ["SCHEDULES", "Collate", "StageArguments", "StageTrainer", "training_arguments"]

AT_ONCE = 32
"""Weights whose penalty's gradients are in memory at one time beside those they are added to."""


class StageTrainer(BaseTrainer):
    """The loop of one stage over the examples that `collate` makes batches of, from their indices."""

    def __init__(
        self,
        model: PreTrainedModel,
        args: StageArguments,
        order: StageOrder,
        collate: Collate,
        adaptation: Adaptation,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.adaptation = adaptation
        self.sharded = args.spec.sharding is not Sharding.NONE
        self.uses = Uses.of(model)
        self.showing: list[int] = []
        self.penalised: torch.Tensor | None = None
        self.counting = counting_loss(model)
        find_unused = looks_for_unused(model, args.world_size, args.device)
        super().__init__(model, model, args, order, collate, callbacks, find_unused)
        # Some families tell the Trainer to leave the count out, though their loss takes it: a batch would be a mean of means.
        self.model_accepts_loss_kwargs = True

    def _prepare_for_training(self, *args: Any) -> Any:
        """As the Trainer does; then make sure that what was asked for is what there is."""
        prepared = super()._prepare_for_training(*args)
        if self.sharded:
            check_sharded(self.model, self.model_wrapped)
        return prepared

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The micro batches of an optimizer step and the count of their answer tokens on all workers.

        Where it matters, all workers also hear which of them show images; InputError, on all, where one would learn nothing.
        """
        batches, answer_tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.uses.all_for_images or (self.sharded and self.uses.some_for_images):
            self.showing = summed(["pixel_values" in batch for batch in batches], device)
            if self.uses.all_for_images and min(self.showing) < self.args.world_size:
                raise InputError(
                    f"training broke at step {self.state.global_step + 1} of {self.state.max_steps}: a micro batch shows no image, but all "
                    "that is trained runs for images alone; leave out the examples without images, or train the language model too"
                )
        return batches, answer_tokens

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of one micro batch; after the last of a step, the gradient of the strategy's penalty on the weights."""
        if self.sharded and self.uses.seldom:  # what no worker used stays without a gradient, as it does on one worker
            self.model.set_reduce_scatter_unused_params(self.uses.experts or self.showing.pop(0) > 0)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.adaptation.penalty is not None and self.accelerator.sync_gradients:
            self._add_penalty(self.adaptation.penalty)
        return loss

    def _add_penalty(self, penalty: Penalty) -> None:
        """Add the penalty's gradient to those of all workers' batches; each worker computes it, from the weights or pieces it holds."""
        value = penalty(self.model)
        scaler = self.accelerator.scaler
        scaled = value if scaler is None else scaler.scale(value)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for first in range(0, len(trained), AT_ONCE):  # not by backward(), to which DDP would listen
            some = trained[first : first + AT_ONCE]
            for parameter, gradient in zip(some, torch.autograd.grad(scaled, some, retain_graph=True, allow_unused=True), strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        self.penalised = value.detach()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer does, with the penalty of the step."""
        if self.penalised is not None and "loss" in logs:
            logs = {**logs, "penalty": float(self.penalised)}
        super().log(logs, start_time)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: torch.Tensor | None = None
    ) -> Any:
        """The model's own loss over the answer tokens of the global batch, or the strategy's."""
        hook = self.adaptation.loss
        if hook is None:
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        else:
            assert num_items_in_batch is not None
            outputs = model(**inputs, num_items_in_batch=num_items_in_batch)
            # Workers' gradients are averaged, but each loss is already its share of the global batch: undo the average.
            loss = hook(self.accelerator.unwrap_model(model), inputs, outputs, num_items_in_batch) * self.accelerator.num_processes
        if not self.counting.counted:
            raise InputError(uncounted(self.model))
        return (loss, outputs) if return_outputs else loss

    def _defer_fsdp_gradient_reduction(self) -> Any:
        """Not deferred: gradients held back over several micro batches would lie whole on every worker."""
        return nullcontext()

    def _clip_grad_norm(self, model: Any) -> Any:
        """The norm of all gradients before clipping, whole on every worker."""
        return whole(super()._clip_grad_norm(model))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The weights of a checkpoint: the trained ones, by their names in memory."""
        if self.args.should_save or self.sharded:
            save_trained(self.model, Path(output_dir or self.args.output_dir), write=self.args.should_save)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """As the Trainer writes them; sharded state is put together first, so that the files are the same for any sharding."""
        if not self.sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = whole_optimizer_state(self.optimizer)
        if self.args.should_save:
            torch.save(state, Path(output_dir, OPTIMIZER_NAME))
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER_NAME))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """What `_save_optimizer_and_scheduler` wrote, sharded or not."""
        if not self.sharded or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        load_whole_optimizer_state(self.optimizer, torch.load(Path(checkpoint, OPTIMIZER_NAME), map_location="cpu", weights_only=True))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint, SCHEDULER_NAME), weights_only=True))
