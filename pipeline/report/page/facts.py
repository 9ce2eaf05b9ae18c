"""What was run, by the run's own records: recipe, base, tasks, seeds, samples, code. No time of writing: a run gives one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.experiment import EXPERIMENT_FILE
from pipeline.report.page.markup import element, folded, text
from pipeline.results import Row, read_rows
from pipeline.store import Record, Store

UNKNOWN = "unknown"
"""A record's commit, where its code stood in no repository."""
PLACES = ("workspace", "tracking")
"""Keys of an experiment that say where it lies, not what it is."""


@dataclass(frozen=True)
class Facts:
    """One run in words: what it was (name -> words, in their order), and its experiment as YAML."""

    name: str
    told: tuple[tuple[str, str], ...]
    experiment: str


def facts_of(run_directory: Path) -> Facts:
    """The facts of a run, as far as it has come."""
    rows = read_rows(run_directory)
    store = Store(run_directory.parent.parent / "store")
    records = [record for key in dict.fromkeys(row.evaluation for row in rows) if (record := store.by_key(key)) is not None]
    given = experiment_of(run_directory)
    told = {
        "recipe": str(given.get("recipe", "")),
        "base": base_words(given.get("base") or dict(given.get("common") or {}).get("base")),
        **stream_words(rows),
        "asked": asked_words(records),
        "training": "; ".join(dict.fromkeys(row.training for row in rows if row.training)),
        "code": code_words(records),
        "libraries": versions_words(records),
        "finished": finished_words(rows, records, store),
    }
    shown = {key: value for key, value in given.items() if key not in PLACES}
    written = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100) if shown else ""
    return Facts(run_directory.name, tuple((name, words) for name, words in told.items() if words), written)


def experiment_of(run_directory: Path) -> dict[str, Any]:
    """The experiment as it was resolved; empty where the run left none."""
    path = run_directory / EXPERIMENT_FILE
    content = yaml.safe_load(path.read_text()) if path.exists() else None
    return content if isinstance(content, dict) else {}


def base_words(base: object) -> str:
    """The base model in a few words: "Qwen/Qwen2-VL-2B", "pretrain digits_llava"."""
    if isinstance(base, dict):
        return ", ".join(f"{key} {value}" for key, value in base.items() if not isinstance(value, dict | list) and value is not None)
    return "" if base is None else str(base)


def stream_words(rows: Sequence[Row]) -> dict[str, str]:
    """The tasks in order (each order once), the held-out tasks, the arms and the seeds."""
    orders = list(dict.fromkeys(row.stream for row in rows))
    arms, seeds = list(dict.fromkeys(row.arm for row in rows)), sorted({row.seed for row in rows})
    several = {"orders": "; ".join(" → ".join(order) for order in orders)} if len(orders) > 1 else {}
    return {
        "tasks in order": " → ".join(orders[0]) if len(orders) == 1 else "",
        **several,
        "held out": ", ".join(dict.fromkeys(task for row in rows for task in row.held_out)) or "none",
        "arms": ", ".join(arms) if len(arms) > 1 else "",
        "seeds": ", ".join(map(str, seeds)),
    }


def asked_words(records: Sequence[Record]) -> str:
    """How many samples of each task, of which split."""
    found: dict[str, None] = {}
    for record in records:
        details = record.content["details"]
        if "split" in details:
            count = details.get("samples")
            found[f"{'all' if count is None else count} samples of each task, {details['split']} split"] = None
    return "; ".join(found)


def code_words(records: Sequence[Record]) -> str:
    """The commits of the code that asked, those that are not known last."""
    known = sorted({words for record in records if (words := commit_words(record)) and words != UNKNOWN})
    unknown = any(commit_words(record) == UNKNOWN for record in records)
    return ", ".join([*known, *([f"partly {UNKNOWN}" if known else UNKNOWN] if unknown else [])])


def commit_words(record: Record) -> str:
    """The code's commit: "ddb8ec808 with uncommitted changes"."""
    commit = str(record.content.get("versions", {}).get("commit") or "")
    return "" if not commit else commit[:10].rstrip("+") + (" with uncommitted changes" if commit.endswith("+") else "")


def versions_words(records: Sequence[Record]) -> str:
    """The libraries that count for a number."""
    versions = records[0].content.get("versions", {}) if records else {}
    return ", ".join(f"{name} {versions[name]}" for name in ("mergeline", "torch", "transformers", "python") if name in versions)


def finished_words(rows: Sequence[Row], records: Sequence[Record], store: Store) -> str:
    """When the last evaluation was done, in UTC; and how many are still missing."""
    times = [record.content["finished"] for record in records if "finished" in record.content]
    when = datetime.fromtimestamp(max(times), UTC).strftime("%Y-%m-%d %H:%M UTC") if times else ""
    lacking = sum(store.by_key(row.evaluation) is None for row in rows)
    return f"not yet: {lacking} of {len(rows)} evaluations are missing; last one {when or 'unknown'}" if lacking else when


def facts_block(facts: Sequence[Facts]) -> str:
    """The facts of every run as lists, each with its experiment below."""
    blocks = []
    for each in facts:
        pairs = [element("div", element("dt", text(name)), element("dd", text(words))) for name, words in each.told]
        own = folded("The experiment as it was run", element("pre", text(each.experiment)), note="YAML") if each.experiment else ""
        head = element("h3", text(each.name)) if len(facts) > 1 else ""
        blocks.append(element("div", head, element("dl", *pairs, class_="facts"), own))
    return "".join(blocks)
