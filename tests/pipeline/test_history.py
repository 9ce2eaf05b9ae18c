"""Training metrics keep their first time stamps, whatever is repeated or cut off."""

from pathlib import Path

from pipeline.graph.history import HistoryLog, Point, read_history


class Heard:
    def __init__(self) -> None:
        self.points: list[tuple[str, Point]] = []

    def point(self, key: str, point: Point) -> None:
        self.points.append((key, point))


def test_a_step_that_is_repeated_after_a_resume_keeps_its_time(tmp_path: Path) -> None:
    path, heard = tmp_path / "history.jsonl", Heard()
    log = HistoryLog(path, "k", heard)
    log(1, {"train/loss": 2.0})
    log(2, {"train/loss": 1.0})
    again = HistoryLog(path, "k", heard)
    again(2, {"train/loss": 1.0})
    again(3, {"train/loss": 0.5})
    assert [point.step for point in read_history(path)] == [1, 2, 3]
    assert heard.points[2] == heard.points[1]


def test_different_values_at_one_step_are_both_kept(tmp_path: Path) -> None:
    log = HistoryLog(tmp_path / "h", "k")
    log(5, {"train/loss": 2.0})
    log(5, {"train/samples_per_second": 100.0})
    assert len(list(read_history(tmp_path / "h"))) == 2


def test_a_line_cut_off_by_a_crash_is_left_out_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "h"
    HistoryLog(path, "k")(1, {"a": 1.0})
    with open(path, "a") as file:
        file.write('{"step": 2, "ti')
    HistoryLog(path, "k")(2, {"a": 2.0})
    assert [(point.step, point.values) for point in read_history(path)] == [(1, {"a": 1.0}), (2, {"a": 2.0})]


def test_no_file_is_no_history(tmp_path: Path) -> None:
    assert list(read_history(tmp_path / "none")) == []
