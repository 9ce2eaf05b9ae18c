"""`search`: try other alphas for one stage of an experiment, without writing or training anything more than that stage needs.

The models of the stage are those of the experiment; what is not stored yet is made first. The search is a step of the store, so the same
one again does nothing, and one that was interrupted goes on with its finished trials.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from foundation.errors import ConfigError
from foundation.hints import unknown
from pipeline.config.experiment import Built, build
from pipeline.config.search_settings import AlphaSearch
from pipeline.plan import needed
from pipeline.recipes.milestone import Milestone, Role
from pipeline.recipes.wise_ft import searched
from pipeline.steps import Merge, MergePicked, Search
from pipeline.store import Store


def search_stage(
    file: Path, overrides: Sequence[str], stage: int, settings: dict[str, Any], console: Console, address: str | None, cpus: int | None
) -> None:
    """Search a stage's alpha and show every trial, the pick and where the pictures lie. Raises ConfigError for what cannot be searched."""
    from pipeline.report.search_tables import picks_grid, trials_grid
    from pipeline.report.search_write import write_search_report
    from pipeline.report.tables import print_grids
    from pipeline.searches import searched as told

    built = build(file, overrides, fitting=True)
    milestone, search = stage_search(built, stage, settings)
    store = Store(built.workspace / "store")
    run_search(search, store, console, address, cpus)
    record = store.record(search)
    assert record is not None
    found = told(record, milestone.arm or built.config.recipe, milestone.seed, stage, milestone.task or "", {})
    place = built.run_directory / "search" / f"stage-{stage}"
    title = f"{built.name}: alpha after stage {stage}, {milestone.task}"
    files = write_search_report([found], place, title)
    console.print()
    print_grids([trials_grid(found), picks_grid([found])], console)
    alpha = found.picked.point.get("alpha")
    console.print(f"report  {place / files[-1].name}", highlight=False, markup=False, soft_wrap=True)
    if alpha is not None:
        changed = [override for override in overrides if not override.startswith("alpha=")]
        told_file = " ".join([str(file), *changed, f"alpha={alpha:g}"])
        console.print(
            f"next    python -m pipeline run {told_file}   (this alpha at every stage)", highlight=False, markup=False, soft_wrap=True
        )


def search_settings(given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as keys of a search; ConfigError, in the command line's words, for values that none could have."""
    settings = {name: value for name, value in given.items() if value is not None}
    try:
        AlphaSearch(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{first['loc'][0]}: " if first["loc"] else ""
        raise ConfigError(f"{option}{first['msg'].removeprefix('Value error, ')} (given: {settings})") from None
    return settings


def stage_search(built: Built, stage: int, settings: dict[str, Any]) -> tuple[Milestone, Search]:
    """The merge of a stage and the search for its alpha; ConfigError where the experiment has no such merge."""
    if built.config.recipe != "wise_ft":
        raise ConfigError(f"search looks at the merges of a wise_ft experiment, and this one is {built.config.recipe}; name such a file")
    merges = {each.stage: each for each in built.milestones if each.role is Role.AFTER and isinstance(each.model, Merge | MergePicked)}
    if stage not in merges:
        raise ConfigError(f"--stage: {unknown('stage', str(stage), [str(each) for each in merges])}")
    own = built.config.search.model_dump() if built.config.search else {}
    config = built.config.model_copy(update={"search": AlphaSearch(**{**own, **settings})})
    model = merges[stage].model
    assert isinstance(model, Merge | MergePicked)
    return merges[stage], searched(config, model.sources, stage, built.workspace / "store")


def run_search(search: Search, store: Store, console: Console, address: str | None, cpus: int | None) -> None:
    """Bring the search to its end, with what it rests on."""
    steps = needed([search], store)
    if not steps:
        return
    from pipeline.command.display import Display
    from pipeline.graph.cluster import connected
    from pipeline.graph.dag import Watch, check_resources, run_dag
    from pipeline.runner import stopping

    titles = {search.key: search.title}
    with connected(address, cpus), stopping() as check, Display(console, titles, len(steps), store) as display:
        if address is None:
            check_resources(steps.values(), "this machine")
        run_dag(steps, store, Watch(check, display.progress, on_done=display.finished, on_waiting=display.line, on_failed=display.failed))
