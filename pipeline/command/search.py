"""`search`: try other merges for one stage of an experiment, without writing or training anything more than that stage needs.

The models of the stage are those of the experiment; what is not stored yet is made first. The search is a step of the store, so the same
one again does nothing, and one that was interrupted goes on with its finished trials.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from foundation.errors import ConfigError
from foundation.hints import unknown
from pipeline.command.arguments import ray_address, ray_options
from pipeline.config.experiment import Built, build
from pipeline.config.merge_values import knobs_of
from pipeline.config.search_settings import AlphaSearch, HowSearched
from pipeline.config.stage_merge import WISE_FT, StageMerge
from pipeline.config.yaml_file import parse_yaml
from pipeline.plan import needed
from pipeline.recipes.milestone import Milestone, Role
from pipeline.recipes.wise_ft import searched
from pipeline.steps import Merge, MergeAdaptive, MergePicked, Search
from pipeline.store import Store
from pipeline.tracking.backend import without_password

MERGES = (Merge, MergePicked, MergeAdaptive)


def search_stage(
    file: Path,
    overrides: Sequence[str],
    stage: int,
    settings: dict[str, Any],
    merge: dict[str, Any],
    console: Console,
    address: str | None,
    cpus: int | None,
) -> None:
    """Search a stage's merge and show every trial, the pick and where the pictures lie. Raises ConfigError for what cannot be searched."""
    from pipeline.report.search_tables import picks_grid, trials_grid
    from pipeline.report.search_write import write_search_report
    from pipeline.report.tables import print_grids
    from pipeline.searches import searched as search_of

    ray_address(address)
    built = build(file, overrides, fitting=True)
    milestone, search = stage_search(built, stage, settings, merge)
    store = Store(built.workspace / "store")
    run_search(search, store, console, address, cpus)
    record = store.record(search)
    assert record is not None
    found = search_of(record, milestone.arm or built.config.recipe, milestone.seed, stage, milestone.task or "", {})
    what = ", ".join(axis.name for axis in search.spec.axes)
    files = write_search_report(
        [found], built.run_directory / "search" / f"stage-{stage}", f"{built.name}: {what} after stage {stage}, {milestone.task}"
    )
    console.print()
    print_grids([trials_grid(found), picks_grid([found])], console)
    lines = [f"report  {files[-1]}"]
    if built.config.merge.plain and search.spec.method == WISE_FT and list(found.picked.point) == ["alpha"]:
        command = next_command(file, overrides, float(found.picked.point["alpha"]), ray_options(address, cpus))
        lines.append(f"next    {command}   (this alpha at every stage)")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def next_command(file: Path, overrides: Sequence[str], alpha: float, options: Sequence[str]) -> str:
    """The run with the alpha that was found, on the same Ray."""
    changed = [override for override in overrides if not override.startswith("alpha=")]
    words = [str(file), *changed, f"alpha={alpha:g}", *options]
    return f"python -m pipeline run {shlex.join(without_password(word) for word in words)}"


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


def merge_settings(method: str | None, parameters: Sequence[str]) -> dict[str, Any]:
    """What is merged and searched, as keys of an experiment's `merge`, from options such as `ties` and `density=0.1:0.9`."""
    found: dict[str, Any] = {}
    for text in parameters:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise ConfigError(f"--parameter {text!r} is not of the form NAME=LOW:HIGH, NAME=A,B,C or NAME=VALUE, e.g. density=0.1:0.9")
        if name in found:
            raise ConfigError(f"--parameter names {name} twice; name each parameter once")
        found[name] = tried(value)
    methods = method.split(",") if method else []
    named = {"method": methods[0] if len(methods) == 1 else {"search": methods}} if methods else {}
    return {**named, "parameters": found} if named or found else {}


def tried(text: str) -> Any:
    """A range, values or a value: `0.1:0.9`, `0.5,1`, `true`."""
    if ":" in text:
        low, _, high = text.partition(":")
        return {"search": {"low": scalar(low), "high": scalar(high)}}
    return {"search": {"values": [scalar(each) for each in text.split(",")]}} if "," in text else scalar(text)


def scalar(text: str) -> Any:
    """A value as YAML has it."""
    return parse_yaml(f"value: {text}", "--parameter").data["value"]


def stage_search(built: Built, stage: int, settings: dict[str, Any], merge: dict[str, Any]) -> tuple[Milestone, Search]:
    """The merge of a stage and the search for it; ConfigError where the experiment has no such merge, or nothing could be searched so."""
    if built.config.recipe != WISE_FT:
        raise ConfigError(f"search looks at the merges of a wise_ft experiment, and this one is {built.config.recipe}; name such a file")
    merges = {each.stage: each for each in built.milestones if each.role is Role.AFTER and isinstance(each.model, MERGES)}
    if stage not in merges:
        raise ConfigError(f"--stage: {unknown('stage', str(stage), [str(each) for each in merges])}")
    model, start = merges[stage].model, next(each.model for each in built.milestones if each.role is Role.BASE)
    assert isinstance(model, MERGES)
    return merges[stage], searched(searching(built.config, settings, merge), model.sources, start, stage, built.workspace / "store")


def searching(config: Any, settings: dict[str, Any], merge: dict[str, Any]) -> Any:
    """The experiment with what is searched and how: by `merge` (else as the experiment merges), and `settings` over its own search.

    An experiment whose merge gives every value is searched in alpha, if it is WiSE-FT's.
    """
    from pipeline.search.checks import check_search
    from pipeline.search.points import STAGE

    own = config.search.model_dump(exclude_unset=True) if config.search else {}
    try:
        merging = StageMerge(actors=config.merge.actors, **merge) if merge else config.merge
    except ValidationError as error:
        raise ConfigError(f"--method, --parameter: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    if not merge and not merging.searched:
        if merging.methods != (WISE_FT,):
            raise ConfigError(
                f"merge gives every value of {merging.methods[0]}; say what to search, e.g. --parameter {example(merging.methods[0])}"
            )
        merging = StageMerge(actors=config.merge.actors)
    if merge and not merging.plain:
        own = {name: value for name, value in own.items() if name in HowSearched.model_fields}
    found = config.model_copy(update={"search": AlphaSearch(**{**own, **settings}), "merge": merging})
    if not merging.plain and found.search.own:
        raise ConfigError(f"--{found.search.own[0]} says what is tried of alpha; give ranges as --parameter NAME=LOW:HIGH")
    if not merging.plain and not merging.searched:
        raise ConfigError("nothing is searched: give a range or several values, e.g. --parameter density=0.1:0.9")
    check_search(found.search_spec(), STAGE, merging.based, STAGE if merging.measured else ())
    return found


def example(method: str) -> str:
    """A parameter of a method with a range."""
    return f"{next(iter(knobs_of(method)), 'scale')}=0.1:0.9"


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
        if ray_address(address) == "local":
            check_resources(steps.values(), "this machine")
        run_dag(steps, store, Watch(check, display.progress, on_done=display.finished, on_waiting=display.line, on_failed=display.failed))
