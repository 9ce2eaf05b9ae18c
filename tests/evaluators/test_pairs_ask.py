"""Asking a tiny model: every figure against one record at a time and formulas written naively, and the files."""

import json

import pytest
import torch
from pair_models import save_tiny, secret

from evaluators.pairs.ask import evaluate_pairs
from evaluators.pairs.suite import Asked, PairSuite
from evaluators.scores import read_samples, read_scores
from models.modality_experts import load, load_processor
from tasks.pairs.digits import DigitsCaptions
from tasks.pairs.registry import get_pair_set
from tasks.task import Split

CAPTIONS = DigitsCaptions(captions=2)
QUESTIONS, COMPARISONS, LABELS = (get_pair_set(f"digits_{name}") for name in ("questions", "comparisons", "labels"))
COUNT = 40


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def evaluated(checkpoint, tmp_path_factory):
    """Scores, rows and directory of a suite of all four kinds, on the validation split."""
    output = tmp_path_factory.mktemp("evaluation") / "made"
    suite = PairSuite((Asked(CAPTIONS), Asked(QUESTIONS)), (Asked(COMPARISONS), Asked(LABELS)), Split.VALIDATION, COUNT)
    return evaluate_pairs(checkpoint, suite, output, batch_size=16), output


@pytest.fixture(scope="module")
def parts(checkpoint):
    """The model, and its inputs for one text and one image."""
    model, processor = load(checkpoint), load_processor(checkpoint)
    return model, lambda text: processor.texts([text]), lambda image: processor.images([image])


def naive_ranks(rows, wanted) -> list[int]:
    """The rank of each row's best wanted column, wrong ones first among equals."""
    return [
        1 + sum(value >= max(row[right] for right in own) for column, value in enumerate(row) if column not in own)
        for row, own in zip(rows, wanted, strict=True)
    ]


def share(values) -> float:
    return sum(values) / len(values)


@torch.inference_mode()
def test_retrieval_is_that_of_the_whole_matrix(evaluated, parts) -> None:
    """All captions as columns, equal ones too, and every image and text encoded alone."""
    model, text, image = parts
    scores, _ = evaluated
    records = CAPTIONS.records(Split.VALIDATION, COUNT)
    columns = [(row, caption) for row, record in enumerate(records) for caption in record.captions]
    images = torch.cat([model.heads["itc"].image(model.image(image(record.image()))) for record in records]).double()
    texts = {caption: model.heads["itc"].text(model.text(**text(caption))).double() for _, caption in columns}
    matrix = (images @ torch.cat([texts[caption] for _, caption in columns]).T).tolist()
    to_text = naive_ranks(matrix, [[c for c, (_, caption) in enumerate(columns) if caption in record.captions] for record in records])
    transposed = [list(column) for column in zip(*matrix, strict=True)]
    to_image = naive_ranks(transposed, [[r for r, record in enumerate(records) if caption in record.captions] for _, caption in columns])
    expected = {f"TR@{k}": share([rank <= k for rank in to_text]) for k in (1, 5, 10)}
    expected |= {f"IR@{k}": share([rank <= k for rank in to_image]) for k in (1, 5, 10)}
    found = {name.split("/")[1]: score.accuracy for name, score in scores.items() if name.startswith("digits_captions/")}
    assert found == pytest.approx(expected, abs=1e-12)
    assert scores["digits_captions"].accuracy == pytest.approx(share(list(expected.values())), abs=1e-12)
    assert (scores["digits_captions"].samples, scores["digits_captions/IR@5"].samples) == (COUNT, len(columns))
    assert 0 < expected["TR@10"] < 1


@torch.inference_mode()
def test_answers_are_those_of_one_record_at_a_time(evaluated, parts) -> None:
    model, text, image = parts
    scores, output = evaluated
    rows = {(row.task, row.key): row for row in read_samples(output / "samples.parquet")}
    for record in QUESTIONS.records(Split.VALIDATION, COUNT):
        logits = model.heads["vqa"](model.pool(model.pair(**text(record.question), pixel_values=image(record.image()))))
        chosen = model.config.answers[int(logits.argmax())]
        row = rows["digits_questions", record.key]
        assert (row.question, row.response, row.score) == (record.question, chosen, record.answers.get(chosen, 0.0))
    for record in COMPARISONS.records(Split.VALIDATION, COUNT):
        both = [model.pool(model.pair(**text(record.sentence), pixel_values=image(record.images[n]()), image_type=n + 1)) for n in (0, 1)]
        judged = bool(model.heads["nlvr2"](torch.cat(both, -1)).argmax() == 1)
        row = rows["digits_comparisons", record.key]
        assert (row.answer, row.response, row.score) == (str(record.label).lower(), str(judged).lower(), float(judged == record.label))
    among_five = []
    for record in LABELS.records(Split.VALIDATION, COUNT):
        logits = model.heads["classification"](model.image(image(record.image())))[0]
        best = [model.config.classes[index] for index in logits.topk(5).indices.tolist()]
        row = rows["digits_labels", record.key]
        assert (row.answer, row.response, row.score) == (record.label, best[0], float(best[0] == record.label))
        among_five.append(record.label in best)
    assert scores["digits_labels/top5"].accuracy == share(among_five)
    for task in ("digits_questions", "digits_comparisons", "digits_labels"):
        assert len({row.response for (name, _), row in rows.items() if name == task}) > 1  # the model's answers vary, so this can fail
        assert scores[task].accuracy == pytest.approx(share([row.score for (name, _), row in rows.items() if name == task]), abs=1e-12)


def test_files(evaluated) -> None:
    scores, output = evaluated
    assert list(scores) == [
        "digits_comparisons",
        "digits_labels",
        "digits_labels/top5",
        "digits_captions",
        *(f"digits_captions/{direction}@{k}" for direction in ("TR", "IR") for k in (1, 5, 10)),
        "digits_questions",
    ]
    assert read_scores(output / "scores.json") == scores
    assert sorted(path.name for path in output.iterdir()) == ["samples.parquet", "scores.json"]  # no secret answers, no submission
    rows = read_samples(output / "samples.parquet")
    assert len({(row.task, row.key) for row in rows}) == len(rows)
    directions = [[row.score for row in rows if row.task == f"digits_captions/{direction}"] for direction in ("TR", "IR")]
    assert share([share(each) for each in directions]) == pytest.approx(scores["digits_captions"].accuracy, abs=1e-12)
    image, caption = (next(row for row in rows if row.task == f"digits_captions/{direction}") for direction in ("TR", "IR"))
    assert caption.key == f"{image.key}#0"
    assert (caption.question, caption.answer) == (image.answer, image.key)


def test_same_bytes_again_and_progress(checkpoint, tmp_path) -> None:
    suite = PairSuite((Asked(CAPTIONS, rerank=3), Asked(LABELS)), samples=12)
    heard: list[tuple[str, int, int]] = []
    before = torch.get_num_threads()
    evaluate_pairs(checkpoint, suite, tmp_path / "a", 5, 2, lambda *event: heard.append(event))
    evaluate_pairs(checkpoint, suite, tmp_path / "b", 5, 2)
    assert torch.get_num_threads() == before
    for name in ("scores.json", "samples.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    for name in ("digits_captions", "digits_labels"):
        done, totals = zip(*[(done, total) for task, done, total in heard if task == name], strict=True)
        assert list(done) == sorted(done)
        assert set(totals) == {done[-1]}


@pytest.mark.parametrize("streams", ["separate", "joint"])
@torch.inference_mode()
def test_reranking_all_is_ranking_by_the_matching_head(tmp_path, streams) -> None:
    checkpoint = save_tiny(tmp_path / "model", streams=streams, sharing="shared")
    model, processor = load(checkpoint), load_processor(checkpoint)
    pairs, count = DigitsCaptions(), 9
    scores = evaluate_pairs(checkpoint, PairSuite((Asked(pairs, rerank=count),), samples=count), tmp_path / "out", batch_size=7)
    records = pairs.records(Split.TEST, count)
    assert len({record.captions for record in records}) == count
    odds = []
    for record in records:
        pixels = processor.images([record.image()])
        hidden = [model.pair(**processor.texts(other.captions), pixel_values=pixels) for other in records]
        odds.append([float(logit[0, 1] - logit[0, 0]) for logit in (model.heads["itm"](model.pool(each)) for each in hidden)])
    own = [[index] for index in range(count)]
    assert scores["digits_captions/TR@1"].accuracy == share([rank == 1 for rank in naive_ranks(odds, own)])
    assert scores["digits_captions/TR@5"].accuracy == share([rank <= 5 for rank in naive_ranks(odds, own)])
    columns = [list(column) for column in zip(*odds, strict=True)]
    assert scores["digits_captions/IR@5"].accuracy == share([rank <= 5 for rank in naive_ranks(columns, own)])


def test_secret_answers_are_submitted(checkpoint, tmp_path) -> None:
    soft = dict.fromkeys(QUESTIONS.choices(), 0.6)
    scores = evaluate_pairs(checkpoint, PairSuite((Asked(secret("some", soft)),)), tmp_path)
    assert (scores["some"].accuracy, scores["some"].samples) == (0.6, 1)
    written = json.loads((tmp_path / "vqa_submit.json").read_text())
    rows = read_samples(tmp_path / "samples.parquet")
    assert written == [{"question_id": number, "answer": row.response} for number, row in zip((11, 12), rows, strict=False)]
    assert [row.score != row.score for row in rows] == [True, True, False]  # NaN where secret
    assert rows[2].answer == min(soft)


def test_only_secret_answers_have_no_score(checkpoint, tmp_path) -> None:
    first, second = secret("a set", {}), secret("b", {})
    assert evaluate_pairs(checkpoint, PairSuite((Asked(first), Asked(second))), tmp_path) == {}
    assert len(json.loads((tmp_path / "vqa_submit.a_set.json").read_text())) == 3
    assert (tmp_path / "vqa_submit.b.json").exists()
