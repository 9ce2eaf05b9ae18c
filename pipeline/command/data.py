"""The command line of `data`: published data sets of images with text into Arrow files, and a look into such a file."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.command.terminal import say

app = typer.Typer(help="Convert data sets of images with text, and look into them.", no_args_is_help=True, rich_markup_mode=None)

LAYOUTS = """\
NAME is coco, flickr30k, vqav2, nlvr2, visual_genome, sbu, conceptual_captions or imagenet. Below --root the files lie as published:

coco, flickr30k: karpathy/dataset_<name>.json; train2014/, val2014/; flickr30k-images/

vqav2: v2_OpenEnded_mscoco_*_questions.json, v2_mscoco_*_annotations.json; train2014/, val2014/, test2015/

nlvr2: nlvr2/data/*.json, images/train/<n>/, dev/, test1/

visual_genome: annotations/region_descriptions.json, annotations/image_data.json, images/VG_100K/, images/VG_100K_2/

imagenet: train/<wnid>/, val/ with LOC_val_solution.csv, the devkit, or class folders; LOC_synset_mapping.txt

sbu, conceptual_captions: annot.json (train_annot.json, val_annot.json), [[image, caption], ...], or the published lists; images_train/,
images_val/
"""


@app.command(help=f"Write a published data set as Arrow files.\n\n{LAYOUTS}")
def convert(
    name: Annotated[str, typer.Argument(help="The data set.", show_default=False)],
    root: Annotated[Path, typer.Option(help="Where its published files lie.")],
    out: Annotated[Path, typer.Option(help="The directory to write the Arrow files into.")],
    max_missing: Annotated[int, typer.Option(help="How many things may be missing or unreadable; they are left out and told.")] = 0,
    decode: Annotated[bool, typer.Option("--decode", help="Decode every image whole, not its header alone.")] = False,
    only: Annotated[list[str] | None, typer.Option(metavar="F", help="Write this file only; may be given several times.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over files that are there.")] = False,
    least_answers: Annotated[int, typer.Option(help="vqav2: majority answers that bring an answer into the vocabulary.")] = 9,
    answers_from: Annotated[
        str, typer.Option(help="vqav2: count the vocabulary over what is learned from (trainable), or all of train and val (all).")
    ] = "trainable",
    rest_images: Annotated[int, typer.Option(help="vqav2: images of val that are kept for validation (rest_val).")] = 1000,
    seed: Annotated[int, typer.Option(help="vqav2: draws the images of rest_val.")] = 0,
    without_coco: Annotated[
        Path | None, typer.Option(help="visual_genome: a dataset_coco.json whose val and test images are left out.")
    ] = None,
) -> None:
    """Write a published data set as Arrow files."""
    from foundation.errors import ConfigError, Interrupted
    from foundation.hints import unknown
    from pipeline.command.data_tables import RowProgress, show_converted
    from tasks.arrow.convert import convert as convert_data
    from tasks.arrow.drafts import AnswersFrom, Options

    sources = [each.value for each in AnswersFrom]
    if answers_from not in sources:
        raise ConfigError(f"--answers-from: {unknown('choice', answers_from, sources)}")
    options = Options(
        max_missing=max_missing,
        decode=decode,
        only=tuple(only or ()),
        replace=replace,
        least_answers=least_answers,
        answers_from=AnswersFrom(answers_from),
        rest_images=rest_images,
        seed=seed,
        without_coco=without_coco,
    )
    console = Console()
    try:
        with RowProgress(console) as progress:
            converted = convert_data(name, root, out, options, progress)
    except Interrupted as stop:
        raise Interrupted("stopped; nothing of this conversion is kept, run the same command again to begin anew") from stop
    show_converted(converted, out, console)
    say(console, f"next: python -m pipeline data show {shlex.quote(str(out / (converted.files[0].name + '.arrow')))}")


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="An Arrow file.", show_default=False)],
    rows: Annotated[int, typer.Option(help="How many rows to show.", min=0)] = 3,
    start: Annotated[int, typer.Option(help="The first row to show.", min=0)] = 0,
) -> None:
    """Show what an Arrow file holds: its columns, its size, and a few rows as text."""
    from pipeline.command.data_tables import show_file

    show_file(file, start, rows, Console())


@app.command()
def fetch(
    benchmarks: Annotated[list[str] | None, typer.Argument(help="Benchmarks by name, e.g. ai2d chartqa.", show_default=False)] = None,
    source: Annotated[str | None, typer.Option("--from", help="Another hub data set, or a revision of it: org/name@revision.")] = None,
    suite: Annotated[Path | None, typer.Option(help="A suite file: fetch all that it reads from the hub.")] = None,
    split: Annotated[str | None, typer.Option(help="Only what train, validation or test reads.")] = None,
) -> None:
    """Bring the raw files of published benchmarks from the hub to this machine."""
    from pipeline.command.data_fetch import fetch_benchmarks

    fetch_benchmarks(benchmarks or [], source, suite, split, Console())


@app.command()
def export(
    benchmark: Annotated[str, typer.Argument(help="A benchmark by name, e.g. cub200.", show_default=False)],
    root: Annotated[str, typer.Option(help="Where its raw files lie: a directory, or a hub data set that was fetched.")],
    out: Annotated[Path, typer.Option(help="The directory to write <split>.json and images/ into.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    samples: Annotated[int | None, typer.Option(help="Only the first so many.", min=1)] = None,
) -> None:
    """Write a split of a benchmark as LLaVA conversations with their images, to train on elsewhere or to mix."""
    from pipeline.command.data_export import export_benchmark

    export_benchmark(benchmark, root, out, split, samples, Console())
