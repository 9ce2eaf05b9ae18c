"""Random views of training images: what stays within bounds, what never happens unless asked for, and what colors and sizes stay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainers.modality.data.addresses import generator
from trainers.modality.data.augment import AREA, FILL, OPERATIONS, RATIO, augment, crop_box, rand_augment


def picture(width: int = 48, height: int = 40) -> Image.Image:
    """Noise in color."""
    return Image.fromarray(generator("picture").integers(0, 256, (height, width, 3), dtype=np.uint8))


@settings(max_examples=100, deadline=None)
@given(width=st.integers(1, 700), height=st.integers(1, 700), seed=st.integers(0, 2**32))
def test_a_crop_lies_in_the_image_and_keeps_half_of_it(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = crop_box(width, height, generator(str(seed)))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if min(width, height) >= 100 and RATIO[0] < width / height < RATIO[1]:
        across, down = right - left, bottom - top
        assert (across + 1) * (down + 1) >= AREA[0] * width * height
        assert RATIO[0] * (1 - 2 / down) <= across / down <= RATIO[1] * (1 + 2 / down)


def test_crops_reach_every_corner() -> None:
    boxes = np.array([crop_box(100, 100, generator(f"corner/{place}")) for place in range(500)])
    assert boxes[:, :2].min() == 0
    assert boxes[:, 2:].max() == 100
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 1e4
    assert areas.min() > 0.48
    assert 0.68 < areas.mean() < 0.76  # uniform between .5 and 1, less what fits no box


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_a_view_is_square_and_the_same_for_the_same_address(mode: str) -> None:
    image = picture().convert(mode)
    views = [augment(image, 32, True, generator(f"view/{place}")) for place in range(20)]
    again = [augment(image, 32, True, generator(f"view/{place}")) for place in range(20)]
    assert all(view.size == (32, 32) and view.mode == "RGB" for view in views)
    assert [view.tobytes() for view in views] == [view.tobytes() for view in again]
    assert len({view.tobytes() for view in views}) == 20


def test_an_image_is_mirrored_half_of_the_time_where_that_is_asked_and_never_else() -> None:
    """An image that is black on the left and white on the right; no other operation can turn it round."""
    halves = Image.new("RGB", (64, 64))
    halves.paste((255, 255, 255), (32, 0, 64, 64))

    def mirrored(flip: bool) -> np.ndarray:
        views = [np.asarray(augment(halves, 32, flip, generator(f"flip/{place}")), dtype=float) for place in range(400)]
        return np.array([view[8:24, 4:10].mean() > view[8:24, 22:28].mean() for view in views])

    assert not mirrored(False).any()
    assert abs(mirrored(True).mean() - 0.5) < 5 * 0.5 / 400**0.5


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_operation_keeps_the_size_and_most_of_the_picture(name: str) -> None:
    fields = np.kron(np.arange(64).reshape(8, 8), np.full((5, 5), 3)).astype(np.uint8)
    image = Image.fromarray(fields).convert("RGB")
    for strength in (-0.7, 0.7):
        changed = OPERATIONS[name](image, strength)
        assert changed.size == image.size
        assert changed.mode == "RGB"
        assert np.corrcoef(np.asarray(changed).reshape(-1), np.asarray(image).reshape(-1))[0, 1] > 0.3
        assert (changed.tobytes() == image.tobytes()) == (name == "identity")


def test_there_are_ten_operations_and_each_is_used() -> None:
    assert len(OPERATIONS) == 10
    image, same, trials = picture(32, 32), 0, 2000
    for place in range(trials):
        same += rand_augment(image, generator(f"rand/{place}")).tobytes() == image.tobytes()
    assert (
        abs(same / trials - (0.5 + 0.5 * 0.1) ** 2) < 0.05
    )  # neither of two done, or done as the identity; noise is rarely left alone else


@pytest.mark.parametrize("name", ["auto_contrast", "equalize", "brightness", "sharpness"])
def test_no_operation_changes_a_color_to_another(name: str) -> None:
    """A red, a green and a blue field keep the channel that leads, since texts name colors."""
    image = Image.new("RGB", (30, 10), (20, 20, 20))
    for place, color in enumerate([(200, 40, 40), (40, 200, 40), (40, 40, 200)]):
        image.paste(color, (10 * place + 2, 2, 10 * place + 8, 8))
    for strength in (-0.7, 0.7):
        changed = np.asarray(OPERATIONS[name](image, strength)).astype(int)
        for place in range(3):
            field = changed[4:6, 10 * place + 4 : 10 * place + 6].mean(axis=(0, 1))
            assert field.argmax() == place
            assert field.max() > 1.2 * np.delete(field, place).max()


def test_what_comes_in_from_outside_is_gray() -> None:
    moved = np.asarray(OPERATIONS["translate_x"](Image.new("RGB", (100, 100)), 0.7))
    gray = (moved == FILL).all(axis=2)
    assert gray[:, -6:].all()
    assert not gray[:, :92].any()
