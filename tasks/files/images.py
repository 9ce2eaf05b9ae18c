"""Images of records: where they lie, and how they are opened. The check and the training open them by the same function.

How an image is shown, decided once: upright, as its EXIF orientation says; RGB; what is transparent lies over white; 16-bit gray is scaled
to 8 bits. A phone's photo with a second view (MPO) shows the first. Refused: an animation or several pages (one frame would be a guess),
pixel values without a known range (32-bit and float), and more pixels than PIL's limit for decompression bombs.
"""

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from tasks.files.conversation import Picture
from tasks.files.problems import Kind, Unusable

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 89_478_485
"""PIL's own limit: a quarter of a gigabyte as RGB."""


DAMAGED = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, RuntimeError, ArithmeticError, struct.error, zlib.error)
"""What PIL's decoders raise on damaged bytes."""


def located(folder: str, name: str) -> str:
    """The path of the image `name` in `folder`; an absolute name is taken where it lies inside. Links inside the folder are followed."""
    root = os.path.abspath(folder)
    path = os.path.normpath(os.path.join(root, name))
    if not path.startswith(root.rstrip(os.sep) + os.sep):
        raise Unusable(Kind.OUTSIDE, repr(name))
    return path


def relative(folder: str, name: str) -> str:
    """The image's name as seen from the folder, in one spelling on every machine; a name that leaves the folder stays as it is."""
    try:
        return os.path.relpath(located(folder, name), os.path.abspath(folder)).replace(os.sep, "/")
    except (Unusable, ValueError):
        return name


def absolute(folder: str, name: str) -> str:
    """The image's place on this machine, in one spelling; a name that leaves the folder stays as it is."""
    seen = relative(folder, name)
    return seen if seen == name and os.path.isabs(name) else os.path.join(os.path.abspath(folder), seen)


def file_status(folder: str, name: str) -> tuple[str, os.stat_result]:
    """The path of an image and its size and times. Raises Unusable where there is no such file."""
    path = located(folder, name)
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise Unusable(Kind.MISSING, repr(name)) from error
    except OSError as error:
        raise Unusable(Kind.UNREADABLE, f"{name!r} ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise Unusable(Kind.UNREADABLE, f"{name!r} (not a file)")
    return path, status


def open_picture(folder: str, picture: Picture) -> "Image":
    """The picture, wholly decoded, upright, RGB. Raises Unusable."""
    if isinstance(picture, bytes):
        return decode(BytesIO(picture), "the image held in the record")
    return decode(file_status(folder, picture)[0], repr(picture))


def decode(source: str | BytesIO, name: str) -> "Image":
    """An image file's first picture, wholly decoded, upright, RGB. Raises Unusable, naming it `name`."""
    from PIL import ImageOps

    with opened(source, name) as image:
        image.load()
        return as_rgb(ImageOps.exif_transpose(image))


@contextmanager
def opened(source: str | BytesIO, name: str) -> Iterator["Image"]:
    """An image file of which only the header has been read and found fit. Raises Unusable, also for what turns up while it is open."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source) as image:
            _check_header(image, name)
            yield image
    except UnidentifiedImageError as error:
        raise Unusable(Kind.NOT_IMAGE, name) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unusable(Kind.TOO_LARGE, f"{name} (more than {MOST_PIXELS:,} pixels)") from error
    except PermissionError as error:
        raise Unusable(Kind.UNREADABLE, f"{name} ({error.strerror})") from error
    except DAMAGED as error:
        raise Unusable(Kind.TRUNCATED, f"{name} ({error})") from error


def as_rgb(image: "Image") -> "Image":
    """The image as 8-bit RGB; what is transparent lies over white."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        import numpy as np

        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer).convert("RGB")
    return image.convert("RGB")


def _check_header(image: "Image", name: str) -> None:
    """What the header alone tells."""
    if image.width * image.height > MOST_PIXELS:
        raise Unusable(Kind.TOO_LARGE, f"{name} ({image.width} x {image.height}; at most {MOST_PIXELS:,} pixels)")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise Unusable(Kind.MOVING, f"{name} ({frames} frames)")
    if image.mode in {"I", "F"}:
        raise Unusable(Kind.RANGE, f"{name} (mode {image.mode})")
