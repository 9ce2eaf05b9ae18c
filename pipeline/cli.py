"""The command line: `python -m pipeline` (installed as `mergeline`).

Exit codes: 0 done, 1 a bug, 2 configuration, 3 input, 4 resources, 5 interrupted and resumable. Commands import what they need when they
run, so that `--help` and `validate` answer at once.
"""

import errno
import shlex
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from foundation.errors import ConfigError, Interrupted, MergelineError, ResourceError, interruption_in
from pipeline.command.analyze_cli import app as analyze
from pipeline.command.arguments import in_job, ray_address, ray_options, shortened, spread
from pipeline.command.compare_cli import compare
from pipeline.command.data import app as data
from pipeline.command.doctor_cli import doctor
from pipeline.command.evaluate_cli import evaluate
from pipeline.command.lineage_cli import lineage
from pipeline.command.search_cli import search
from pipeline.command.submit_cli import submit
from pipeline.command.sync_cli import sync

OUTSIDE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
"""What the system refuses for reasons that lie with the machine, not with this program."""

MISTYPED = (errno.ENAMETOOLONG, errno.ELOOP)
"""What the system refuses in a name that was given."""

app = typer.Typer(
    help="Fine-tune, merge, evaluate, next stage: one resumable graph on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(analyze, name="analyze")
app.add_typer(data, name="data")
app.command()(doctor)
app.command()(compare)
app.command()(evaluate)
app.command()(lineage)
app.command()(search)
app.command()(submit)
app.command()(sync)

File = Annotated[Path, typer.Argument(help="The experiment's YAML file.", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value pairs laid over the file, e.g. alpha=0.3.", show_default=False)]


@app.command()
def run(
    file: File,
    overrides: Overrides = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster; else RAY_ADDRESS, else Ray starts here.")] = None,
    cpus: Annotated[int | None, typer.Option(help="Processors of the Ray that starts here (default: all).", min=1)] = None,
) -> None:
    """Run an experiment from wherever it stands; run it again to go on."""
    from pipeline.command.summary import print_finished
    from pipeline.config.experiment import build
    from pipeline.config.inputs import make_place
    from pipeline.graph.address import check_cluster
    from pipeline.runner import run as run_experiment

    built = build(file, overrides or [], fitting=True)
    check_workspace(built.config.workspace)
    check_cluster(ray_address(address))
    make_place(built.workspace, "workspace")
    console = Console()
    finished = run_experiment(built, console, address, cpus)
    print_finished(built, finished, console, [str(file), *(overrides or [])], ray_options(address, cpus))


@app.command()
def plan(file: File, overrides: Overrides = None) -> None:
    """Show each step of an experiment: stored or to run, and why; of a merge file, what the merge reads and writes. Runs nothing."""
    from pipeline.config.merge_source import is_merge

    if is_merge(file):
        from pipeline.command.merge import plan_file

        plan_file(file, overrides or [], Console())
        return
    from pipeline.config.experiment import build
    from pipeline.plan import plan_steps, print_plan
    from pipeline.store import Store

    built, console = build(file, overrides or []), Console()
    print_plan(plan_steps(built, Store(built.workspace / "store")), console)
    for base in built.bases:
        console.print(base.describe(), highlight=False, markup=False, soft_wrap=True)
    console.print(f"next: python -m pipeline run {repeated(file, overrides)}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def validate(file: File, overrides: Overrides = None) -> None:
    """Check an experiment or merge file without starting anything."""
    from pipeline.config.merge_source import is_merge

    if is_merge(file):
        from pipeline.command.merge import validate_file

        summary = validate_file(file, overrides or [])
    else:
        from pipeline.command.validate import validate_experiment

        summary = validate_experiment(file, overrides or [])
    typer.echo(f"{file}: {summary}\nnext: python -m pipeline plan {repeated(file, overrides)}")


@app.command()
def merge(
    out: Annotated[Path | None, typer.Argument(help="The directory to write, as --output.", show_default=False)] = None,
    config: Annotated[Path | None, typer.Option(help="A merge file, ours or mergekit's, in place of the options up to --set.")] = None,
    checkpoints: Annotated[
        list[str] | None, typer.Option(metavar="A B ...", help="Checkpoints to merge: directories, hub ids, model+adapter.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="How they are merged (default: weighted_average).")] = None,
    base: Annotated[str | None, typer.Option(help="The checkpoint that they were tuned from, for methods that need it.")] = None,
    alphas: Annotated[
        list[str] | None, typer.Option(metavar="W W ...", help="One weight per checkpoint (default: equal); an average's sum to 1.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V ...", help="The method's own, e.g. --set density=0.2; also over a file.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The directory to write; must not hold anything yet.")] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show what would be read and written, and do nothing.")] = False,
    actors: Annotated[int, typer.Option(help="Ray actors to spread the merge over; 0 = no Ray.", min=0)] = 0,
    processes: Annotated[int | None, typer.Option(help="Processes, without Ray (default: the processors, at most 8).", min=1)] = None,
    device: Annotated[str, typer.Option(help="What computes: cpu or cuda.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="Write bfloat16, float16, float32 or float64 (default: as it was).")] = None,
    max_shard_size: Annotated[str | None, typer.Option(help="Largest file, e.g. 5GB.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Merge each tensor over the checkpoints that hold it.")] = False,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Read .bin and .ckpt files, as tensors only.")] = False,
    allow_nonfinite: Annotated[bool, typer.Option("--allow-nonfinite", help="Merge NaN and infinite weights all the same.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a checkpoint that is at the output already.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say what is merged, copied, read and written.")] = False,
) -> None:
    """Merge checkpoints into one, by any method."""
    from pipeline.command.merge import Ways, merge_checkpoints, merge_file
    from pipeline.config.inputs import check_place
    from pipeline.config.merge_source import changes_of

    if config is None and not checkpoints:
        raise ConfigError("Missing option '--checkpoints'; name what to merge, e.g. --checkpoints A B, or a file with --config")
    named = {"--checkpoints": checkpoints, "--method": method, "--base": base, "--alphas": alphas}
    if config is not None and (twice := [name for name, value in named.items() if value is not None]):
        raise ConfigError(f"--config and {twice[0]} both say what is merged; put it into the file, or leave --config out")
    place = output_of(out, output)
    check_place(place.absolute(), "--output")
    changes = changes_of(dtype, max_shard_size, {"partial": partial, "allow_pickle": allow_pickle, "allow_nonfinite": allow_nonfinite})
    ways = Ways(place, actors, processes, device, replace, plan_only, verbose)
    if config is not None:
        merge_file(config, settings or [], changes, ways, Console())
    else:
        merge_checkpoints(method, checkpoints or [], base, alphas, settings or [], changes, ways, Console())


@app.command()
def distance(
    checkpoints: Annotated[list[str], typer.Argument(help="Checkpoints to compare, all pairs.", show_default=False)],
    base: Annotated[str | None, typer.Option(help="The checkpoint that they were tuned from: compare task vectors.")] = None,
    experts: Annotated[list[str] | None, typer.Option(metavar="E E ...", help="Compare the experts inside one checkpoint.")] = None,
    density: Annotated[float, typer.Option(help="The share of the largest changes that truncated SSD keeps.")] = 0.2,
    output: Annotated[Path | None, typer.Option(help="Write tables and heat maps here.")] = None,
    actors: Annotated[int, typer.Option(help="Ray actors to spread the reading over; 0 = no Ray.", min=0)] = 0,
    partial: Annotated[bool, typer.Option("--partial", help="Compare the tensors that both of a pair hold.")] = False,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Read .bin and .ckpt files, as tensors only.")] = False,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Log a run, tables and heat maps included.")] = False,
    experiment: Annotated[str, typer.Option(help="The MLflow experiment to log to.")] = "distance",
    workspace: Annotated[Path, typer.Option(help="Where mlflow.db lies, unless MLFLOW_TRACKING_URI says otherwise.")] = Path(),
) -> None:
    """Measure how far checkpoints are apart, by layer and part and in all."""
    from pipeline.command.distance import measure_distance
    from pipeline.config.inputs import check_new

    if output is not None:
        check_new(output, "--output")
    measure_distance(
        checkpoints,
        base,
        output,
        experts=experts,
        density=density,
        partial=partial,
        allow_pickle=allow_pickle,
        actors=actors,
        mlflow=mlflow,
        experiment=experiment,
        workspace=workspace,
        console=Console(),
    )


def output_of(first: Path | None, second: Path | None) -> Path:
    """Where a merge is written, by position or by option."""
    if first is not None and second is not None:
        raise ConfigError(f"the output is named twice, {first} and --output {second}; name it once")
    if first is None and second is None:
        raise ConfigError("Missing option '--output'; name the directory to write")
    return first or second or Path()


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(help="Runs, by name or directory.", show_default=False)],
    workspace: Annotated[Path, typer.Option(help="Where store and runs lie.")] = Path(),
    output: Annotated[Path | None, typer.Option(help="Where to write (default: the run's own report/).")] = None,
) -> None:
    """Write the tables and plots of finished runs again, one run or several side by side."""
    from pipeline.command.summary import report_runs
    from pipeline.config.inputs import check_place

    if output is not None:
        check_place(output.absolute(), "--output")
    report_runs(runs, workspace, output, Console())


@app.command()
def ui(
    workspace: Annotated[Path, typer.Option(help="Where mlflow.db lies.")] = Path(),
    port: Annotated[int, typer.Option(help="Port on this machine's loopback address.", min=1, max=65535)] = 5000,
) -> None:
    """Open MLflow's pages on this machine (loopback only)."""
    from pipeline.command.ui import serve

    raise typer.Exit(serve(workspace.absolute(), port))


def repeated(file: Path, overrides: list[str] | None) -> str:
    """What a command was given, for the next one, without the passwords of addresses."""
    from pipeline.tracking.backend import without_password

    return shlex.join(without_password(each) for each in [str(file), *(overrides or [])])


def check_workspace(workspace: Path) -> None:
    """Inside a Ray job the working directory is a copy that goes away: a relative workspace there would lose everything."""
    if in_job() and not workspace.is_absolute():
        raise ConfigError(
            f"this runs as a Ray job, whose working directory is removed afterwards, but workspace is {str(workspace)!r}; "
            "add workspace=/path/that/all/nodes/share"
        )


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Ctrl-C, wherever it strikes: the command-line library would end with a code of its own."""
    raise Interrupted("stopped; what was finished is kept, run the same command again to go on")


def main() -> None:
    """Run a command; end with its exit code and, for what the user can mend, a message instead of a traceback."""
    signal.signal(signal.SIGINT, _interrupted)
    try:
        app(spread(sys.argv[1:]))
    except MergelineError as error:
        notes = "".join(f"\nnote: {note}" for note in getattr(error, "__notes__", []))
        print(f"error: {error}{notes}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if (stopped := interruption_in(error)) is not None:
            print(f"error: {stopped}", file=sys.stderr)
            sys.exit(stopped.exit_code)
        if isinstance(error, OSError) and error.errno in MISTYPED:
            print(f"error: {shortened(error.filename)}: {error.strerror}; name another file or directory", file=sys.stderr)
            sys.exit(ConfigError.exit_code)
        if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # as the standard library has it
            print(f"error: {shortened(error)}: a link that leads to itself; name another file or directory", file=sys.stderr)
            sys.exit(ConfigError.exit_code)
        if isinstance(error, OSError) and error.errno in OUTSIDE:
            print(
                f"error: {error.filename or 'the disk'}: {error.strerror}; make room, or choose a place that can be written",
                file=sys.stderr,
            )
            sys.exit(ResourceError.exit_code)
        traceback.print_exc()
        print("this is a bug in mergeline, not in what you gave it", file=sys.stderr)
        sys.exit(1)
