"""What a harness knows of its tasks, asked inside its own environment. Run as a program by the harness's interpreter, never imported.

    python inside.py lm_eval|lmms_eval OUTPUT DIRECTORY TASK …

Writes JSON to OUTPUT: `tasks`, for each its `kind` (task, group, tag) and its `metrics` as its file lists them (empty where it does not
say), or for a name that the harness lacks `near`, the names most like it; and for lmms-eval, which must be told the device, whether there
is `cuda`. Loads no data and no model. Knows nothing of our packages.
"""

import difflib
import importlib
import json
import sys
from typing import Any

Index = dict[str, tuple[str, dict[str, Any]]]


def lm_eval_index(directory: str, names: list[str]) -> Index:
    """name -> (kind, config) of all tasks; those that the harness brings only where the directory does not hold all that are asked."""
    manager_of = importlib.import_module("lm_eval.tasks").TaskManager
    manager = manager_of(include_path=directory or None, include_defaults=False) if directory else None
    if manager is None or any(name not in manager.task_index for name in names):
        manager = manager_of(include_path=directory or None)
    return {name: (entry.kind.name.lower().replace("py_", ""), entry.cfg or {}) for name, entry in manager.task_index.items()}


def lmms_eval_index(directory: str, names: list[str]) -> Index:
    """name -> (kind, config) of all tasks; configs only of those that are asked."""
    manager = importlib.import_module("lmms_eval.tasks").TaskManager("ERROR", include_path=directory or None)
    index: Index = {}
    for name, entry in manager.task_index.items():
        kind = entry["type"].replace("python_", "")
        readable = name in names and kind == "task" and entry["yaml_path"] != -1
        index[name] = (kind, manager._get_config(name) if readable else {})
    return index


def metrics_of(config: dict[str, Any]) -> list[str]:
    """The names of metrics in a task's or a group's configuration."""
    listed = config.get("aggregate_metric_list") or config.get("metric_list") or []
    listed = [listed] if isinstance(listed, dict) else listed
    return [entry["metric"] for entry in listed if isinstance(entry, dict) and isinstance(entry.get("metric"), str)]


def main() -> None:
    """Answer about the tasks that are named."""
    harness, output, directory, *names = sys.argv[1:]
    index = {"lm_eval": lm_eval_index, "lmms_eval": lmms_eval_index}[harness](directory, names)
    tasks: dict[str, Any] = {}
    for name in names:
        if name in index:
            kind, config = index[name]
            tasks[name] = {"kind": kind, "metrics": metrics_of(config)}
        else:
            tasks[name] = {"near": difflib.get_close_matches(name, index, n=5, cutoff=0.6), "count": len(index)}
    told: dict[str, Any] = {"tasks": tasks}
    if harness == "lmms_eval":
        told["cuda"] = importlib.import_module("torch").cuda.is_available()
    with open(output, "w") as file:
        json.dump(told, file)


if __name__ == "__main__":
    main()
