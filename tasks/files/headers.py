"""How large a picture is once it is shown, read from its file's header where the header tells: the size that `images.decode` gives.

PIL's own `getexif` decodes a PNG to look for an orientation behind the pixels; here the PNG's chunks are stepped over instead.
"""

import struct
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from tasks.files.conversation import Picture
from tasks.files.images import DAMAGED, file_status, open_picture

if TYPE_CHECKING:
    from PIL.Image import Image

TELL = frozenset({"BMP", "GIF", "JPEG", "MPO", "PNG", "TIFF", "WEBP"})
"""Formats whose header tells the size that is decoded. Some others (ICO, ICNS) settle it only when they are."""

ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations whose upright picture has width and height exchanged."""

LATE = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
"""PNG chunks that may hold an orientation; behind the pixels PIL reads them only when it decodes."""


def picture_size(folder: str, picture: Picture) -> tuple[int, int]:
    """Width and height of the picture as `open_picture` gives it. Decodes it only where its header does not tell. Raises Unusable."""
    if isinstance(picture, bytes):
        told = header_size(BytesIO(picture))
    else:
        with open(file_status(folder, picture)[0], "rb") as file:
            told = header_size(file)
    return told or open_picture(folder, picture).size


def header_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height, upright, by the header; None where it does not tell or is damaged."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.format not in TELL or (image.format == "PNG" and tells_late(file)):
                return None
            return upright_size(image)
    except (*DAMAGED, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None  # decoding it says what is wrong


def upright_size(image: "Image") -> tuple[int, int]:
    """The size of an image, just opened, once it is turned upright."""
    from PIL import ExifTags, Image

    if image.format == "TIFF":  # PIL gives the upright size of these
        return image.size
    orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return (image.height, image.width) if orientation in ON_ITS_SIDE else image.size


def tells_late(file: BinaryIO) -> bool:
    """Whether a PNG has text or EXIF behind its pixels, or no end."""
    file.seek(8)
    pixels = False
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return False
        pixels |= kind == b"IDAT"
        if pixels and kind in LATE:
            return True
        file.seek(length + 4, 1)
    return True
