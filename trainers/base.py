"""What the loops of all stages share: `transformers.Trainer` with our settings, data order, optimizer and checkpoints.

`trainers/loop.py` learns answers of a vision-language model with it, `trainers/modality/loop.py` pairs of images and texts.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from trainers.checkpoints.resume import load_trained, save_trained
from trainers.data.order import StageOrder
from trainers.parallelize import check_parallel, parallelize
from trainers.parameter_groups import parameter_groups
from trainers.spec import Batches, Precision, Schedule, TrainSpec
from trainers.workers import leave_at_exit, together

SCHEDULES = {Schedule.COSINE: "cosine", Schedule.LINEAR: "linear", Schedule.CONSTANT: "constant_with_warmup"}
"""Our names for the Trainer's schedules; each begins with the warm-up."""

Collate = Callable[[Sequence[int]], dict[str, Tensor]]


class StageArguments(TrainingArguments):
    """The Trainer's settings, and the stage's own beside them."""

    spec: TrainSpec


def training_arguments(spec: TrainSpec, batches: Batches, work: Path) -> StageArguments:
    """The Trainer's settings for this stage; making them also sets up the device and, with several workers, the process group.

    Raises ConfigError and ResourceError for a distribution or precision that cannot be honoured here.
    """
    check_parallel(spec, torch.cuda.is_available())
    started_outside = together()
    args = StageArguments(
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
        fp16=spec.precision is Precision.FLOAT16,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=spec.loaders,
    )
    if together() and not started_outside:
        leave_at_exit()
    args.spec = spec
    args._n_gpu = min(args.n_gpu, 1)  # one process uses one GPU; the Trainer would spread over all it sees and enlarge the batch
    return args


class BaseTrainer(Trainer):
    """The loop of one stage over the examples that `collate` makes batches of, from the numbers that `order` gives.

    `learner` is what the loop calls: the model, or a module around it. `model` is what has the parameters' names: those of the optimizer's
    groups and of the checkpoints. It is float32 and the same on every worker; `find_unused` is whether DDP must look for weights that took
    no part in a batch.
    """

    optimizer: Any

    def __init__(
        self,
        model: PreTrainedModel,
        learner: nn.Module,
        args: StageArguments,
        order: StageOrder,
        collate: Collate,
        callbacks: list[TrainerCallback],
        find_unused: bool,
    ) -> None:
        self.order = order
        self.spec = args.spec
        self.plain = model
        args.ddp_find_unused_parameters = find_unused
        parallelize(model, args.spec, args.device)
        super().__init__(learner, args, data_collator=collate, train_dataset=range(order.examples), callbacks=callbacks)
        self.remove_callback(PrinterCallback)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over the stage's parameter groups."""
        if self.optimizer is None:
            betas = (self.spec.adam_beta1, self.spec.adam_beta2)
            groups = parameter_groups(self.plain, self.spec)
            self.optimizer = torch.optim.AdamW(groups, lr=self.spec.learning_rate, betas=betas, eps=self.spec.adam_epsilon)
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader:
        """Micro batches in the stage's order; with several workers each takes its turn."""
        args = self.args
        loader = DataLoader(
            self.train_dataset,
            batch_size=args.per_device_train_batch_size,
            sampler=self.order,
            collate_fn=self.data_collator,
            pin_memory=args.dataloader_pin_memory,
            num_workers=self.spec.loaders,
        )
        return self.accelerator.prepare(loader)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The weights of a checkpoint: the trained ones, by their names in memory."""
        if self.args.should_save:
            save_trained(self.plain, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: PreTrainedModel | None = None) -> None:
        """Restore exactly what `save_model` wrote. The Trainer's own way does not insist on the names and only warns."""
        load_trained(self.plain, Path(resume_from_checkpoint))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: nobody reads it, and the count walks over all parameters at every step."""
        return 0
