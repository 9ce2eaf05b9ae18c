"""The loss of Learning without Forgetting (`trainers/strategies/lwf.py`): a frozen teacher's answers beside the student's."""

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, pad
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from trainers.data.collate import IGNORED
from trainers.spec import Precision

CHUNK = 1024
"""Answer tokens whose softmaxes are in memory at one time."""

AUTOCAST = {Precision.BFLOAT16: torch.bfloat16, Precision.FLOAT16: torch.float16}
"""The arithmetic of the precisions that are not the weights' own."""


class Distillation:
    """The model's own loss plus weight * T^2 * KL(teacher || student) over the answer tokens, divided by the global batch's count of them.

    The teacher holds float32 weights and computes in the stage's precision; the KL is float32. Running out of memory is an error here as
    anywhere: nothing is left out.
    """

    def __init__(self, teacher: PreTrainedModel, weight: float, temperature: float, precision: Precision) -> None:
        self.teacher = teacher
        self.weight = weight
        self.temperature = temperature
        self.precision = precision

    def __call__(self, model: PreTrainedModel, batch: Mapping[str, Tensor], outputs: Any, answer_tokens: Tensor) -> Tensor:
        """The loss of one micro batch, scalar."""
        answers = predicts_answer(batch["labels"])
        apart = divergence(self.told(batch, answers), outputs.logits[answers], self.temperature)
        return outputs.loss + self.weight * self.temperature**2 * apart / answer_tokens

    def told(self, batch: Mapping[str, Tensor], answers: Tensor) -> Tensor:
        """The teacher's logits [N, V] at the positions where `answers` [B, T] is true.

        Logits are computed only at columns that hold an answer token in some row, where the model can be asked for less than all.
        """
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        columns = answers.any(dim=0).nonzero().squeeze(1)
        selects = "logits_to_keep" in inspect.signature(self.teacher.forward).parameters
        with torch.no_grad(), self.arithmetic(answers.device):
            self.teacher.to(answers.device)
            logits = self.teacher(**inputs, use_cache=False, **({"logits_to_keep": columns} if selects else {})).logits
        return logits[answers[:, columns]] if selects else logits[answers]

    def arithmetic(self, device: torch.device) -> AbstractContextManager[Any]:
        """Autocast to the stage's precision, where that is not float32."""
        dtype = AUTOCAST.get(self.precision)
        return torch.autocast(device.type, dtype) if dtype else nullcontext()


def predicts_answer(labels: Tensor) -> Tensor:
    """Where the next token is one of the answer: [B, T] bool from labels [B, T]. The last position predicts nothing."""
    return pad(labels[:, 1:] != IGNORED, (0, 1), value=False)


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """sum_n KL(softmax(teacher_n / T) || softmax(student_n / T)) over N tokens, from logits [N, V]; a float32 scalar, in nats.

    Computed CHUNK tokens at a time, and once more for the gradient, so that no softmax over all tokens is kept.
    """
    total = student.new_zeros((), dtype=torch.float32)
    for first in range(0, len(student), CHUNK):
        part = slice(first, first + CHUNK)
        total = total + checkpoint(summed_kl, teacher[part], student[part], temperature, use_reentrant=False, preserve_rng_state=False)
    return total


def summed_kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """The divergence of one chunk."""
    told, said = (log_softmax(logits.float() / temperature, dim=-1) for logits in (teacher, student))
    return kl_div(said, told, reduction="sum", log_target=True)
