"""The loss of a batch is a mean over its answer tokens, however it is cut: the model must be given their count, and make use of it.

Some families say that they take none though they do, and some take it and leave it: so it is watched, not believed.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from foundation.errors import InputError


class CountedLoss:
    """A model's loss function, and whether the model gave it the count of answer tokens in the global batch when it last called it."""

    def __init__(self, inner: Callable[..., torch.Tensor]) -> None:
        self.inner = inner
        self.counted = False

    def __call__(self, *args: Any, num_items_in_batch: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        """What `inner` gives."""
        self.counted = num_items_in_batch is not None
        return self.inner(*args, num_items_in_batch=num_items_in_batch, **kwargs)


def counting_loss(model: PreTrainedModel) -> CountedLoss:
    """Put a CountedLoss in the place of the model's loss function; InputError for a model that cannot be given the count."""
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in inspect.signature(inner.forward).parameters.values()):
        raise InputError(uncounted(inner))
    inner.loss_function = CountedLoss(inner.loss_function)
    return inner.loss_function


def uncounted(model: Any) -> str:
    """What is said of a model that computes its loss by itself."""
    return (
        f"{type(model).__name__} takes the mean of its loss over each micro batch by itself, so what it learns would depend on "
        "micro_batch_size and workers; use a model whose forward hands num_items_in_batch on to its loss_function, such as "
        "those of the Llama, Qwen and LLaVA families"
    )
