"""Expert routing: leave every MLP of the language model as it is, train a copy beside it, and learn per token which of the two to use.

The mixture-of-experts baseline of continual learning for vision-language models. The experts and their files are in `models/experts.py`;
here is how they learn. It differs from the code it was first published as in two points: gradients also pass through the original expert
to the layers below, and a model is asked with the top_k it was trained with.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from foundation.errors import ConfigError, InputError
from trainers.strategy import Adaptation, Context

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from models.experts import RoutedMLP

IGNORED = -100
"""The label of a token that carries no loss."""


@dataclass(frozen=True)
class Routing:
    """Train the tuned experts and the routers; further parts of the stage learn as in plain fine-tuning. Later stages go on with both.

    `top_k` experts of the two answer for a token; it is stored with the model. With 1 the router learns from the auxiliary loss alone.
    `initial_bias` is added to a new router's score for the tuned expert and taken from the original's. `aux_weight` is the weight of the
    auxiliary loss (see `router_loss`). `freeze_router` leaves the routers as they are, and the auxiliary loss out.
    """

    rehearses: ClassVar[bool] = False
    reads_fisher: ClassVar[bool] = False
    adds_weights: ClassVar[bool] = True

    top_k: int = 2
    initial_bias: float = 0.0
    aux_weight: float = 0.001
    freeze_router: bool = False

    def __post_init__(self) -> None:
        idle = self.top_k == 1 and self.aux_weight == 0 and not self.freeze_router
        rules = [
            (self.top_k in (1, 2), f"top_k is {self.top_k}; there are two experts, give 1 or 2"),
            (math.isfinite(self.initial_bias), f"initial_bias is {self.initial_bias}; give a number"),
            (self.aux_weight >= 0 and math.isfinite(self.aux_weight), f"aux_weight is {self.aux_weight}; give 0 or more"),
            (not idle, "with top_k 1 only the auxiliary loss teaches the router, and aux_weight is 0; raise it, or set freeze_router"),
        ]
        if problems := [message for honoured, message in rules if not honoured]:
            raise ConfigError("routing: " + "; ".join(problems))

    def start(self, model: "PreTrainedModel", context: Context) -> Adaptation:
        """Make `model` a routed one, unless it is, and freeze all but experts, routers and the stage's other parts.

        Raises ConfigError for parts without the MLPs, InputError for parts that overlap and a start with another top_k.
        """
        from models.experts import MLP, NewRouter, add_experts, routed_mlps
        from models.parts import selected, set_trainable

        parts = context.spec.parts
        if MLP not in parts:
            raise ConfigError(
                f"routing makes experts of {MLP}, but the parts are {', '.join(parts)}; "
                "name it among them (mm_language_model with mm_language_model_train_mlp_only: true)"
            )
        others = [part for part in selected(model, parts) if part != MLP]
        mlps = routed_mlps(model) or add_experts(model, self.top_k, NewRouter(context.spec.seed, self.initial_bias))
        for mlp in mlps.values():
            if mlp.top_k != self.top_k:
                raise InputError(
                    f"{context.start} was trained with top_k {mlp.top_k}, this stage has {self.top_k}; "
                    f"set top_k to {mlp.top_k}, or start from a model without experts"
                )
        model.requires_grad_(False)
        trained = set_trainable(model, others) if others else {}
        for mlp in mlps.values():
            mlp.tuned.requires_grad_(True)
            mlp.router.requires_grad_(not self.freeze_router)
        return Adaptation(trained=trained | self._sizes(mlps), loss=self._loss if self.aux_weight and not self.freeze_router else None)

    def memory(self, weights: int, trained: int) -> int:
        """The tuned experts' and routers' float32 weights, which are the trained ones and no part of the model's."""
        return 4 * trained

    def _sizes(self, mlps: "Mapping[int, RoutedMLP]") -> dict[str, int]:
        """The trained weights of experts and routers."""
        from models.experts import MLP

        count = {
            f"{MLP} (tuned experts)": sum(each.numel() for mlp in mlps.values() for each in mlp.tuned.parameters()),
            f"{MLP} (routers)": sum(each.numel() for mlp in mlps.values() for each in mlp.router.parameters()),
        }
        return {part: size for part, size in count.items() if not (self.freeze_router and "router" in part)}

    def _loss(self, model: "PreTrainedModel", batch: "Mapping[str, Tensor]", outputs: Any, answer_tokens: "Tensor") -> "Tensor":
        """The model's own loss and the weighted auxiliary one."""
        from models.experts import routed_mlps

        scores = [mlp.scores for mlp in routed_mlps(model).values()]
        held = [each for each in scores if each is not None and each.requires_grad]
        if len(held) < len(scores):
            raise InputError(
                f"the routers of {len(scores) - len(held)} of {len(scores)} layers gave no scores that gradients reach, so the auxiliary "
                "loss could not teach them; use gradient checkpointing that is not reentrant, or set aux_weight to 0"
            )
        total: Tensor = outputs.loss + self.aux_weight * router_loss(held, batch) / answer_tokens
        return total


def router_loss(scores: "list[Tensor]", batch: "Mapping[str, Tensor]") -> "Tensor":
    """The cross entropy of choosing the expert an example belongs to: summed over examples by their answer tokens, so that over the answer
    tokens of the global batch it is a mean that no cut into micro batches changes.

    `scores` [B, T, 2] float32 are one layer's each; layers count alike, and so do all tokens of an example, prompt and answer. An example
    belongs to the tuned expert, or to the original where `rehearsed` [B] bool says that it is not of the stage's own task.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from models.experts import TUNED

    labels = batch["labels"]
    mask = batch.get("attention_mask")
    real = torch.ones_like(labels) if mask is None else mask
    rehearsed = batch.get("rehearsed")
    own = torch.ones_like(labels[:, 0]) if rehearsed is None else (~rehearsed.bool()).long()
    target = (own * TUNED)[:, None].expand(labels.shape)
    answers = (labels != IGNORED).sum(dim=1)
    token_weights = real * (answers / real.sum(dim=1).clamp(min=1))[:, None]
    losses = [(cross_entropy(each.transpose(1, 2), target, reduction="none") * token_weights).sum() for each in scores]
    return torch.stack(losses).mean()
