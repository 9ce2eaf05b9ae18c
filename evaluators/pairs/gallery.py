"""What retrieval chooses among: the images and texts of a split, and which of them belong together. Light: no torch.

A text that stands as a caption of several images is one text that is right for all of them: nobody can tell their captions apart. It still
takes as many places among the texts as there are captions that say it, as in the published protocol (COCO, Flickr30k), which this equals
where no two images share a caption.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from foundation.errors import InputError
from tasks.pairs.records import Captioned


@dataclass(frozen=True)
class Gallery:
    """Distinct texts in the order of their first use, and their ties to images.

    `captions[i]`: for each caption of image i, in its order, the index of its text. `counts[t]`: how many captions say text t.
    `texts_of[i]`, `images_of[t]`: what is right for image i and for text t, ascending.
    """

    texts: tuple[str, ...]
    counts: tuple[int, ...]
    captions: tuple[tuple[int, ...], ...]
    texts_of: tuple[tuple[int, ...], ...]
    images_of: tuple[tuple[int, ...], ...]


def gallery(captions: Sequence[Sequence[str]]) -> Gallery:
    """The gallery of images with these captions. Two captions are the same text where they are equal, character by character."""
    counts = Counter(caption for own in captions for caption in own)
    number = {text: index for index, text in enumerate(counts)}
    numbered = tuple(tuple(number[caption] for caption in own) for own in captions)
    texts_of = tuple(tuple(sorted(set(own))) for own in numbered)
    images_of: list[list[int]] = [[] for _ in number]
    for image, texts in enumerate(texts_of):
        for text in texts:
            images_of[text].append(image)
    return Gallery(tuple(number), tuple(counts.values()), numbered, texts_of, tuple(map(tuple, images_of)))


def captions_of(name: str, records: Sequence[Captioned]) -> list[tuple[str, ...]]:
    """The captions of each record; InputError for a record that has none."""
    captions = [record.captions for record in records]
    if bare := [index for index, own in enumerate(captions) if not own]:
        raise InputError(
            f"set {name!r}: {len(bare)} of {len(captions)} records have no caption, e.g. {records[bare[0]].key!r}; "
            "retrieval needs one of every image, so leave these records out of the data"
        )
    return captions
