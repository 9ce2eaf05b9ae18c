"""Statistics gathered in parts: the same bytes in this process and on any number of actors, after a kill and after an interruption."""

import os
import signal
from pathlib import Path

import pytest

from foundation.errors import InputError
from foundation.files import directory_manifest
from models.modality_experts import ModalityExpertsModel, pair_processor, save
from models.modality_experts.tiny import digits_config, word_tokenizer
from pipeline.graph import gathering
from pipeline.graph.gathering import gather, measure_to_file
from tasks.pairs.digits import DigitsCaptions, corpus
from trainers.modality.statistics.gram import GramMeasurement
from trainers.modality.statistics.spec import GramSpec

PARTS = 5


@pytest.fixture(scope="module")
def measurement(tmp_path_factory: pytest.TempPathFactory) -> GramMeasurement:
    """Eleven records in five parts."""
    tokenizer = word_tokenizer(corpus())
    config = digits_config(sharing="all", vocab_size=len(tokenizer), num_hidden_layers=2, fusion_layer=1)
    directory = tmp_path_factory.mktemp("gathering") / "model"
    save(ModalityExpertsModel(config), pair_processor(tokenizer, config), directory)
    return GramMeasurement(directory, (DigitsCaptions(),), GramSpec(samples=11, parts=PARTS))


@pytest.fixture(scope="module")
def expected(measurement: GramMeasurement, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files, gathered in one go in this process."""
    room = tmp_path_factory.mktemp("expected")
    gather(measurement, room / "gram", room / "scratch")
    assert list((room / "scratch").iterdir()) == []
    return directory_manifest(room / "gram")


def test_an_interrupted_gathering_goes_on(
    measurement: GramMeasurement, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts that were done are not measured again; a torn one is."""

    def stopping(*arguments: object) -> int:
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        return measure_to_file(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(gathering, "measure_to_file", stopping)
    with pytest.raises(KeyboardInterrupt):
        gather(measurement, tmp_path / "gram", tmp_path / "scratch")
    assert not (tmp_path / "gram").exists()
    torn = tmp_path / "scratch" / "part-00001.safetensors"
    torn.write_bytes(torn.read_bytes()[:100])
    monkeypatch.undo()
    told: list[tuple[int, int]] = []
    gather(measurement, tmp_path / "gram", tmp_path / "scratch", progress=lambda *step: told.append(step))
    assert told == [(done, PARTS) for done in (2, 3, 4, 5)]
    assert directory_manifest(tmp_path / "gram") == expected


def test_parts_of_another_measurement_are_not_taken(measurement: GramMeasurement, expected: dict[str, str], tmp_path: Path) -> None:
    """Left over from another number of samples: measured anew."""
    other = GramMeasurement(measurement.checkpoint, measurement.sets, GramSpec(samples=6, parts=PARTS))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    identity = "0" * 64
    for part in range(PARTS):
        measure_to_file(other, identity, scratch, part)
    gather(measurement, tmp_path / "gram", scratch)
    assert directory_manifest(tmp_path / "gram") == expected


@pytest.mark.cluster
@pytest.mark.slow
def test_any_number_of_actors_and_a_killed_one(
    ray_cluster: None, measurement: GramMeasurement, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One and three actors; then two of which one is killed after it wrote its part and before it could say so."""
    for actors in (1, 3):
        told: list[tuple[int, int]] = []
        gather(
            measurement, tmp_path / f"{actors}", tmp_path / f"scratch{actors}", actors, progress=lambda *step, told=told: told.append(step)
        )
        assert directory_manifest(tmp_path / f"{actors}") == expected
        assert told == [(done, PARTS) for done in range(1, PARTS + 1)]
    marker = str(tmp_path / "died")

    def dying_once(measurement: GramMeasurement, identity: str, scratch: Path, part: int) -> int:  # travels by value
        measure_to_file(measurement, identity, scratch, part)
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return part
        os.kill(os.getpid(), signal.SIGKILL)
        return part

    monkeypatch.setattr(gathering, "measure_to_file", dying_once)
    gather(measurement, tmp_path / "killed", tmp_path / "scratch", 2)
    assert directory_manifest(tmp_path / "killed") == expected
    assert Path(marker).exists()


@pytest.mark.cluster
@pytest.mark.slow
def test_an_actors_error_is_the_users_message(ray_cluster: None, measurement: GramMeasurement, tmp_path: Path) -> None:
    """A checkpoint without weights is named, and no directory appears."""
    (tmp_path / "model").mkdir()
    for path in measurement.checkpoint.iterdir():
        (tmp_path / "model" / path.name).write_bytes(b"{}" if path.name == "config.json" else path.read_bytes())
    broken = GramMeasurement(tmp_path / "model", measurement.sets, measurement.spec)
    with pytest.raises(InputError, match=r"config\.json"):
        gather(broken, tmp_path / "gram", tmp_path / "scratch", 2)
    assert not (tmp_path / "gram").exists()
