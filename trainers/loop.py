"""`transformers.Trainer` with our settings, our data order, the strategy's loss, and checkpoints that really restore the weights."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from foundation.errors import InputError
from trainers.order import StageOrder
from trainers.resume import load_trained, save_trained
from trainers.spec import Batches, Precision, Schedule, TrainSpec
from trainers.strategy import Adaptation

SCHEDULES = {Schedule.COSINE: "cosine", Schedule.LINEAR: "linear", Schedule.CONSTANT: "constant_with_warmup"}
"""Our names for the Trainer's schedules; each begins with the warm-up."""

Collate = Callable[[Sequence[int]], dict[str, torch.Tensor]]


def training_arguments(spec: TrainSpec, batches: Batches, work: Path) -> TrainingArguments:
    """The Trainer's settings for this stage; making them also sets up the device and, with several workers, the process group."""
    args = TrainingArguments(
        output_dir=str(work),
        max_steps=batches.steps,
        per_device_train_batch_size=batches.micro_batch,
        gradient_accumulation_steps=batches.accumulation,
        learning_rate=spec.learning_rate,
        lr_scheduler_type=SCHEDULES[spec.schedule],
        warmup_steps=math.ceil(spec.warmup_ratio * batches.steps),
        weight_decay=spec.weight_decay,
        adam_beta1=spec.adam_beta1,
        adam_beta2=spec.adam_beta2,
        adam_epsilon=spec.adam_epsilon,
        max_grad_norm=spec.max_grad_norm,
        optim="adamw_torch",
        seed=spec.seed,
        bf16=spec.precision is Precision.BFLOAT16,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
    )
    args._n_gpu = min(args.n_gpu, 1)  # one process uses one GPU; the Trainer would spread over all it sees and enlarge the batch
    return args


class StageTrainer(Trainer):
    """The loop of one stage over the examples that `collate` makes batches of, from their indices."""

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        order: StageOrder,
        collate: Collate,
        adaptation: Adaptation,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.order = order
        self.adaptation = adaptation
        super().__init__(model, args, data_collator=collate, train_dataset=range(order.examples), callbacks=callbacks)
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader:
        """Micro batches in the stage's order; with several workers each takes its turn."""
        args = self.args
        loader = DataLoader(
            self.train_dataset,
            batch_size=args.per_device_train_batch_size,
            sampler=self.order,
            collate_fn=self.data_collator,
            pin_memory=args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: torch.Tensor | None = None
    ) -> Any:
        """The model's own loss over the answer tokens, or the strategy's."""
        hook = self.adaptation.loss
        if hook is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if num_items_in_batch is None:
            raise InputError(f"{type(self.model).__name__} takes no num_items_in_batch, which a strategy with a loss of its own needs")
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch)
        # Workers' gradients are averaged, but each loss is already its share of the global batch: undo the average.
        loss = hook(self.accelerator.unwrap_model(model), inputs, outputs, num_items_in_batch) * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The weights of a checkpoint: the trained ones, by their names in memory."""
        if self.args.should_save:
            save_trained(self.model, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: PreTrainedModel | None = None) -> None:
        """Restore exactly what `save_model` wrote. The Trainer's own way does not insist on the names and only warns."""
        load_trained(model or self.model, Path(resume_from_checkpoint))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: nobody reads it, and the count walks over all parameters at every step."""
        return 0
