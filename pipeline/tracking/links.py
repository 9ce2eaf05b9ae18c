"""Links into MLflow's pages, in its machine-learning mode: runs side by side, curves over the stages, the experiment's saved views."""

import json
from collections.abc import Sequence
from urllib.parse import quote

DEFAULT_UI = "http://127.0.0.1:5000"


def ui_base(uri: str) -> str:
    """Where the tracking server's pages are; for a database file, where `python -m pipeline ui` shows them."""
    return uri.rstrip("/") if uri.startswith(("http://", "https://")) else DEFAULT_UI


def compare_runs(base: str, experiments: Sequence[str], runs: Sequence[str]) -> str:
    """The page that compares runs, of one experiment or several."""
    return f"{base}/#/compare-runs?runs={_json(list(runs))}&experiments={_json(list(experiments))}&workflowType=machine_learning"


def metric_page(base: str, experiments: Sequence[str], runs: Sequence[str], metrics: Sequence[str]) -> str:
    """The page that draws metrics of runs over their steps (the stages), a line for each run and metric."""
    told = {
        "runs": _json(list(runs)),
        "metric": _json(metrics[0]),
        "experiments": _json(list(experiments)),
        "plot_metric_keys": _json(list(metrics)),
        "plot_layout": _json({"autosize": True, "xaxis": {}, "yaxis": {}}),
        "x_axis": "step",
        "y_axis_scale": "linear",
        "line_smoothness": "1",
        "show_point": "true",
        "deselected_curves": _json([]),
        "last_linear_y_axis_range": _json([]),
        "workflowType": "machine_learning",
    }
    return f"{base}/#/metric?{'&'.join(f'{name}={value}' for name, value in told.items())}"


def experiments_page(base: str) -> str:
    """The list of experiments."""
    return f"{base}/#/experiments?workflowType=machine_learning"


def view_page(base: str, experiment: str, view: str, charts: bool = False) -> str:
    """The experiment's runs in one of its saved views (`views.py`), as a table or as charts."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"{base}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={view}{mode}"


def _json(value: object) -> str:
    return quote(json.dumps(value, separators=(",", ":")), safe="")
