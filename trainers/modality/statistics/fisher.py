"""The diagonal Fisher of a modality-expert model on training records, for Fisher-weighted merging of its experts.

    F_i = 1/N * sum_n (d log p(answer_n | question_n) / d theta_i)^2
with a gradient of its own for each of the N answers, as in `trainers/fisher/measure.py` (Kirkpatrick et al. 2017, arXiv 1612.00796; Matena
and Raffel 2022, arXiv 2111.09832, section 3.1): not the square of a batch's mean gradient, which is smaller by about the batch's size. An
answer is, for RETRIEVAL, which of the texts of a group belongs to an image, and which image to a text (softmax of the contrastive head's
similarities in the pure path): two answers a record, with its first caption. For MLM it is all hidden tokens of a text, seen with its
image: log p is their sum. The model answers (`Labels.MODEL`), or the data does (the "empirical Fisher").

A weight that no answer runs through (a vision-language expert's in retrieval) has no Fisher and is left out, not measured as 0: so a merge
that would have to weigh it says that it cannot.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from foundation.errors import ConfigError, InputError
from models.modality_experts import load, load_processor
from models.modality_experts.model import ModalityExpertsModel
from models.modality_experts.processor import PairProcessor
from tasks.pairs.records import Kind, PairSet, Record
from trainers.data.encoding import IGNORED
from trainers.fisher.measure import draw
from trainers.fisher.spec import Labels
from trainers.modality.data.addresses import generator
from trainers.modality.data.masking import mask_words, vocabulary_of
from trainers.modality.spec import HEADS_OF, Objective
from trainers.modality.statistics.spec import FisherSpec, kind_of
from trainers.modality.statistics.sums import Sums
from trainers.modality.statistics.units import Records, contents
from trainers.workers import reproducible

Group = Sequence[tuple[int, Record]]


@dataclass(frozen=True)
class FisherMeasurement:
    """The diagonal Fisher of the checkpoint on the training records of `sets`, which hold captions. Can be sent to any worker."""

    checkpoint: Path
    sets: tuple[PairSet, ...]
    spec: FisherSpec = field(default_factory=FisherSpec)
    statistic: ClassVar[str] = "fisher"

    def __post_init__(self) -> None:
        if (kind := kind_of(self.sets)) is not Kind.CAPTIONS:
            raise ConfigError(
                f"the fisher of {self.spec.objective} is measured on images with captions, not on {kind}; name sets of captions"
            )

    @property
    def parts(self) -> int:
        """Into how many parts the work is cut."""
        return self.spec.parts

    def measure(self, part: int) -> Sums:
        """The sums of squared gradients of one part: a pure function of the measurement and the part's number.

        Runs in float32 and evaluation mode on one thread, on a GPU where there is one; squares are added up in float64. Raises InputError
        for a checkpoint or records that cannot be read or do not suffice, ConfigError for patterns that fit no weight, or none that the
        objective runs through.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        groups = list(self.groups(part))
        if not groups:
            return Sums()
        with reproducible(threads=1):
            model = load(self.checkpoint).to(device).eval()
            self.check_heads(model)
            weights = chosen(model, self.spec.weights)
            asking = Asking(model, load_processor(self.checkpoint), self.spec, device)
            sums: dict[str, Tensor] = {}
            count = 0
            for group in groups:
                answers = asking.retrieval(group) if self.spec.objective is Objective.RETRIEVAL else asking.words(group)
                for place, likelihood in enumerate(answers):
                    add_squares(sums, weights, likelihood, again=place + 1 < len(answers))
                count += len(answers)
        if not sums:
            raise ConfigError(
                f"fisher: {self.spec.objective} runs through none of the {len(weights)} weights called {', '.join(self.spec.weights)}, "
                f"e.g. {next(iter(weights))!r}; name others, or measure another objective"
            )
        values = {name: value.cpu() for name, value in sums.items()}
        return Sums(values, dict.fromkeys(values, count), sum(map(len, groups)))

    def groups(self, part: int) -> Iterator[Group]:
        """The groups of consecutive records of one part: one record for MLM, `among` to twice as many for retrieval."""
        records = Records.of(self.sets, self.spec.samples)
        retrieval = self.spec.objective is Objective.RETRIEVAL
        if retrieval and len(records) < 2:
            raise InputError("the fisher of retrieval needs two records or more to tell apart, there is one; raise samples")
        count = max(1, len(records) // self.spec.among) if retrieval else len(records)
        for group in range(count * part // self.parts, count * (part + 1) // self.parts):
            yield list(records.part(group, count))

    def check_heads(self, model: ModalityExpertsModel) -> None:
        """InputError where the model cannot give the answers."""
        lacking = [head for head in HEADS_OF[self.spec.objective] if head not in model.heads]
        if lacking:
            raise InputError(
                f"{self.checkpoint} has no head {lacking[0]!r}, whose answers are measured; name a model that was trained with it"
            )

    def finish(self, sums: Sums) -> dict[str, Tensor]:
        """From the total of all parts to the Fisher, float32 by weight."""
        return {name: sums.values.pop(name).div_(max(1, sums.counts[name])).float() for name in sorted(sums.counts)}

    def described(self) -> dict[str, Any]:
        """How it is measured, for the file."""
        spec = self.spec
        found: dict[str, Any] = {"objective": spec.objective.value, "labels": spec.labels.value, "weights": list(spec.weights)}
        own = {"among": spec.among} if spec.objective is Objective.RETRIEVAL else {"masked": spec.masked}
        return found | own | {"seed": spec.seed, "parts": spec.parts}


@dataclass(frozen=True)
class Asking:
    """Puts groups of records to a model, and gives the log probability of each answer."""

    model: ModalityExpertsModel
    processor: PairProcessor
    spec: FisherSpec
    device: torch.device

    def retrieval(self, group: Group) -> list[Tensor]:
        """log p of a text for each image of the group, then of an image for each text."""
        texts, pixels = self.inputs(group)
        head: Any = self.model.heads["itc"]
        told, seen = head.text(self.model.text(texts["input_ids"], texts["attention_mask"])), head.image(self.model.image(pixels))
        similarities = head.scale() * seen @ told.T
        return [
            self.answered(torch.log_softmax(scores, dim=-1), torch.arange(len(group)), place, 2 * record + direction)
            for direction, scores in enumerate((similarities, similarities.T))
            for place, (record, _) in enumerate(group)
        ]

    def answered(self, scores: Tensor, own: Tensor, row: int, index: int) -> Tensor:
        """The score of one row's answer: the one drawn, or the data's."""
        if self.spec.labels is Labels.MODEL:
            return scores[row, draw(scores[row : row + 1].detach(), self.spec.seed, index)[0]]
        return scores[row, own[row]]

    def words(self, group: Group) -> list[Tensor]:
        """log p of the hidden tokens of the one text of the group."""
        ((record, _),) = group
        texts, pixels = self.inputs(group)
        rng = generator(f"modality/{self.spec.seed}/fisher/{record}")
        vocabulary = vocabulary_of(self.processor.tokenizer)
        masked, labels = mask_words(texts["input_ids"][0].cpu().numpy(), vocabulary, self.spec.masked, True, rng)
        targets = torch.from_numpy(labels).to(self.device)
        hidden = targets != IGNORED
        state = self.model.pair(torch.from_numpy(masked)[None].to(self.device), texts["attention_mask"], pixels)
        scores = torch.log_softmax(self.model.heads["mlm"](state[0, : len(targets)][hidden]), dim=-1)
        drawn = draw(scores.detach(), self.spec.seed, record) if self.spec.labels is Labels.MODEL else targets[hidden]
        return [scores.gather(1, drawn[:, None]).sum()]

    def inputs(self, group: Group) -> tuple[dict[str, Tensor], Tensor]:
        """The first text and the image of each record, without columns that are padding in all texts."""
        found = [contents(record) for _, record in group]
        made = self.processor.texts([texts[0] for texts, _ in found])
        longest = int(made["attention_mask"].sum(1).max())
        texts = {name: made[name][:, :longest].to(self.device) for name in ("input_ids", "attention_mask")}
        return texts, self.processor.images([images[0][0]() for _, images in found]).to(self.device)


def chosen(model: ModalityExpertsModel, patterns: Sequence[str]) -> dict[str, Tensor]:
    """The weights that a pattern fits, the only ones that then take gradients; ConfigError for a pattern that fits none."""
    names = [name for name, _ in model.named_parameters()]
    idle = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]
    if idle:
        raise ConfigError(f"fisher: no weight of the model is called {idle[0]!r}; its names are like {names[0]!r}")
    found = {}
    for name, weight in model.named_parameters():
        weight.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))
        if weight.requires_grad:
            found[name] = weight
    return found


def add_squares(sums: dict[str, Tensor], weights: dict[str, Tensor], likelihood: Tensor, again: bool) -> None:
    """Add the squares of one answer's gradients to `sums`, of the weights it runs through; `again` if more is asked of the same pass."""
    if not likelihood.requires_grad:
        return
    gradients = torch.autograd.grad(likelihood, list(weights.values()), retain_graph=again, allow_unused=True)
    for name, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            if name not in sums:
                sums[name] = torch.zeros_like(gradient, dtype=torch.float64)
            sums[name].addcmul_(gradient.double(), gradient.double())
