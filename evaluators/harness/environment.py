"""The environments of other harnesses: where their interpreters are, which versions are installed, which model class takes a checkpoint.

Nothing of a harness is imported here: its interpreter is asked. Light to import.
"""

import json
import os
import subprocess
from collections.abc import Container
from functools import lru_cache
from pathlib import Path

from evaluators.harness.spec import Harness
from foundation.errors import ConfigError, InputError

VERSIONS = {Harness.LM_EVAL: "0.4.13", Harness.LMMS_EVAL: "0.7.3"}
"""The version of each harness whose results are understood. The layout of the results has changed between versions."""
VARIABLES = {Harness.LM_EVAL: "MERGELINE_LM_EVAL", Harness.LMMS_EVAL: "MERGELINE_LMMS_EVAL"}
"""The environment variable that names each harness's interpreter where the suite does not."""
MAKE = {Harness.LM_EVAL: "make harness", Harness.LMMS_EVAL: "make lmms"}
RECORDED = ("transformers", "torch", "torchvision", "datasets", "numpy")
"""What else is recorded of the environment, beside the harness."""
PROBE_SECONDS = 60

LMMS_CLASSES = {
    "llava": "llava_hf",
    "llava_next": "llava_hf",
    "llava_onevision": "llava_hf",
    "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_5_vl",
    "qwen3_vl": "qwen3_vl",
    "internvl": "internvl_hf",
}
"""model_type of a checkpoint's config.json -> the model class of lmms-eval that takes such a Hugging Face directory."""
NEED_TORCHVISION = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Classes of lmms-eval that read images by qwen_vl_utils, which needs torchvision."""

_PROBE = """
import importlib.metadata as m, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def interpreter(harness: Harness, given: str | None = None, base: Path | None = None) -> Path:
    """The harness's interpreter: the one that is `given` (counted from `base`), else of the environment variable, else of `make harness`.

    ConfigError where there is none, with how to make one.
    """
    variable = VARIABLES[harness]
    if given:
        found, told = (base or Path()) / Path(given).expanduser(), "python"
    elif os.environ.get(variable):
        found, told = Path(os.environ[variable]).expanduser(), variable
    else:
        found, told = Path(".harness") / harness.value / "bin" / "python", ""
    found = Path(os.path.abspath(found))  # not resolved: an environment's interpreter is a link to another one
    if found.is_file() and os.access(found, os.X_OK):
        return found
    where = f"{told} names {found}, which is no program" if told else f"{found} does not exist"
    raise ConfigError(
        f"no interpreter of {harness.value}: {where}; {MAKE[harness]} makes its environment, or name an interpreter that has it as "
        f"harness.{harness.value}.python or in {variable}"
    )


@lru_cache
def versions(harness: Harness, python: Path) -> dict[str, str]:
    """Package -> version of the harness and of what it computes with, in the environment of `python`. Takes about a tenth of a second.

    ConfigError where the interpreter does not answer, lacks the harness, or has another version of it than we read results of.
    """
    command = [str(python), "-I", "-c", _PROBE, harness.value, *RECORDED]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=True, stdin=subprocess.DEVNULL)
        found: dict[str, str] = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise ConfigError(f"{python} does not answer as a Python interpreter ({said[-1] if said else error}); {MAKE[harness]}") from error
    wanted, has = VERSIONS[harness], found.get(harness.value)
    if has is None:
        raise ConfigError(f"{python} has no {harness.value}; {MAKE[harness]} makes an environment with {harness.value} {wanted}")
    if has != wanted:
        raise ConfigError(
            f"{python} has {harness.value} {has}, but results are read as {wanted} writes them; "
            f"{MAKE[harness]} makes an environment with that version"
        )
    return found


def model_class(harness: Harness, checkpoint: Path, installed: Container[str] = ()) -> str:
    """What the harness calls the model in a checkpoint directory.

    lm-eval: `hf`, or `hf-multimodal` for a model with a vision tower (text tasks are asked by it too). InputError for a directory without
    a readable config.json, and for a family that lmms-eval does not take from a plain directory, or not with what is `installed` beside it.
    """
    path = checkpoint / "config.json"
    try:
        config = json.loads(path.read_text())
        family = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} does not say what model it is ({error}); {harness.value} needs a Hugging Face checkpoint") from error
    if "," in str(checkpoint.resolve()):
        raise InputError(f"{checkpoint.resolve()} has a comma in its path, where {harness.value} would cut it; move the checkpoint")
    if harness is Harness.LM_EVAL:
        return "hf-multimodal" if "vision_config" in config else "hf"
    if family not in LMMS_CLASSES:
        raise InputError(
            f"lmms_eval has no model class known to take {checkpoint} (model_type {family!r}); it can ask {', '.join(LMMS_CLASSES)}. "
            "Leave its tasks out, or ask text tasks by lm_eval"
        )
    found = LMMS_CLASSES[family]
    if found in NEED_TORCHVISION and "torchvision" not in installed:
        raise InputError(
            f"lmms_eval asks {checkpoint} (model_type {family!r}) by its class {found}, which needs torchvision; "
            "its environment has none, so install the torchvision of its torch there"
        )
    return found
