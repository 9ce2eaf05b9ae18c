"""The digits tasks: no scan in two splits, examples that depend on their address alone, answers that fit the picture."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import ConfigError, InputError
from tasks import digits_canvas
from tasks.digits import EMPTY, DigitsTask, all_texts
from tasks.digits_canvas import CELL, JITTER, TINTS, draw, generator, scans, scans_of
from tasks.digits_scene import CELLS, COLOR_NAMES, WORDS, Glyph
from tasks.registry import DIGITS_BASE, DIGITS_STREAM, TASKS, get_task
from tasks.scoring import exact_match
from tasks.task import Example, Split, Task

names = st.sampled_from(sorted(TASKS))
splits = st.sampled_from(list(Split))


def test_no_scan_is_in_two_splits_and_every_scan_is_in_one() -> None:
    rows = [int(row) for part in scans_of().values() for row in part]
    assert len(rows) == len(set(rows)) == len(scans()[1]) == 1797


def test_every_digit_is_split_60_20_20() -> None:
    held, targets = scans_of(), scans()[1]
    for (split, digit), rows in held.items():
        assert (targets[rows] == digit).all()
        share = len(rows) / (targets == digit).sum()
        assert abs(share - digits_canvas.SHARES[split]) < 0.005  # rounding of about 180 scans: at most half a scan either way


def test_no_two_splits_hold_equal_scans() -> None:
    """The set itself holds no scan twice, so splitting by row is splitting by scan."""
    images, _ = scans()
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_drawing_takes_scans_of_its_split_only(monkeypatch: pytest.MonkeyPatch) -> None:
    used: dict[Split, set[int]] = {split: set() for split in Split}
    choose = digits_canvas.choose_scan

    def recording(glyph: Glyph, split: Split, rng: np.random.Generator) -> int:
        row = choose(glyph, split, rng)
        used[split].add(row)
        return row

    monkeypatch.setattr(digits_canvas, "choose_scan", recording)
    for task in TASKS.values():
        for split in Split:
            task.examples(split, 60)
    allowed = {split: {int(row) for digit in range(10) for row in scans_of()[split, digit]} for split in Split}
    assert all(used[split] and used[split] <= allowed[split] for split in Split)


@settings(max_examples=20, deadline=None)
@given(name=names, split=splits, few=st.integers(0, 6), more=st.integers(6, 12))
def test_examples_are_prefix_stable(name: str, split: Split, few: int, more: int) -> None:
    task = get_task(name)
    assert task.examples(split, few) == task.examples(split, more)[:few]


def test_examples_are_the_same_in_another_process() -> None:
    code = (
        "import hashlib; from tasks.registry import TASKS; from tasks.task import Split; h = hashlib.sha256()\n"
        "for task in TASKS.values():\n"
        "    for e in task.examples(Split.TEST, 5): h.update(e.images[0].tobytes() + (e.key + e.question + e.answer).encode())\n"
        "print(h.hexdigest())"
    )
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 1


def test_seed_split_and_task_give_other_examples_under_unique_keys() -> None:
    kinds = [(name, split, seed) for name in ("name", "next") for split in Split for seed in (0, 1)]
    examples = [e for name, split, seed in kinds for e in DigitsTask(name, data_seed=seed).examples(split, 20)]
    assert len({e.key for e in examples}) == len(examples)
    assert len({e.images[0].tobytes() for e in examples}) == len(examples)


def test_usual_counts() -> None:
    assert len(get_task("parity").examples(Split.VALIDATION)) == 400
    assert get_task("parity").examples(Split.TRAIN, 0) == []
    with pytest.raises(ConfigError, match="-1 examples"):
        get_task("parity").examples(Split.TRAIN, -1)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_what_is_shown_is_uniform(name: str) -> None:
    """Every value, cell and color is about equally frequent, so no answer can be guessed. 4.5 standard deviations over 10 x 19 counts."""
    glyphs = [glyph for index in range(1500) for glyph in DigitsTask(name).scene(Split.TRAIN, index).glyphs]
    for kind, values in (("digit", 10), ("cell", 4), ("color", 5)):
        counts = np.bincount([getattr(glyph, kind) for glyph in glyphs], minlength=values)
        share = 1 / values
        assert len(counts) == values
        assert np.abs(counts - len(glyphs) * share).max() < 4.5 * np.sqrt(len(glyphs) * share * (1 - share))


def expected(name: str, glyphs: tuple[Glyph, ...], question: str) -> str:
    """The right answer, worked out from what is on the canvas."""
    first = glyphs[0]
    at = {CELLS[glyph.cell]: glyph for glyph in glyphs}
    match name:
        case "name":
            return WORDS[first.digit]
        case "where":
            return CELLS[first.cell]
        case "color":
            return COLOR_NAMES[first.color]
        case "cell":
            return WORDS[at[question.removeprefix("Which digit is at the ").removesuffix("?")].digit]
        case "describe":
            words = [f"{COLOR_NAMES[at[place].color]} {WORDS[at[place].digit]}" if place in at else EMPTY for place in CELLS]
            return ", ".join(words)
        case "parity":
            return "odd" if first.digit in {1, 3, 5, 7, 9} else "even"
        case "count":
            return str(len(at))
        case "read":
            left, right = sorted(glyphs, key=lambda glyph: glyph.cell)
            assert left.cell // 2 == right.cell // 2
            return f"{left.digit} {right.digit}"
        case "larger":
            assert len({glyph.digit for glyph in glyphs}) == 2
            return WORDS[max(glyph.digit for glyph in glyphs)]
        case "next":
            return WORDS[first.digit + 1] if first.digit < 9 else "zero"
    raise AssertionError(name)


@settings(max_examples=150, deadline=None)
@given(name=names, split=splits, index=st.integers(0, 5000))
def test_answers_fit_the_scene(name: str, split: Split, index: int) -> None:
    scene = DigitsTask(name).scene(split, index)
    assert scene.answer == expected(name, scene.glyphs, scene.question)
    assert len({glyph.cell for glyph in scene.glyphs}) == len(scene.glyphs)
    assert len(scene.glyphs) in {"cell": {2, 3, 4}, "read": {2}, "larger": {2}}.get(
        name, {1, 2, 3, 4} if name in {"count", "describe"} else {1}
    )


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_canvas_shows_the_scene(name: str) -> None:
    """Each cell of the drawn picture is lit exactly where the scene has a digit, and in its color."""
    task = DigitsTask(name)
    for index, example in enumerate(task.examples(Split.TEST, 25)):
        pixels = np.asarray(example.images[0], dtype=np.float32) / 255
        assert pixels.shape == (32, 32, 3)
        glyphs = {glyph.cell: glyph for glyph in task.scene(Split.TEST, index).glyphs}
        for cell in range(4):
            inner = cell_of(pixels, cell)[JITTER + 1 : -JITTER - 1, JITTER + 1 : -JITTER - 1].reshape(-1, 3)
            lit = inner[inner.max(axis=1) > 0.3]
            assert (len(lit) > 10) == (cell in glyphs)
            if cell in glyphs:
                shown = lit.mean(axis=0) / np.linalg.norm(lit.mean(axis=0))
                likeness = (TINTS / np.linalg.norm(TINTS, axis=1, keepdims=True)) @ shown
                assert int(likeness.argmax()) == glyphs[cell].color


def cell_of(pixels: np.ndarray, cell: int) -> np.ndarray:
    row, column = CELL * (cell // 2), CELL * (cell % 2)
    return pixels[row : row + CELL, column : column + CELL]


def test_a_drawn_digit_is_a_scan_doubled_in_size() -> None:
    image = np.asarray(draw([Glyph(0, 7, 3)], Split.TEST, generator("here")), dtype=np.float32) / 255
    scan = scans()[0][digits_canvas.choose_scan(Glyph(0, 7, 3), Split.TEST, generator("here"))]
    patch = np.kron(scan, np.ones((2, 2)))[:, :, None] * TINTS[3]
    padded = np.zeros((34, 34, 3))
    errors = []
    for down in range(2 * JITTER + 1):
        for right in range(2 * JITTER + 1):
            padded[:] = 0
            padded[down : down + CELL, right : right + CELL] = patch
            errors.append(np.abs(padded[1:-1, 1:-1] - image).max())
    assert min(errors) < 0.1  # noise of 0.02 standard deviation over 3,072 values stays below 5 of them


def test_scoring_wants_the_whole_answer() -> None:
    example = Example("k", (), "Where is the digit?", "top left")
    task = get_task("where")
    assert task.score("  Top   LEFT\n", example) == 1.0
    assert [task.score(text, example) for text in ("top", "top left corner", "", "left top")] == [0.0] * 4
    assert exact_match("4 7", "47") == 0.0


def test_registry() -> None:
    assert tuple(TASKS) == DIGITS_BASE + DIGITS_STREAM
    assert all(isinstance(task, Task) and task.name == name for name, task in TASKS.items())
    with pytest.raises(ConfigError, match="unknown task 'partiy'; did you mean 'parity'"):
        get_task("partiy")
    with pytest.raises(ConfigError, match="unknown digits task"):
        DigitsTask("nam")


def test_tasks_are_values() -> None:
    assert DigitsTask("name") == DigitsTask("name", 0) != DigitsTask("name", 1)
    assert len({DigitsTask("name"), DigitsTask("name", 0)}) == 1


def test_all_texts_hold_every_question_and_answer() -> None:
    texts = set(all_texts())
    words = {word for text in texts for word in text.replace(",", "").split()}
    for name in TASKS:
        for index in range(200):
            scene = DigitsTask(name).scene(Split.TRAIN, index)
            assert scene.question in texts
            assert scene.answer in texts or set(scene.answer.replace(",", "").split()) <= words


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    scans.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"pip install 'mergeline\[digits\]'"):
        scans()


def test_naming_tasks_loads_nothing_heavy() -> None:
    code = "import sys, tasks.registry; print([m for m in ('numpy', 'PIL', 'sklearn', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
