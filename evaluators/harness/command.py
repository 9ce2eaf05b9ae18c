"""The command line and the variables of one run of a harness, as one would type them."""

import os
from collections.abc import Sequence
from pathlib import Path

from evaluators.harness.spec import Harness, HarnessTask

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "disabled",
}
FIXED = {
    "PYTHONHASHSEED": "0",
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
OURS = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "LMMS_EVAL_PLUGINS")
"""Variables that are for our Python, not for the harness's, and one that would bring other code into it."""
SEED = "0"


def command_of(checkpoint: Path, run: Sequence[HarnessTask], count: int, results: Path, model: str, cuda: bool) -> list[str]:
    """The command that asks `run` (tasks that share a run) of the checkpoint and writes below `results`. `model`: the harness's class."""
    first = run[0]
    names = ",".join(dict.fromkeys(task.task for task in run))
    if first.harness is Harness.LM_EVAL:
        program, output = ["-m", "lm_eval", "run"], results / "results.json"
        arguments = f"pretrained={checkpoint},dtype=auto"
    else:
        program, output = ["-m", "lmms_eval", "eval"], results
        device = "cuda" if cuda else "cpu"
        arguments = f"pretrained={checkpoint},device={device},device_map={device}"
    command = [first.python, *program, "--model", model, "--model_args", arguments, "--tasks", names, "--limit", str(count)]
    command += ["--batch_size", str(first.batch_size), "--seed", SEED, "--log_samples", "--output_path", str(output)]
    if first.shots is not None:
        command += ["--num_fewshot", str(first.shots)]
    if first.chat_template:
        command += ["--apply_chat_template"]
    if first.directory:
        command += ["--include_path", first.directory]
    return command


def environment_of(task: HarnessTask) -> dict[str, str]:
    """The variables that a harness runs with: ours without those of our Python, fixed seeds, and no network unless it is allowed."""
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    return kept | FIXED | ({} if task.network else OFFLINE)
