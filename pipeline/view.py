"""The readable view of a run, `runs/<name>/`: links with names people know, into the store whose names are fingerprints.

    checkpoints/base, trained_on_<t1>_then_<t2>…, wise_ft_after_<task>
    logs/base, before_wise_ft_after_<task>, after_wise_ft_after_<task>, after_training_on_<t1>_then_<t2>…, final_after_<task>
    report/          tables and plots

Only links are made and replaced; nothing in the store is touched.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from foundation.files import file_name
from pipeline.recipes.milestone import Milestone, Role
from pipeline.results import streams
from pipeline.steps import Merging
from pipeline.store import Store


def link_run(run_directory: Path, milestones: Sequence[Milestone], store: Store) -> None:
    """Make the links of all that is stored; links of an earlier run of that name that are no longer true are removed."""
    wanted = {place: target for place, target in _links(milestones, store) if target.exists()}
    for room in ("checkpoints", "logs"):
        for old in [path for path in sorted((run_directory / room).rglob("*")) if path.is_symlink()]:
            old.unlink()
    for place, target in wanted.items():
        link = run_directory / place
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent) if target.is_relative_to(store.root) else target)


def _links(milestones: Sequence[Milestone], store: Store) -> Iterator[tuple[Path, Path]]:
    groups = streams(milestones)
    for group in groups:
        room = Path(file_name(f"{group[0].arm}-seed{group[0].seed}")) if len(groups) > 1 else Path()
        learned: list[str] = []
        for milestone in group:
            if milestone.task and (not learned or learned[-1] != milestone.task):
                learned.append(milestone.task)
            record = store.record(milestone.model)
            if record is not None and record.checkpoint is not None:
                yield "checkpoints" / room / _checkpoint_name(milestone, learned), record.checkpoint
            for name in _log_names(milestone, learned):
                yield "logs" / room / name, store.directory(milestone.evaluation)


def _checkpoint_name(milestone: Milestone, learned: list[str]) -> str:
    if milestone.family:
        return "fine_tuned" if milestone.role is Role.AFTER else "model"
    if milestone.role is Role.BASE:
        return "base"
    if milestone.role is Role.WITHIN:
        return f"step_{milestone.step}_of_{milestone.task}"
    return f"wise_ft_after_{milestone.task}" if isinstance(milestone.model, Merging) else f"trained_on_{'_then_'.join(learned)}"


def _log_names(milestone: Milestone, learned: list[str]) -> list[str]:
    if milestone.family:
        return ["after_fine_tuning" if milestone.role is Role.AFTER else "before_fine_tuning"]
    if milestone.role is Role.BASE:
        return ["base"]
    if milestone.role is Role.WITHIN:
        return [f"step_{milestone.step}_of_{milestone.task}"]
    if milestone.role is Role.BEFORE:
        return [f"before_wise_ft_after_{milestone.task}"]
    merged = isinstance(milestone.model, Merging)
    own = f"after_wise_ft_after_{milestone.task}" if merged else f"after_training_on_{'_then_'.join(learned)}"
    return [own, f"final_after_{milestone.task}"]
