"""Images of examples as files that a browser shows: small ones kept exactly, large ones made smaller."""

import base64
import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

EXACT_SIDE = 256
"""Pixels up to which an image is kept as it is, as PNG."""
LARGEST_SIDE = 640
QUALITY = 85


@dataclass(frozen=True)
class Picture:
    """An image as bytes, under a name made of their digest."""

    name: str
    data: bytes
    width: int
    height: int

    @property
    def url(self) -> str:
        """The picture itself as a `data:` address."""
        kind = "png" if self.name.endswith(".png") else "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(self.data).decode()}"


def picture_of(image: "Image") -> Picture:
    """`image` in RGB: PNG up to EXACT_SIDE, above it JPEG of at most LARGEST_SIDE. The same image gives the same bytes."""
    plain = image.convert("RGB")
    exact = max(plain.size) <= EXACT_SIDE
    if not exact:
        plain.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    if exact:
        plain.save(buffer, "PNG", optimize=True)
    else:
        plain.save(buffer, "JPEG", quality=QUALITY)
    name = f"{hashlib.sha256(buffer.getvalue()).hexdigest()[:16]}.{'png' if exact else 'jpg'}"
    return Picture(name, buffer.getvalue(), *plain.size)
