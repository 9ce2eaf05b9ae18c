"""Where tokens stand to one another: one table of relative-position biases for text and image, and which row each pair of tokens reads.

Rows, for an image of W x W patches (VLMo, arXiv 2111.02358, on BEiT's table, arXiv 2106.08254):

    (2W-1)^2   image to image: row (y_i - y_j + W-1)(2W-1) + (x_i - x_j + W-1)
    3          image CLS to patch, patch to image CLS, image CLS to itself
    2          text to image, image to text
    389        text to text: row j - i + 194
    3          text CLS to word, word to text CLS, text CLS to itself

Columns are layers times heads, a layer's heads together. Nothing is stored but the table: indices follow from the sizes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.modality_experts.config import TEXT_POSITIONS, ModalityExpertsConfig

CLS_ROWS = 3
CROSS_ROWS = 2
TEXT_ROWS = 2 * TEXT_POSITIONS


def image_rows(window: int) -> int:
    """Rows of patch offsets, the first of the table; CLS rows follow."""
    return (2 * window - 1) ** 2


def table_rows(window: int) -> int:
    """Rows of the whole table: 1126 for 14 x 14 patches, 2606 for 24 x 24."""
    return image_rows(window) + CLS_ROWS + CROSS_ROWS + TEXT_ROWS


def window_of(table: Tensor) -> int:
    """Patches along one side of an image, from the length of a table."""
    return (round((len(table) - CLS_ROWS - CROSS_ROWS - TEXT_ROWS) ** 0.5) + 1) // 2


def image_index(window: int) -> Tensor:
    """Rows that an image's tokens read of one another: [1+P, 1+P], the CLS token first."""
    place = torch.arange(window)
    row = place.repeat_interleave(window)
    column = place.repeat(window)
    down = row[:, None] - row[None, :] + window - 1
    across = column[:, None] - column[None, :] + window - 1
    return _with_cls(down * (2 * window - 1) + across, image_rows(window))


def text_index(length: int, window: int) -> Tensor:
    """Rows that a text's tokens read of one another: [T, T], the CLS token first."""
    place = torch.arange(length - 1)
    first = image_rows(window) + CLS_ROWS + CROSS_ROWS
    offsets = place[None, :] - place[:, None] + TEXT_POSITIONS - 2
    return _with_cls(offsets + first, first + TEXT_ROWS - CLS_ROWS)


def _with_cls(index: Tensor, first: int) -> Tensor:
    """`index` with a first row and column for the CLS token, whose table rows begin at `first`."""
    size = index.shape[0] + 1
    full = torch.empty(size, size, dtype=torch.long)
    full[1:, 1:] = index
    full[0, :] = first
    full[:, 0] = first + 1
    full[0, 0] = first + 2
    return full


def pair_index(length: int, window: int) -> Tensor:
    """Rows for a text of `length` tokens followed by an image: [T+1+P, T+1+P]."""
    text, image = text_index(length, window), image_index(window)
    cross = image_rows(window) + CLS_ROWS
    above = torch.cat((text, torch.full((len(text), len(image)), cross)), 1)
    below = torch.cat((torch.full((len(image), len(text)), cross + 1), image), 1)
    return torch.cat((above, below), 0)


class RelativePositions(nn.Module):
    """The table, and the biases that a run of layers reads from it."""

    def __init__(self, config: ModalityExpertsConfig) -> None:
        super().__init__()
        self.window = config.window
        self.heads = config.num_attention_heads
        self.table = nn.Parameter(torch.zeros(table_rows(self.window), self.heads * config.num_hidden_layers))
        self._indices: dict[tuple[int, bool, torch.device], Tensor] = {}

    def forward(self, layers: range, text: int = 0, image: bool = False) -> tuple[Tensor, ...]:
        """For each of `layers` its bias [1, heads, N, N] over `text` tokens of text, then the image's where there is one."""
        if not layers:
            return ()
        index = self._index(text, image)
        columns = self.table[:, layers.start * self.heads : layers.stop * self.heads]
        read = functional.embedding(index.flatten(), columns).view(*index.shape, len(layers), 1, self.heads)
        return read.permute(2, 3, 4, 0, 1).contiguous().unbind(0)

    def _index(self, text: int, image: bool) -> Tensor:
        key = (text, image, self.table.device)
        if key not in self._indices:
            with torch.inference_mode(False):  # what is made in that mode cannot take part in learning afterwards
                made = image_index(self.window) if not text else pair_index(text, self.window) if image else text_index(text, self.window)
                self._indices[key] = made.to(self.table.device)
        return self._indices[key]


def resized(table: Tensor, window: int) -> Tensor:
    """`table` for images of `window` x `window` patches: the rows of patch offsets interpolated (bicubic), all others as they are.

    Computed in float32, given in the table's dtype.
    """
    rest = CLS_ROWS + CROSS_ROWS + TEXT_ROWS
    return torch.cat((resized_image_rows(table[:-rest], window), table[-rest:]))


def resized_image_rows(rows: Tensor, window: int) -> Tensor:
    """The (2V-1)^2 rows of patch offsets for V x V patches as (2W-1)^2 rows for W x W: bicubic, the same bytes where V is W."""
    old, new = round(len(rows) ** 0.5), 2 * window - 1
    if old == new:
        return rows
    grid = rows.float().T.reshape(1, -1, old, old)
    made = functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return made.reshape(-1, new * new).T.to(rows.dtype).contiguous()
