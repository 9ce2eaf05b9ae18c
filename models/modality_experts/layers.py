"""One layer of the transformer, as in BEiT: attention and MLP with norms before them and LayerScale after, parts per modality.

A layer takes tokens as spans: which expert owns which run of them. A part that is shared sees all tokens at once; a part of which each
modality has its own sees its modality's span. So the same code runs one stream, both joined, and the fused layers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from models.modality_experts.config import Expert, ModalityExpertsConfig, Sharing

OWN: dict[Sharing, tuple[bool, bool, bool, bool]] = {
    Sharing.SHARED: (False, False, False, False),
    Sharing.ALL: (True, True, True, True),
    Sharing.ATTENTION: (True, True, False, False),
    Sharing.FFN: (False, False, True, True),
    Sharing.LAYER_NORM: (True, False, True, False),
}
"""Which of (norm1, attention, norm2, mlp) each modality has of its own."""

Spans = tuple[tuple[Expert, int], ...]
"""(expert, number of tokens) in the order of the tokens."""


class BiasedLinear(nn.Linear):
    """A linear layer without a bias of its own, to which one is given: so that q and v have biases and k has none, in one product."""

    def forward(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.linear(hidden, self.weight, bias)


class Attention(nn.Module):
    """The projections of multi-head attention. Keys have no bias (it would not change the softmax)."""

    def __init__(self, config: ModalityExpertsConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv = BiasedLinear(size, 3 * size, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(size))
        self.v_bias = nn.Parameter(torch.zeros(size))
        self.proj = nn.Linear(size, size)

    def project(self, hidden: Tensor) -> Tensor:
        """Queries, keys and values of [B, N, H]: [B, N, 3H]."""
        return self.qkv(hidden, torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias)))


def attend(qkv: Tensor, heads: int, bias: Tensor) -> Tensor:
    """Softmax(q k / sqrt(d) + bias) v, [B, N, H]. The bias is read in the dtype of `qkv`; logits and softmax are summed in float32."""
    batch, tokens, width = qkv.shape
    query, key, value = qkv.view(batch, tokens, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4).unbind(0)
    seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(qkv.dtype))
    return seen.transpose(1, 2).reshape(batch, tokens, width // 3)


class MLP(nn.Module):
    """fc2(gelu(fc1(x)))."""

    def __init__(self, config: ModalityExpertsConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(hidden)))


class Layer(GradientCheckpointingLayer):
    """Layer `number` of the encoder; its drop path rises linearly from 0 in the first layer to `config.drop_path` in the last."""

    def __init__(self, config: ModalityExpertsConfig, number: int) -> None:
        super().__init__()
        makers: tuple[Callable[[ModalityExpertsConfig], nn.Module], ...] = (norm, Attention, norm, MLP)
        experts = config.experts_of(number)
        self.norm1, self.attention, self.norm2, self.mlp = (
            nn.ModuleDict({expert.value: make(config) for expert in experts}) if own else make(config)
            for own, make in zip(OWN[Sharing(config.sharing)], makers, strict=True)
        )
        self.gamma1 = nn.Parameter(torch.full((config.hidden_size,), config.layer_scale))
        self.gamma2 = nn.Parameter(torch.full((config.hidden_size,), config.layer_scale))
        self.heads = config.num_attention_heads
        self.drop = config.drop_path * number / max(1, config.num_hidden_layers - 1)

    def forward(self, hidden: Tensor, bias: Tensor, spans: Spans) -> Tensor:
        """[B, N, H] to [B, N, H]; `bias` [1 or B, heads, N, N] is added to the attention logits."""
        normed = by_owner(self.norm1, hidden, spans, lambda part, tokens: part(tokens))
        qkv = by_owner(self.attention, normed, spans, lambda part, tokens: part.project(tokens))
        seen = attend(qkv, self.heads, bias)
        hidden = self._add(hidden, by_owner(self.attention, seen, spans, lambda part, tokens: part.proj(tokens)), self.gamma1)
        normed = by_owner(self.norm2, hidden, spans, lambda part, tokens: part(tokens))
        return self._add(hidden, by_owner(self.mlp, normed, spans, lambda part, tokens: part(tokens)), self.gamma2)

    def _add(self, hidden: Tensor, update: Tensor, gamma: Tensor) -> Tensor:
        """hidden + gamma * update, the update left out for a sample at a time in training (stochastic depth, arXiv 1603.09382)."""
        if self.training and self.drop:
            kept = torch.rand(len(update), 1, 1, device=update.device) >= self.drop
            gamma = gamma * (kept / (1 - self.drop)).to(gamma.dtype)
        return torch.addcmul(hidden, update, gamma)


def norm(config: ModalityExpertsConfig) -> nn.LayerNorm:
    """A layer norm of the model's size."""
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


def by_owner(module: nn.Module, tokens: Tensor, spans: Spans, use: Callable[[Any, Tensor], Tensor]) -> Tensor:
    """`use` of the shared part on all tokens, or of each expert's part on the tokens it owns."""
    if not isinstance(module, nn.ModuleDict):
        return use(module, tokens)
    if len(spans) == 1:
        return use(module[spans[0][0].value], tokens)
    runs = tokens.split([length for _, length in spans], dim=1)
    return torch.cat([use(module[expert.value], run) for (expert, _), run in zip(spans, runs, strict=True)], dim=1)
