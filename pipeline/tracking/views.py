"""The experiment's page in MLflow: which runs it lists and with which columns, as saved views that its "Views" menu offers.

A saved view is an experiment tag that MLflow's pages write when a user saves one. Older servers ignore it.
"""

import json
from collections.abc import Sequence

STAGES_VIEW, CURVES_VIEW, RUNS_VIEW = "mergeline-stages", "mergeline-curves", "mergeline-runs"
GROUPS = ("average", "held_out", "stream")
MEASURES = ("learning/own", "forgetting/stream", "drift/held_out", "transfer/backward", "transfer/forward", "intransigence/stream")
CHANGE = "change/average"
"""What the last merge changed, on the same samples."""

OVERVIEW = "^(acc|learning|forgetting|drift|intransigence)/(average|held_out|stream|own)$"
"""The charts shown first; clearing the search box above them shows all, task by task."""


def saved_views(tasks: Sequence[str]) -> dict[str, str]:
    """Tag -> content of the views: every asked model, the tracks over the stages, whole pipelines."""
    scores = [f"acc/{name}" for name in (*GROUPS, *tasks)]
    views = {
        STAGES_VIEW: _view("Models before and after each merge", "evaluation", scores, []),
        CURVES_VIEW: _view("Curves over the stages", "track", [*scores[:3], *MEASURES], []),
        RUNS_VIEW: _view("Whole runs, last stage", "pipeline", [*scores[:3], CHANGE, *MEASURES], ["merge", "seed"]),
    }
    return {f"mlflow.sharedViewState.{key}": view for key, view in views.items()}


def _view(name: str, kind: str, metrics: Sequence[str], params: Sequence[str]) -> str:
    columns = [f"params.`{param}`" for param in params] + [f"metrics.`{metric}`" for metric in metrics]
    state = {
        "searchFilter": f"tags.`mergeline.kind` = '{kind}'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "chartsSearchFilter": OVERVIEW if kind == "track" else "",
        "runsHiddenMode": "SHOWALL" if kind == "track" else "FIRST_10_RUNS",
        "hideEmptyCharts": True,
    }
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})
