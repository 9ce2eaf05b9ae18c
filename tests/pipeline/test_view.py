"""The readable view makes and removes links, and nothing else."""

from pathlib import Path

from tiny_run import TINY

from pipeline.config.experiment import build
from pipeline.store import Store
from pipeline.view import link_run


def test_a_users_own_files_in_the_view_stay_and_old_links_go(tmp_path: Path) -> None:
    built = build(TINY, [f"workspace={tmp_path}"])
    room = tmp_path / "runs" / "tiny" / "checkpoints"
    (room / "soup").mkdir(parents=True)
    (room / "soup" / "model.safetensors").write_text("mine")
    (room / "wise_ft_after_other").symlink_to(tmp_path)
    link_run(tmp_path / "runs" / "tiny", built.milestones, Store(tmp_path / "store"))
    assert (room / "soup" / "model.safetensors").read_text() == "mine"
    assert not (room / "wise_ft_after_other").is_symlink()
