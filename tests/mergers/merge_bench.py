"""A scratch directory with the moves of a merge test: writing small checkpoints, merging them, reading results back."""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from mergers import Merger, MergeResult, Source, execute, plan_merge, read_checkpoint

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


class Bench:
    """A scratch directory with the moves of a merge test."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, name: str, tensors: dict[str, Tensor], config: dict | None = None, shards: int = 1) -> Path:
        """Write a checkpoint directory `name`, its tensors dealt over `shards` files."""
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps(CONFIG if config is None else config))
        names = sorted(tensors)
        if shards == 1:
            save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
            return path
        weight_map = {}
        for index in range(shards):
            file = f"model-{index + 1:05d}-of-{shards:05d}.safetensors"
            part = {key: tensors[key] for key in names[index::shards]}
            save_file(part, path / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(part, file)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}))
        return path

    def sources(self, **paths: Path) -> list[Source]:
        """Sources by role."""
        return [Source(name, read_checkpoint(path), origin=f"digest-of-{name}") for name, path in paths.items()]

    def merge(
        self, merger: Merger, output: str = "out", executor=None, progress=None, options: dict | None = None, **paths: Path
    ) -> MergeResult:
        """Plan and execute."""
        plan = plan_merge(merger, self.sources(**paths), self.root / output, **(options or {}))
        return execute(plan, executor, progress)

    def load(self, output: str | Path = "out") -> dict[str, Tensor]:
        """All tensors of a checkpoint directory."""
        found: dict[str, Tensor] = {}
        for file in sorted((self.root / output).glob("*.safetensors")):
            found |= load_file(file)
        return found

    def left_behind(self) -> list[str]:
        """Temporary directories that a merge left."""
        return [path.name for path in self.root.iterdir() if path.name.endswith(".tmp")]
