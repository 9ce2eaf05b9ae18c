"""Where weights come from: a checkpoint that was there before, or a small model made here."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from foundation.files import manifest_digest
from pipeline.step import Outcome, Step, Work, execution
from trainers.pretraining.spec import DigitsPretraining

DIGESTS_FILE = "digests.json"


@dataclass(frozen=True, eq=False, repr=False)
class Pretrained(Step):
    """Weights that were there before: a local directory, known by the digest of its files, or a hub id at a revision."""

    kind: ClassVar[str] = "pretrained"
    source: str  # "sha256:…" of a directory's files, or the hub id
    place: str = execution("")  # where the directory lies, or the hub id again

    @property
    def reads_this_machine(self) -> bool:
        from mergers.checkpoints.resolve import is_hub_id

        return not is_hub_id(self.place)

    def run(self, work: Work) -> Outcome:
        from mergers.checkpoints.resolve import fetch, is_hub_id, resolve_checkpoint
        from pipeline.digests import checkpoint_manifest

        if is_hub_id(self.place):  # into the store, which all nodes see and nobody prunes
            commit = fetch(self.place, work.directory / "checkpoint")
            return Outcome(work.directory / "checkpoint", details={"place": self.place, "commit": commit})
        place = resolve_checkpoint(self.place)
        files = checkpoint_manifest(place, work.directory.parent / DIGESTS_FILE)
        return Outcome(place, details={"place": self.place}, files=files)


@dataclass(frozen=True, eq=False, repr=False)
class Pretrain(Step):
    """The tiny digits model, made from a seed."""

    kind: ClassVar[str] = "pretrain"
    recipe: DigitsPretraining
    seed: int
    threads: int = 2  # part of the identity: sums over several threads are taken in another order

    def run(self, work: Work) -> Outcome:
        from trainers.pretraining.digits import pretrain_digits

        log, total = work.log_function(), self.recipe.tower.steps + self.recipe.language.steps

        def on_log(step: int, values: dict[str, float]) -> None:
            log(step, values)
            work.progress(step, total)

        output = work.directory / "checkpoint"
        figures = pretrain_digits(self.seed, output, on_log, self.threads, self.recipe)
        return Outcome(output, metrics=figures, details={"seed": self.seed, "threads": self.threads, **asdict(self.recipe)})


def pretrained(text: str, digests: Path) -> Pretrained:
    """The step for a checkpoint a user named; a local one is known by its content (digests are remembered in `digests`)."""
    from mergers.checkpoints.resolve import is_hub_id, resolve_checkpoint
    from pipeline.config.inputs import is_config_only
    from pipeline.digests import checkpoint_manifest

    if is_hub_id(text):
        return Pretrained(source=text, place=text)
    bare = Path(text).expanduser()  # a config alone will do to plan with; `run` has refused it by now
    place = (bare if bare.is_dir() and is_config_only(bare) else resolve_checkpoint(text)).absolute()
    return Pretrained(source=f"sha256:{manifest_digest(checkpoint_manifest(place, digests))}", place=str(place))
