"""`data export`: a split of a published benchmark as LLaVA conversations, for other programs and for `data:` of an experiment."""

import json
from pathlib import Path

from rich.console import Console

from foundation.errors import ConfigError
from foundation.hints import unknown
from pipeline.command.terminal import counting_bars, say
from pipeline.config.inputs import check_place, make_place
from tasks.benchmarks.convert import convert
from tasks.benchmarks.task import benchmark_task
from tasks.task import Split


def export_benchmark(name: str, root: str, out: Path, split: str, samples: int | None, console: Console) -> None:
    """Write `out`/<split>.json and the images beside it, and say how an experiment reads them."""
    if split not in [each.value for each in Split]:
        raise ConfigError(f"--split: {unknown('split', split, [each.value for each in Split])}")
    check_place(out, "--out")
    task = benchmark_task(name, name, root)
    make_place(out, "--out")
    with counting_bars(console) as bar:
        shown = bar.add_task("writing", total=None)
        path = convert(task, Split(split), out, samples, lambda done, total: bar.update(shown, completed=done, total=total))
    say(console, f"{path}: {len(json.loads(path.read_text())):,} conversations, images in {out / 'images'}")
    say(console, f"in an experiment: data: {{{name}_{split}: {{{split}: {path}, images: {out}}}}}")
