"""In which layers learning changed what a model says: the change of every attention's and every MLP's contribution, in logit space.

Base and tuned model read the same questions with their right answers (teacher forcing). h is what a decoder layer's self-attention, or
its MLP, adds to the residual stream at an answer token, U [vocabulary, hidden] the unembedding. The change of the contribution is

    ‖U_t h_t − U_b h_b‖ = sqrt( h_tᵀ(U_tᵀU_t)h_t + h_bᵀ(U_bᵀU_b)h_b − 2 h_tᵀ(U_tᵀU_b)h_b ),    below 0 taken as 0

The Gram matrices [hidden, hidden] are summed over blocks of the vocabulary in float64, so no logits are made and memory stays bounded.
Where both models have one U the distance is that of h_t − h_b, which is exactly 0 for equal h. The mean is taken over a sample's answer
tokens (with the token that ends the answer), then over the samples. The final norm and a bias of the head are left out: the distance is
that of the layer's direct contribution, as in a logit lens without norm.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evaluators.analysis.teacher_forcing import encode_answered
from evaluators.generate import Answerer
from foundation.errors import InputError
from tasks.task import Example

Progress = Callable[[int], None]

PARTS = {"attention": "self_attn", "mlp": "mlp"}
"""What is told of a layer -> the module of a decoder layer that does it."""

BLOCK_ROWS = 8192
"""Rows of the vocabulary that are read at a time."""


@dataclass(frozen=True)
class LayerContributions:
    """One tuned checkpoint against its base: the mean distance of each decoder layer, first to last, over `samples` samples."""

    samples: int
    tokens: int
    attention: tuple[float, ...]
    mlp: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Grams:
    """U_tᵀU_t, U_bᵀU_b and U_tᵀU_b, each [hidden, hidden] float64; `equal` where both models have the same U."""

    tuned: Tensor
    base: Tensor
    cross: Tensor
    equal: bool

    def distance(self, tuned: Tensor, base: Tensor) -> Tensor:
        """‖U_t h_t − U_b h_b‖ of each row of h_t and h_b [n, hidden] -> [n] float64."""
        tuned, base = tuned.double(), base.double()
        if self.equal:
            return quadratic(tuned - base, self.tuned, tuned - base).clamp(min=0).sqrt()
        squared = quadratic(tuned, self.tuned, tuned) + quadratic(base, self.base, base) - 2 * quadratic(tuned, self.cross, base)
        return squared.clamp(min=0).sqrt()


def quadratic(left: Tensor, matrix: Tensor, right: Tensor) -> Tensor:
    """leftᵀ matrix right of each row."""
    return ((left @ matrix) * right).sum(dim=1)


def gram(first: Tensor, second: Tensor, rows: int = BLOCK_ROWS) -> Tensor:
    """firstᵀ second in float64, summed over blocks of `rows` rows; both [vocabulary, hidden]."""
    total = torch.zeros(first.shape[1], second.shape[1], dtype=torch.float64, device=first.device)
    for start in range(0, first.shape[0], rows):
        total += first[start : start + rows].double().T @ second[start : start + rows].double()
    return total


def grams_of(tuned: Any, base: Any) -> Grams:
    """The Gram matrices of two models' unembeddings (tied ones too); InputError where their logits cannot be compared."""
    heads = [model.get_output_embeddings().weight.detach() for model in (tuned, base)]
    if heads[0].shape != heads[1].shape:
        raise InputError(
            f"the tuned model's head is {list(heads[0].shape)} and the base's {list(heads[1].shape)}, so their logits cannot be compared; "
            "name a checkpoint that was tuned from this base"
        )
    own = gram(heads[1], heads[1])
    if heads[0].dtype == heads[1].dtype and torch.equal(*heads):
        return Grams(own, own, own, equal=True)
    return Grams(gram(heads[0], heads[0]), own, gram(*heads), equal=False)


def layer_contributions(
    base: Answerer, tuned: Answerer, examples: Sequence[Example], batch_size: int = 8, on_batch: Progress | None = None
) -> LayerContributions:
    """How far `tuned` moved each layer's contributions from `base`'s on the right answers of `examples`.

    Raises InputError for no examples, models that differ in depth, vocabulary or tokenizer, or layers without attention and MLP.
    """
    if not examples or batch_size < 1:
        raise InputError(f"{len(examples)} examples in batches of {batch_size} show nothing; use at least 1 of each")
    depth, own = len(decoder_layers(base.model)), len(decoder_layers(tuned.model))
    if depth != own:
        raise InputError(f"the tuned model has {own} decoder layers and the base {depth}; name a checkpoint that was tuned from this base")
    grams = grams_of(tuned.model, base.model)
    sums = torch.zeros(len(PARTS), depth, dtype=torch.float64)
    tokens = 0
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        distances, owners = batch_distances(base, tuned, grams, batch)
        counts = torch.bincount(owners, minlength=len(batch))
        sums += (distances / counts[owners]).sum(dim=-1)
        tokens += len(owners)
        if on_batch is not None:
            on_batch(start + len(batch))
    attention, mlp = (sums / len(examples)).tolist()
    return LayerContributions(len(examples), tokens, tuple(attention), tuple(mlp))


def batch_distances(base: Answerer, tuned: Answerer, grams: Grams, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """The distances [parts, layers, n] at the batch's n answer tokens, on the CPU in float64; and the sample that each token is of, [n]."""
    (inputs, answers), (others, own) = (encode_answered(each.processor, examples) for each in (base, tuned))
    if not torch.equal(inputs["input_ids"], others["input_ids"]) or not torch.equal(answers, own):
        raise InputError(
            f"base and tuned model make different tokens of example {examples[0].key!r} or of those after it; "
            "name a checkpoint that was tuned from this base, with its tokenizer and chat template"
        )
    before, after = contributions(base, inputs, answers), contributions(tuned, others, answers)
    distances = [[grams.distance(*pair).cpu() for pair in zip(after[part], before[part], strict=True)] for part in PARTS]
    return torch.stack([torch.stack(layers) for layers in distances]), answers.nonzero()[:, 0]


@torch.inference_mode()
def contributions(answerer: Answerer, inputs: dict[str, Tensor], chosen: Tensor) -> dict[str, list[Tensor]]:
    """Part -> what it adds in each layer at the `chosen` [B, T] positions, [n, hidden] each, on the model's device. No logits are made."""
    device, dtype = answerer.device, answerer.model.dtype
    placed = {name: value.to(device, dtype) if value.is_floating_point() else value.to(device) for name, value in inputs.items()}
    layers = decoder_layers(answerer.model)
    found: dict[str, list[Tensor]] = {}
    with ExitStack() as stack:
        for part, module in PARTS.items():
            found[part] = stack.enter_context(captured([getattr(layer, module) for layer in layers], chosen.to(device)))
        answerer.model.base_model(**placed, use_cache=False)
    return found


@contextmanager
def captured(modules: Sequence[nn.Module], chosen: Tensor) -> Iterator[list[Tensor]]:
    """A list that gets each module's output at the `chosen` positions while the context lasts, in the order the modules run."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        whole = output[0] if isinstance(output, tuple) else output  # attention gives its weights too, a router its choices
        outputs.append(whole[chosen].detach())

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def decoder_layers(model: Any) -> list[nn.Module]:
    """The layers of the model's decoder, first to last; InputError where one lacks self-attention or MLP."""
    layers = list(model.get_decoder().layers)
    for number, layer in enumerate(layers):
        lacking = [module for module in PARTS.values() if not hasattr(layer, module)]
        if lacking:
            children = ", ".join(dict(layer.named_children()))
            raise InputError(
                f"decoder layer {number} of {type(model).__name__} has no {lacking[0]!r} (it has {children}); "
                "use a model whose layers are self-attention and MLP"
            )
    return layers
