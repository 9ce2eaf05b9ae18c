"""One stage of learning in a process of its own, by this project or by a plain script around `transformers.Trainer`.

    python -m benchmarks.training_alone stage BASE OUTPUT
    python -m benchmarks.training_alone plain BASE OUTPUT

Both train the same weights of the same model on the same examples with the same settings, encoded by the same collator. Printed as JSON in
the last line: samples per second from the end of the first epoch on, when everything is encoded and warm. With RANK, WORLD_SIZE and the
like in the environment it is one of several workers.
"""

import json
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from models.load import load_model, load_processor
from models.parts import set_trainable
from tasks.registry import get_task
from tasks.task import Split
from trainers.data.collate import AnswerCollator
from trainers.spec import TrainSpec
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategy import Adaptation, Context
from trainers.train import train_stage

SPEC = TrainSpec(
    parts=("language_model",), learning_rate=3e-4, max_steps=48, samples=512, batch_size=64, save_steps=1000, log_steps=10, threads=1
)
TASK = "read"
WARM_STEPS = 8
"""One epoch, in which every example is encoded."""


class Watch(TrainerCallback):
    """Notes when the warm steps end and when the last one does."""

    began = ended = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at the clock."""
        if state.global_step == WARM_STEPS:
            self.began = time.perf_counter()
        self.ended = time.perf_counter()

    @property
    def speed(self) -> float:
        """Samples per second of all workers together."""
        return (SPEC.max_steps - WARM_STEPS) * SPEC.batch_size / (self.ended - self.began)  # type: ignore[operator]


@dataclass(frozen=True)
class Watched(FineTuning):
    """Plain fine-tuning with a watch."""

    def start(self, model: Any, context: Context) -> Adaptation:
        """As plain fine-tuning starts."""
        return replace(super().start(model, context), callbacks=(watch,))


watch = Watch()


def run_stage(base: Path, output: Path) -> None:
    """The stage as the pipeline runs it on a worker."""
    train_stage(base, get_task(TASK), SPEC, output, output.with_name(f"{output.name}-work"), strategy=Watched())


def run_plain(base: Path, output: Path) -> None:
    """What one would write by hand."""
    torch.set_num_threads(SPEC.threads)
    set_seed(SPEC.seed)
    examples = get_task(TASK).examples(Split.TRAIN, SPEC.samples)
    model = load_model(base, torch.float32)
    set_trainable(model, SPEC.parts)
    settings = TrainingArguments(
        output_dir=str(output),
        max_steps=SPEC.max_steps or 0,
        per_device_train_batch_size=SPEC.batch_size // int(os.environ.get("WORLD_SIZE", "1")),
        learning_rate=SPEC.learning_rate,
        lr_scheduler_type="cosine",
        logging_steps=SPEC.log_steps,
        optim="adamw_torch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=True,
    )
    collator = AnswerCollator(examples, load_processor(base))
    trainer = Trainer(model, settings, data_collator=collator, train_dataset=range(len(examples)), callbacks=[watch])
    trainer.train()
    trainer.save_model(str(output))


def main() -> None:
    """Print the speed of what the arguments ask for."""
    {"stage": run_stage, "plain": run_plain}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    print(json.dumps({"speed": watch.speed}))


if __name__ == "__main__":
    main()
