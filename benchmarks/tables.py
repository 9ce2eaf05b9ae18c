"""Results as Markdown tables: one function per part of the benchmark."""

from typing import Any

from benchmarks.contenders import METHODS, ONE_FILE

Data = dict[str, Any]
OUR_IMPORTS, PEER_IMPORTS = "mergeline: imports", "mergekit: imports"
TELLING = 0.2
"""Seconds that must be left of a process without its imports, if they are to be compared: imports themselves vary by a tenth of one."""


def methods_table(methods: Data, start: Data) -> list[str]:
    """Both sides per method, with the ratio of the whole processes and of what is left without either side's imports."""
    lines = [
        "| method | mergeline, s | CPU s | anonymous | mergekit, s | CPU s | anonymous | whole process | without imports | "
        "mergeline into one file, s | equal bits | mergekit's fastest options |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name in (name for name in METHODS if name in methods):
        found = methods[name]
        mine, theirs = found["runs"]["mergeline"], found["runs"]["mergekit"]
        agreement = found["agreement"]
        lines.append(
            f"| {name} | {span(mine)} | {mine['cpu']:.1f} | {gigabytes(mine['anonymous'])} | {span(theirs)} | {theirs['cpu']:.1f} | "
            f"{gigabytes(theirs['anonymous'])} | **{theirs['wall'] / mine['wall']:.1f}×** | {without_imports(mine, theirs, start)} | "
            f"{span(found['runs'][ONE_FILE])} | {percent(agreement['equal']) if agreement else 'random'} | `{found['options']}` |"
        )
    return lines


def without_imports(mine: Data, theirs: Data, start: Data) -> str:
    """The ratio of what is left of both when their imports are taken off, where there is enough left to tell."""
    ours_alone, theirs_alone = mine["wall"] - start[OUR_IMPORTS]["wall"], theirs["wall"] - start[PEER_IMPORTS]["wall"]
    return f"**{theirs_alone / ours_alone:.1f}×**" if min(ours_alone, theirs_alone) >= TELLING else "–"


def start_table(start: Data) -> list[str]:
    """Processes that do little."""
    lines = ["| process | s | CPU s | anonymous |", "|---|---:|---:|---:|"]
    return lines + [f"| {name} | {span(run)} | {run['cpu']:.2f} | {gigabytes(run['anonymous'])} |" for name, run in start.items()]


def floor_table(linear: Data, start: Data) -> list[str]:
    """The linear merge against reading and writing the same bytes with nothing in between."""
    mine = linear["runs"]["mergeline"]
    lines = ["| process | s | CPU s | linear merge, whole | linear merge without imports |", "|---|---:|---:|---:|---:|"]
    for name, run in linear["runs"].items():
        if name not in ("mergeline", "mergekit", ONE_FILE):
            alone = mine["wall"] - start[OUR_IMPORTS]["wall"]
            ratios = f"{mine['wall'] / run['wall']:.2f}× | {format(alone / run['wall'], '.2f') + '×' if alone >= TELLING else '–'}"
            lines.append(f"| {name} | {span(run)} | {run['cpu']:.2f} | {ratios} |")
    return lines


def scaling_table(scaling: Data) -> list[str]:
    """Seconds on 1, 2 and 4 workers of each kind, and how many times faster than on one."""
    lines = ["| | 1 | 2 | 4 | 1 → 4 |", "|---|---:|---:|---:|---:|"]
    for method, found in scaling["alone"].items():
        for part, words in (("items", "merging"), ("execute", "with layout, flush and SHA-256")):
            lines += [
                scaling_row(f"{method}, {kind}, {words}", [found[f"{count} {kind}"][part] for count in (1, 2, 4)])
                for kind in ("processes", "actors")
            ]
    copies = list(scaling["copies"].values())
    lines.append(scaling_row("plain reads and writes of the linear merge's bytes, threads", [run["wall"] for run in copies]))
    whole = [scaling["whole"][f"{count} actors"]["wall"] for count in (1, 2, 4)]
    lines.append(scaling_row("linear, whole process that starts Ray and ends it, actors", whole))
    zero = scaling["whole"]["0 actors"]["wall"]
    return [*lines, "", f"The same whole process with `--actors 0` (no Ray, processes): {zero:.2f} s."]


def scaling_row(name: str, seconds: list[float]) -> str:
    """One row."""
    return f"| {name} | {' | '.join(f'{value:.2f}' for value in seconds)} | {seconds[0] / seconds[-1]:.1f}× |"


def gate_table(gate: Data) -> list[str]:
    """The NaN gate on and off."""
    lines = ["| method, one thread | with the gate, s | without, s | its share | CPU s with | without |", "|---|---:|---:|---:|---:|---:|"]
    for method, found in gate.items():
        on, off = found["with"], found["without"]
        share = 1 - off["items"] / on["items"]
        lines.append(f"| {method} | {on['items']:.2f} | {off['items']:.2f} | {share:.1%} | {on['cpu']:.2f} | {off['cpu']:.2f} |")
    return lines


def limits_table(limits: Data) -> list[str]:
    """Attempts under a memory limit."""
    lines = ["| process | reads | outcome | s | most anonymous memory |", "|---|---:|---|---:|---:|"]
    for name, found in limits.items():
        result = "merged" if found["code"] == 0 else f"refused: `{found['said'][:80]}`"
        lines.append(f"| {name} | {gigabytes(found['sources'])} | {result} | {found['wall']:.1f} | {gigabytes(found['anonymous'])} |")
    return lines


def planning_table(planning: Data) -> list[str]:
    """Plans of large models."""
    lines = [
        "| model | sources | plan, s | process, s | anonymous | items | largest item / mean | most loaded of 4, 16, 64 workers / mean |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name, found in sorted(planning.items(), key=lambda item: item[1]["bytes"]):
        loads = ", ".join(f"{found['workers'][count]:.4f}" for count in ("4", "16", "64"))
        lines.append(
            f"| {name} | {gigabytes(found['bytes'])} | {found['seconds']:.2f} | {found['process']:.2f} | {gigabytes(found['anonymous'])} | "
            f"{found['items']} | {found['largest']:.4f} | {loads} |"
        )
    return lines


def span(run: Data) -> str:
    """Median, and in brackets least and most."""
    return f"{run['wall']:.2f} ({run['wall_least']:.2f}–{run['wall_most']:.2f})"


def percent(share: float) -> str:
    """A share, never rounded to all or nothing."""
    return f"{share:.0%}" if share in (0, 1) else f"{min(max(share, 1e-5), 1 - 1e-5):.3%}"


def gigabytes(count: int) -> str:
    """Bytes, for a table."""
    return f"{count / 1e9:.2f} GB"
