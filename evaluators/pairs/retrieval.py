"""Image-text retrieval in both directions, by a dual encoder; if asked, the matching head then orders the best candidates again.

Image and text are encoded apart (head `itc`), as unit-length features; their product orders all texts for every image and all images for
every text. With `rerank` = K, the K best distinct texts of every image and the K best images of every text are seen together with it by the
whole model, and the log-odds of a match (head `itm`) order these K anew (as ALBEF does, arXiv 2107.07651). Ties: see `similarity.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evaluators.pairs.asker import Answered, Asker, Report
from evaluators.pairs.gallery import Gallery, captions_of, gallery
from evaluators.pairs.recalls import found, recalls
from evaluators.pairs.similarity import Ranking, nearest_candidates, rank_again, rank_all
from evaluators.pairs.suite import Asked
from evaluators.scores import Sample
from models.modality_experts.config import Streams
from tasks.pairs.records import Captioned

Match = Callable[[Tensor, Tensor], Tensor]
"""Images and texts by index, [P] and [P] -> the log-odds [P] that they match. Pairs come sorted by image."""


@dataclass(frozen=True)
class Retrieved:
    """The ranking of texts for every image, and of images for every distinct text."""

    texts: Ranking
    images: Ranking


def ask_captions(asker: Asker, asked: Asked, records: Sequence[Captioned], report: Report) -> Answered:
    """The recalls of a set of captioned images, and a row for every image (task `NAME/TR`) and every caption (`NAME/IR`).

    A row's score is the share of k = 1, 5, 10 within which the first right answer stands. Progress is counted in images and distinct
    texts, and for re-ranking in images again.
    """
    captions = captions_of(asked.name, records)
    among = gallery(captions)
    total = len(records) * (2 if asked.rerank else 1) + len(among.texts)
    images = image_features(asker, asked, records, lambda done: report(done, total))
    texts = text_features(asker, asked, among.texts, lambda done: report(len(records) + done, total))

    def match(rows: Tensor, columns: Tensor) -> Tensor:
        return matches(asker, asked, records, among.texts, rows, columns, lambda image: report(len(records) + len(texts) + image, total))

    retrieved = retrieve(images, texts, among, asked.rerank, match)
    ranks = retrieved.images.rank.tolist()
    scores = recalls(asked.name, retrieved.texts.rank.tolist(), [[ranks[text] for text in own] for own in among.captions])
    return Answered(scores, _rows(asked.name, records, among, retrieved))


def retrieve(images: Tensor, texts: Tensor, among: Gallery, rerank: int = 0, match: Match | None = None) -> Retrieved:
    """Both rankings, from features [N, H] and [U, H] of the gallery's images and distinct texts; `match` is needed to re-rank."""
    counts = torch.tensor(among.counts)
    alone = torch.ones(len(images), dtype=torch.int64)
    to_text = rank_all(images, texts, among.texts_of, counts)
    to_image = rank_all(texts, images, among.images_of)
    if not rerank or match is None:
        return Retrieved(to_text, to_image)
    chosen_texts = nearest_candidates(images, texts, among.texts_of, rerank)
    chosen_images = nearest_candidates(texts, images, among.images_of, rerank)
    forth = torch.arange(len(images))[:, None] * len(texts) + chosen_texts
    back = chosen_images * len(texts) + torch.arange(len(texts))[:, None]
    wanted = torch.unique(torch.cat([forth.flatten(), back.flatten()]))  # sorted: by image, then by text; every pair is seen once
    odds = match(wanted // len(texts), wanted % len(texts))
    return Retrieved(
        rank_again(to_text, chosen_texts, odds[torch.searchsorted(wanted, forth)], among.texts_of, counts),
        rank_again(to_image, chosen_images, odds[torch.searchsorted(wanted, back)], among.images_of, alone),
    )


@torch.inference_mode()
def image_features(asker: Asker, asked: Asked, records: Sequence[Captioned], on_done: Callable[[int], None]) -> Tensor:
    """Unit-length features of the images, [N, H] float32 on the CPU."""
    kept: list[Tensor] = []
    done = 0
    for batch in asker.batches(records):
        hidden = asker.model.image(asker.images([record.image for record in batch]))
        kept.append(asker.checked(asker.model.heads["itc"].image(hidden), asked))
        done += len(batch)
        on_done(done)
    return torch.cat(kept)


@torch.inference_mode()
def text_features(asker: Asker, asked: Asked, texts: Sequence[str], on_done: Callable[[int], None]) -> Tensor:
    """Unit-length features of the texts, [U, H] float32 on the CPU."""
    kept: list[Tensor] = []
    done = 0
    for batch in asker.batches(texts):
        kept.append(asker.checked(asker.model.heads["itc"].text(asker.model.text(**asker.texts(batch))), asked))
        done += len(batch)
        on_done(done)
    return torch.cat(kept)


@torch.inference_mode()
def matches(
    asker: Asker,
    asked: Asked,
    records: Sequence[Captioned],
    texts: Sequence[str],
    rows: Tensor,
    columns: Tensor,
    on_image: Callable[[int], None],
) -> Tensor:
    """The log-odds [P] float32 that image `rows[p]` and text `columns[p]` match. Sorted by image, so each image is decoded about once."""
    kept: list[Tensor] = []
    for start in range(0, len(rows), asker.batch_size):
        here = rows[start : start + asker.batch_size]
        images, place = torch.unique_consecutive(here, return_inverse=True)
        pixels = asker.images([records[image].image for image in images.tolist()])
        words = asker.texts([texts[text] for text in columns[start : start + asker.batch_size].tolist()])
        hidden = _together(asker.model, words, pixels, place.to(asker.device))
        logits = asker.model.heads["itm"](asker.model.pool(hidden))
        kept.append(asker.checked(logits[:, 1] - logits[:, 0], asked))
        on_image(int(here[-1]) + 1)
    return torch.cat(kept)


def _together(model: Any, words: dict[str, Tensor], pixels: Tensor, place: Tensor) -> Tensor:
    """The states of texts with the images `pixels[place]`; where the streams are separate, an image runs through the lower layers once."""
    if model.config.streams == Streams.JOINT:
        return model.pair(**words, pixel_values=pixels[place])
    return model.fuse(model.text_below(**words), words["attention_mask"], model.image_below(pixels)[place])


def _rows(name: str, records: Sequence[Captioned], among: Gallery, retrieved: Retrieved) -> list[Sample]:
    """A row per image, then a row per caption."""
    keys = [record.key for record in records]
    ranks, firsts = retrieved.texts.rank.tolist(), retrieved.texts.first.tolist()
    rows = [
        Sample(f"{name}/TR", key, "the image's text", among.texts[own[0]], among.texts[first], found(rank))
        for key, own, first, rank in zip(keys, among.captions, firsts, ranks, strict=True)
    ]
    ranks, firsts = retrieved.images.rank.tolist(), retrieved.images.first.tolist()
    for key, own in zip(keys, among.captions, strict=True):
        for place, text in enumerate(own):
            rows.append(Sample(f"{name}/IR", f"{key}#{place}", among.texts[text], key, keys[firsts[text]], found(ranks[text])))
    return rows
