"""The steps of a modality-expert model: where it comes from, in what shape it takes up a stage, its learning, what is measured on it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from pipeline.step import Measurement, Outcome, Step, Work, execution
from pipeline.steps.learning import Stage
from pipeline.steps.merging import Merging
from tasks.pairs.records import PairSet
from trainers.modality.spec import ModalityLearning, ModalitySpec
from trainers.modality.statistics.spec import FisherSpec, GramSpec

STATISTICS = "statistics"
"""The directory in a step's own that holds what it measured."""


@dataclass(frozen=True, eq=False, repr=False)
class StartExperts(Step):
    """A model made here: tiny for the digits, new of a given size, from a BEiT checkpoint or from the original's `.ckpt`.

    `config` changes the configuration it would have. `source` and `tokenizer` are digests of what is read, from the two places.
    """

    kind: ClassVar[str] = "experts"
    origin: str
    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    tokenizer: str = ""
    copy_to_experts: bool = True
    source_place: str = execution("")
    tokenizer_place: str = execution("")

    @property
    def title(self) -> str:
        return f"make the modality-expert model ({self.origin}), seed {self.seed}"

    @property
    def reads_this_machine(self) -> bool:
        return bool(self.source_place or self.tokenizer_place)

    def run(self, work: Work) -> Outcome:
        from pipeline.steps.start_experts import start_experts

        output = work.directory / "checkpoint"
        places = (Path(self.source_place), Path(self.tokenizer_place))
        weights = start_experts(self.origin, self.config, *places, self.copy_to_experts, self.seed, output)
        return Outcome(output, metrics={"parameters": weights}, details={"origin": self.origin, "seed": self.seed, **self.config})


@dataclass(frozen=True, eq=False, repr=False)
class Reshaped(Step):
    """A model made into what a stage starts from: experts copied from what was shared, heads added, another image size."""

    kind: ClassVar[str] = "reshaped"
    model: Step
    seed: int
    sharing: str | None = None
    heads: tuple[str, ...] | None = None
    image_size: int | None = None
    token_types: int | None = None
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        told = {"sharing": self.sharing, "heads": " ".join(self.heads or ()), "image size": self.image_size}
        return "reshape: " + ", ".join(f"{name} {value}" for name, value in told.items() if value)

    def run(self, work: Work) -> Outcome:
        from models.modality_experts import load_processor, pair_processor, save
        from models.modality_experts.starts import reshaped

        source, output = work.checkpoint_of(self.model), work.directory / "checkpoint"
        model = reshaped(
            source,
            sharing=self.sharing,
            heads=self.heads,
            image_size=self.image_size,
            token_types=self.token_types,
            seed=self.seed,
            answers=self.choices.get("answers"),
            classes=self.choices.get("classes"),
        )
        save(model, pair_processor(load_processor(source).tokenizer, model.config), output)
        told = {"sharing": self.sharing, "heads": list(self.heads or ()), "image_size": self.image_size, "seed": self.seed}
        return Outcome(output, details={name: value for name, value in told.items() if value is not None})


@dataclass(frozen=True, eq=False, repr=False)
class LearnPairs(Stage):
    """A modality-expert model learns from images with text."""

    kind: ClassVar[str] = "learn"
    loads: ClassVar[tuple[str, ...]] = ("trainers.modality.stage",)
    model: Step
    sets: tuple[PairSet, ...]
    modality: ModalitySpec
    texts: tuple[PairSet, ...] = ()
    images: tuple[PairSet, ...] = ()
    name: str = execution("")  # what the experiment calls the stage

    @property
    def title(self) -> str:
        objectives = " + ".join(objective.value for objective, _ in self.modality.objectives)
        return f"{self.name or 'learn'}: {objectives} on {', '.join(each.name for each in self.sets)}"

    def run(self, work: Work) -> Outcome:
        from pipeline.graph.training import fit

        learning = ModalityLearning(self.sets, self.modality, self.texts, self.images)
        result = fit(work, work.checkpoint_of(self.model), learning, self.resources)
        files, there = result.pop("files"), result.pop("there", {})
        train = {name: value for name, value in asdict(self.modality.train).items() if isinstance(value, str | int | float)}
        details = {
            "sets": [each.name for each in self.sets],
            "objectives": {name.value: weight for name, weight in self.modality.objectives},
            "augmentation": self.modality.augmentation.value,
            **train,
            "resources": asdict(self.resources),
        }
        return Outcome(work.directory / "checkpoint", metrics=result, details=details, files=files, there=there)


@dataclass(frozen=True, eq=False, repr=False)
class Statistics(Measurement):
    """What merging reads of a model's experts, measured on training records: Grams, or Fisher information."""

    model: Step
    sets: tuple[PairSet, ...]
    spec: GramSpec | FisherSpec
    actors: int = execution(2)
    gpus: float = execution(0)

    @property
    def title(self) -> str:
        return f"{self.kind} of {', '.join(each.name for each in self.sets)}"

    @property
    def ray_options(self) -> dict[str, Any]:
        return {"num_cpus": 0} if self.actors else {"num_cpus": 1, "num_gpus": self.gpus}

    @property
    def demand(self) -> dict[str, float]:
        return {"CPU": 1, "GPU": self.gpus}

    def measurement(self, checkpoint: Path) -> Any:
        """What is to be measured, as `trainers/modality/statistics` has it."""
        raise TypeError(f"{type(self).__name__} does not say what it measures")

    def run(self, work: Work) -> Outcome:
        from pipeline.graph.gathering import gather

        measurement = self.measurement(work.checkpoint_of(self.model))
        about = gather(measurement, work.directory / STATISTICS, work.scratch / "parts", self.actors, self.gpus, work.progress)
        return Outcome(metrics={"samples": about.samples}, details={"sets": list(about.sets), **about.how})


@dataclass(frozen=True, eq=False, repr=False)
class Gram(Statistics):
    """Means of x x^T over the inputs of every linear layer, per expert: what RegMean regresses on."""

    kind: ClassVar[str] = "gram"

    def measurement(self, checkpoint: Path) -> Any:
        from trainers.modality.statistics.gram import GramMeasurement

        return GramMeasurement(checkpoint, self.sets, self.spec)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False, repr=False)
class PairFisher(Statistics):
    """The diagonal Fisher information of retrieval or of masked words: what Fisher merging weighs by."""

    kind: ClassVar[str] = "fisher"
    version: ClassVar[int] = 2

    def measurement(self, checkpoint: Path) -> Any:
        from trainers.modality.statistics.fisher import FisherMeasurement

        return FisherMeasurement(checkpoint, self.sets, self.spec)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False, repr=False)
class MergeExperts(Merging):
    """The experts of one model become one that all modalities share. `used_by`: the task whose experts alone take part."""

    kind: ClassVar[str] = "merge_experts"
    model: Step
    method: str
    parameters: Mapping[str, Any]
    used_by: str = "all"
    base: Step | None = None
    statistics: Statistics | None = None

    @property
    def title(self) -> str:
        return "merge the experts"

    def run(self, work: Work) -> Outcome:
        from mergers import Source, plan_merge, read_checkpoint
        from mergers.checkpoints.header import read_header
        from mergers.experts import SHARED_CONFIG, expert_merger, expert_sources, needs_statistic
        from pipeline.graph.actors import carry_out

        def origin(step: Step) -> str:
            return f"{step.key}, sha256:{work.digest_of(step)}"

        measured = None
        if self.statistics is not None:
            measured = read_header(work.directory_of(self.statistics) / STATISTICS / f"{needs_statistic(self.method)}.safetensors")
        checkpoint = read_checkpoint(work.checkpoint_of(self.model))
        sources = expert_sources(checkpoint, used_by=self.used_by, origin=origin(self.model), statistics=measured)
        names = [source.name for source in sources]
        merger = expert_merger(self.method, self.parameters, names)
        base = Source("seed", read_checkpoint(work.checkpoint_of(self.base)), origin=origin(self.base)) if self.base else None
        plan = plan_merge(merger, sources, work.directory / "checkpoint", base=base, config=SHARED_CONFIG, replace=True)
        outcome = carry_out(plan, self.actors, work.progress)
        roles = dict(zip(names, merger.roles(names), strict=True))
        based = {"base": self.base.key} if self.base else {}
        return replace(outcome, details={"method": self.method, "sources": roles, "used_by": self.used_by, **based, **self.parameters})


@dataclass(frozen=True, eq=False, repr=False)
class ExpertDistances(Measurement):
    """How far the vision and language experts of one model lie apart, over the tensors that both have."""

    kind: ClassVar[str] = "distances"
    model: Step

    @property
    def title(self) -> str:
        return "distances between the experts"

    def run(self, work: Work) -> Outcome:
        from mergers import read_checkpoint
        from mergers.experts import expert_distances

        found = expert_distances(read_checkpoint(work.checkpoint_of(self.model)), experts=("v", "l"))
        (metrics,) = found.values()
        return Outcome(metrics={f"experts/{name}": value for name, value in metrics.items() if name != "elements"})
