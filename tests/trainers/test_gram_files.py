"""The directory of a measured statistic: whole or absent, the same bytes for the same measurement, and refused for any other model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from gram_models import small_model
from safetensors.torch import save_file

from foundation.errors import InputError, ResourceError
from foundation.files import directory_manifest
from mergers import Source, read_checkpoint
from mergers.checkpoints.header import read_header
from tasks.pairs.digits import DigitsCaptions
from trainers.modality.statistics.files import About, model_digest, read_about, read_statistics, write_statistics
from trainers.modality.statistics.gram import GramMeasurement
from trainers.modality.statistics.spec import GramSpec
from trainers.modality.statistics.sums import Sums, add_parts, is_part_of, read_sums, write_sums


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model."""
    return small_model(tmp_path_factory.mktemp("files") / "model")


def measure(checkpoint: Path, output: Path) -> About:
    """Four records in two parts."""
    measurement = GramMeasurement(checkpoint, (DigitsCaptions(),), GramSpec(samples=4, parts=2))
    return write_statistics(output, measurement, add_parts(map(measurement.measure, range(2))))


@pytest.fixture(scope="module")
def measured(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of Grams, to read only."""
    measure(model, tmp_path_factory.mktemp("grams") / "gram")
    return next(tmp_path_factory.getbasetemp().glob("grams*/gram"))


def test_it_is_read_as_written(model: Path, measured: Path, tmp_path: Path) -> None:
    """Values and what is said of them; again the same bytes, elsewhere; nothing else is left lying."""
    values, about = read_statistics(measured, checkpoint=model)
    assert about == read_about(measured)
    assert (about.statistic, about.samples, about.split, about.format) == ("gram", 4, "train", 1)
    assert about.sets == ("DigitsCaptions(captions=1, data_seed=0) version 1",)
    assert about.how == {"every": 1, "parts": 2, "passages": ["text", "image"], "products": "float32"}
    assert about.tokens.keys() == values.keys()
    assert about.tokens["encoder.layers.0.mlp.v.fc1.weight"] == 4 * 17
    assert about.model == model_digest(model)
    shutil.copytree(model, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("a card decides nothing")
    measure(tmp_path / "copy", tmp_path / "again")
    assert directory_manifest(tmp_path / "again") == directory_manifest(measured)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "copy"]
    assert sorted(path.name for path in measured.iterdir()) == ["gram.json", "gram.safetensors"]


def test_merging_reads_the_names_of_the_weights(model: Path, measured: Path) -> None:
    """Each tensor is called as the weight whose inputs it is of, [in, in]."""
    held = Source("model", read_checkpoint(model)).tensors()
    for name, entry in read_header(measured / "gram.safetensors").items():
        assert entry.shape == (held[name].shape[1],) * 2
        assert entry.dtype == "F32"


def test_another_model_is_refused(model: Path, measured: Path, tmp_path: Path) -> None:
    """One weight in another place is another model."""
    other = small_model(tmp_path / "other", layer_norm_eps=1e-5)
    with pytest.raises(InputError, match="another model"):
        read_statistics(measured, checkpoint=other)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda directory: (directory / "gram.json").unlink(), "no gram.json"),
        (lambda directory: (directory / "gram.json").write_text("{"), "damaged"),
        (lambda directory: (directory / "gram.safetensors").unlink(), "measure again"),
        (lambda directory: save_file({"x": torch.zeros(1)}, directory / "gram.safetensors"), "measure again"),
    ],
)
def test_damaged_files_are_refused(measured: Path, tmp_path: Path, spoil, words: str) -> None:  # type: ignore[no-untyped-def]
    """A file that lacks, is torn, or is of another measurement than the other."""
    shutil.copytree(measured, tmp_path / "copy")
    spoil(tmp_path / "copy")
    with pytest.raises(InputError, match=words):
        read_statistics(tmp_path / "copy")


def test_another_format_is_refused(measured: Path, tmp_path: Path) -> None:
    """A version this one does not know."""
    shutil.copytree(measured, tmp_path / "copy")
    found = json.loads((measured / "gram.json").read_text())
    (tmp_path / "copy" / "gram.json").write_text(json.dumps(found | {"format": 2}))
    with pytest.raises(InputError, match="format 2"):
        read_statistics(tmp_path / "copy")


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """A broken weight makes broken Grams; none is written."""
    from models.modality_experts import load, load_processor, save

    checkpoint = small_model(tmp_path / "model")
    broken = load(checkpoint)
    with torch.no_grad():
        broken.get_parameter("encoder.layers.0.mlp.v.fc1.bias")[0] = float("nan")
    save(broken, load_processor(checkpoint), checkpoint)
    with pytest.raises(InputError, match="not finite"):
        measure(checkpoint, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_part_knows_what_it_is_part_of(tmp_path: Path) -> None:
    """Another measurement's part, no file and a torn file are no parts; sums come back as they were."""
    sums = Sums({"w@0": torch.tensor([[1.0, 2.0]], dtype=torch.float64)}, {"w": 3}, samples=2)
    path = tmp_path / "part"
    write_sums(path, sums, "this")
    assert (is_part_of(path, "this"), is_part_of(path, "that"), is_part_of(tmp_path / "none", "this")) == (True, False, False)
    found = read_sums(path)
    assert torch.equal(found.values["w@0"], sums.values["w@0"])
    assert (found.counts, found.samples) == (sums.counts, 2)
    path.write_bytes(path.read_bytes()[:-4])
    assert not is_part_of(path, "this")
    with pytest.raises(InputError, match="measure again"):
        read_sums(path)
    assert [each.name for each in tmp_path.iterdir()] == ["part"]


def test_a_full_disk_is_told_and_leaves_nothing_half_written(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums of a part, and the statistic itself."""
    measurement = GramMeasurement(model, (DigitsCaptions(),), GramSpec(samples=2, parts=1))
    sums = measurement.measure(0)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000})())
    with pytest.raises(ResourceError, match=r"no room to write the sums of part-00000 .* 1,000 are free"):
        write_sums(tmp_path / "part-00000.safetensors", sums, "x")
    with pytest.raises(ResourceError, match="no room to write the gram"):
        write_statistics(tmp_path / "gram", measurement, sums)
    assert list(tmp_path.iterdir()) == []
