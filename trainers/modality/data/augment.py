"""What is done to a training image: a random crop, a mirror image where the stage allows it, and RandAugment.

The crop is Inception's (arXiv 1409.4842, 6) with half to all of the image, RandAugment arXiv 1909.13719 with N = 2 of ten operations at
M = 7 of 10, each of the two done with probability 1/2. The ten change no color, because texts name colors; an image is moved by at most a
tenth of its side at M = 10, where AutoAugment (arXiv 1805.09501, table 6) has 0.45, because texts name what lies at the rim.
All of it is Pillow's, on RGB images. All randomness comes from the generator given.
"""

import math
from collections.abc import Callable

from numpy.random import Generator
from PIL import Image, ImageEnhance, ImageOps

AREA = (0.5, 1.0)
"""The share of the image that a crop keeps."""

RATIO = (3 / 4, 4 / 3)
"""A crop's width over its height, log-uniform."""

TRIES = 10
"""How often a crop is drawn before the largest one in the middle is taken."""

OPERATIONS_EACH = 2
MAGNITUDE = 7 / 10
DONE = 0.5

ANGLE = 30.0
SHEAR = 0.3
MOVED = 0.1
ENHANCED = 0.9
"""The largest rotation in degrees, shear, shift as a share of the side, and change of brightness and sharpness."""

FILL = (128, 128, 128)
"""What comes in from outside: the gray that a mean of one half makes zero."""

Operation = Callable[[Image.Image, float], Image.Image]
"""Changes an image by a strength from -1 to 1."""


def affine(image: Image.Image, across: tuple[float, float, float], down: tuple[float, float, float]) -> Image.Image:
    """The image whose pixel (x, y) is the given one's at (a x + b y + c, d x + e y + f)."""
    return image.transform(image.size, Image.Transform.AFFINE, (*across, *down), Image.Resampling.BILINEAR, fillcolor=FILL)


OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, strength: image,
    "auto_contrast": lambda image, strength: ImageOps.autocontrast(image, preserve_tone=True),
    "equalize": lambda image, strength: equalized(image),
    "brightness": lambda image, strength: ImageEnhance.Brightness(image).enhance(1 + ENHANCED * strength),
    "sharpness": lambda image, strength: ImageEnhance.Sharpness(image).enhance(1 + ENHANCED * strength),
    "shear_x": lambda image, strength: affine(image, (1, SHEAR * strength, 0), (0, 1, 0)),
    "shear_y": lambda image, strength: affine(image, (1, 0, 0), (SHEAR * strength, 1, 0)),
    "translate_x": lambda image, strength: affine(image, (1, 0, MOVED * strength * image.width), (0, 1, 0)),
    "translate_y": lambda image, strength: affine(image, (1, 0, 0), (0, 1, MOVED * strength * image.height)),
    "rotate": lambda image, strength: image.rotate(ANGLE * strength, Image.Resampling.BILINEAR, fillcolor=FILL),
}
"""The ten operations; those without a direction are as strong either way."""


def augment(image: Image.Image, size: int, flip: bool, rng: Generator) -> Image.Image:
    """A random view of `image`, RGB, size x size pixels; with `flip`, mirrored left to right half of the time."""
    view = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box=crop_box(image.width, image.height, rng))
    mirrored = rng.random() < 0.5  # drawn in any case, so that all else is the same with and without
    if flip and mirrored:
        view = ImageOps.mirror(view)
    return rand_augment(view, rng)


def crop_box(width: int, height: int, rng: Generator) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random crop; where none fits, the largest in the middle whose ratio is within RATIO."""
    low, high = (math.log(ratio) for ratio in RATIO)
    for _ in range(TRIES):
        area = width * height * rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(low, high))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = int(rng.integers(width - across + 1)), int(rng.integers(height - down + 1))
            return left, top, left + across, top + down
    across, down = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def rand_augment(image: Image.Image, rng: Generator) -> Image.Image:
    """`OPERATIONS_EACH` operations drawn with repetition, each done with probability `DONE`, in either direction."""
    names = list(OPERATIONS)
    for _ in range(OPERATIONS_EACH):
        name, sign, done = names[int(rng.integers(len(names)))], rng.choice((-1.0, 1.0)), rng.random() < DONE
        if done:
            image = OPERATIONS[name](image, float(sign) * MAGNITUDE)
    return image


def equalized(image: Image.Image) -> Image.Image:
    """The image with its brightness spread evenly and its hues kept: only the luminance is equalized."""
    luminance, *hues = image.convert("YCbCr").split()
    return Image.merge("YCbCr", (ImageOps.equalize(luminance), *hues)).convert("RGB")
