"""The diagonal Fisher information of a checkpoint on a task's training examples, for EWC and for Fisher-weighted merging.

    F_i = 1/N * sum_n (d log p(answer_n | question_n) / d theta_i)^2
over N examples, each with a gradient of its own (Kirkpatrick et al. 2017, arXiv 1612.00796; Matena and Raffel 2022, arXiv 2111.09832,
section 3.1). log p(answer) is the sum over the answer's tokens, the one that ends it included, not divided by their number: it is the
answer that is one draw. The true Fisher wants answers from the model itself (`Labels.MODEL`): each token is drawn from the model's
distribution after the data's tokens before it. With the data's answers (`Labels.DATA`) it is the "empirical Fisher", which is small
where the model fits the data, however much it depends on the weight (Kunstner et al. 2019, arXiv 1905.12558).
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from foundation.errors import InputError
from models.load import load_model, load_processor
from models.parts import set_trainable
from tasks.task import Split, Task
from trainers.data.collate import AnswerCollator
from trainers.fisher.spec import FisherSpec, Labels
from trainers.fisher.statistics import write_statistic
from trainers.strategies.distillation import predicts_answer
from trainers.workers import reproducible

Progressed = Callable[[int, int], None]


@dataclass(frozen=True)
class FisherResult:
    """What was measured: examples, their answer tokens, weights, and the trace (the sum of all F_i), which tells two scales apart."""

    samples: int
    answer_tokens: int
    weights: int
    trace: float


def fisher(
    checkpoint: Path,
    task: Task,
    parts: tuple[str, ...],
    samples: int | None,
    seed: int,
    output: Path,
    threads: int = 1,
    on_progress: Progressed | None = None,
    labels: Labels = Labels.MODEL,
) -> FisherResult:
    """Measure the model in `checkpoint` on the task's training split and write `output`, one safetensors file, whole or not at all.

    Its tensors are float32, under the checkpoint's names on disk, for the weights of `parts` alone; its metadata says how it was measured.
    The model computes in float32 and evaluation mode, one example at a time, squares are added up in float64 in the examples' order: with
    one number of threads on a CPU, equal bytes. Takes 16 bytes per measured weight and 4 for every other. `samples` are the first of the
    split (None: as many as it has), `seed` draws the model's answers. `on_progress(done, all)` is called after each example.

    Raises ConfigError for values that FisherSpec refuses, InputError for a checkpoint or task that does not fit, or a gradient that is not
    finite.
    """
    spec = FisherSpec(parts, samples, labels, seed)
    examples = task.examples(Split.TRAIN, spec.samples)
    if not examples:
        raise InputError(f"task {task.name} has no training examples to measure on; name another task")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with reproducible(threads):
        model = load_model(checkpoint, torch.float32).to(device)
        set_trainable(model, spec.parts)
        collate = AnswerCollator(examples, load_processor(checkpoint), room=0)
        weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        sums = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in weights.items()}
        tokens = 0
        for index in range(len(examples)):
            batch = {name: tensor.to(device) for name, tensor in collate([index]).items()}
            tokens += add_squares(sums, model, weights, batch, spec, index)
            if on_progress:
                on_progress(index + 1, len(examples))
        found = {name: value.div_(len(examples)).float() for name, value in sums.items()}
        refuse_broken(found, checkpoint, task)
        write_statistic(output, model, checkpoint, found, described(task, spec, len(examples)))
    trace = sum(float(value.sum(dtype=torch.float64)) for value in found.values())
    return FisherResult(len(examples), tokens, sum(value.numel() for value in found.values()), trace)


def add_squares(
    sums: Mapping[str, Tensor],
    model: PreTrainedModel,
    weights: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    spec: FisherSpec,
    index: int,
) -> int:
    """Add one example's squared gradients to `sums` and give the number of its answer tokens. A weight its answer does not need adds 0."""
    answers = predicts_answer(batch["labels"])
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    scores = torch.log_softmax(model(**inputs, use_cache=False).logits[answers].float(), dim=-1)  # [N, V]
    targets = draw(scores.detach(), spec.seed, index) if spec.labels is Labels.MODEL else batch["labels"][:, 1:][answers[:, :-1]]
    likelihood = scores.gather(1, targets[:, None]).sum()
    gradients = torch.autograd.grad(likelihood, list(weights.values()), allow_unused=True)
    for name, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            sums[name].addcmul_(gradient.double(), gradient.double())
    return len(targets)


def draw(scores: Tensor, seed: int, index: int) -> Tensor:
    """A token [N] for each row of log probabilities [N, V], drawn by seed and the example's place alone, on the CPU."""
    place = hashlib.sha256(f"fisher {seed} {index}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(place[:8], "little") >> 1)
    return torch.multinomial(scores.double().exp().cpu(), 1, generator=generator)[:, 0].to(scores.device)


def refuse_broken(found: Mapping[str, Tensor], checkpoint: Path, task: Task) -> None:
    """InputError where a weight's Fisher is not finite."""
    for name, value in found.items():
        if not bool(torch.isfinite(value).all()):
            raise InputError(
                f"{checkpoint}: the Fisher information of {name} on {task.name} is not finite; look for weights that are no numbers"
            )


def described(task: Task, spec: FisherSpec, samples: int) -> dict[str, Any]:
    """What the file says of itself."""
    return {
        "statistic": "fisher",
        "task": f"{task!r} version {task.version}",
        "parts": list(spec.parts),
        "samples": samples,
        "labels": spec.labels.value,
        "seed": spec.seed,
    }
