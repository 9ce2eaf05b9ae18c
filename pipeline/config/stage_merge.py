"""How the two models of a stage are merged: a method of the merge table and its parameters, each of them given or searched.

merge: {method: ties, density: {search: {low: 0.1, high: 0.9}}, scale: {search: [0.5, 1.0]}, normalize: true}
merge: {method: {search: [wise_ft, slerp]}, alpha: {search: {low: 0, high: 1}}, weight: {search: {low: 0, high: 1}}}
merge: {alpha: {search: {low: 0.2, high: 0.8, depth: 3}}}                    # three alphas over the depth of the model
merge: {"alpha[*vision_tower*]": 1.0, alpha: {search: {low: 0, high: 1}}}    # names as in `pipeline/search/points.py`

The sources are `previous` and `tuned`. Methods that measure from a base do so from the model that the stream starts from, or with
`base: previous` from the stage's own start. A list is a gradient over depth, or one value per source, as in a merge file. What `fisher`
reads is measured on training examples (`statistics`).
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from foundation.errors import ConfigError
from foundation.hints import unknown
from mergers.merger import Merger, Need
from mergers.table import ROWS, merger_class
from pipeline.config.kinds import Count, Settings
from pipeline.config.merge_file import per_source
from pipeline.config.merge_values import Knob, Varies, knobs_of, level_of
from pipeline.config.settings import MergeWork
from pipeline.config.yaml_file import YamlFile
from pipeline.search.points import METHOD, STAGE, Target, merger_of, target_of
from pipeline.search.spec import Axis

SEARCH, FISHER = "search", "fisher"
WISE_FT = "wise_ft"


class Range(Settings):
    """What is tried of one parameter: from `low` to `high`, or `values`. `depth` k > 1: k of them spread over the model's layers."""

    low: float | None = Field(default=None, strict=True)
    high: float | None = Field(default=None, strict=True)
    values: list[bool | int | float | str] = []  # noqa: RUF012
    depth: Count = 1

    def axes(self, name: str) -> tuple[Axis, ...]:
        """The axes of the parameter of this name; ConfigError for what is no range."""
        names = (name,) if self.depth == 1 else tuple(f"{name}.{place}" for place in range(self.depth))
        if self.values:
            return tuple(Axis(each, self.low, self.high, tuple(self.values)) for each in names)
        return tuple(Axis(each, self.low, self.high) for each in names)


class Measuring(Settings):
    """What Fisher information is measured on, for the method `fisher`: `examples` training examples of each task.

    The tuned model is measured on the task just learned, the previous one on those learned before and on the tasks `previous` names: what
    the model that the stream starts from knows (default: the held-out tasks).
    """

    examples: Count = 200
    previous: list[str] = []  # noqa: RUF012


class StageMerge(MergeWork):
    """The merge of every stage, and how it is spread. What is none of the keys here is a parameter of the method."""

    method: str | dict[str, list[str]] = WISE_FT
    base: Literal["start", "previous"] = "start"
    statistics: Measuring = Measuring()
    parameters: dict[str, Any] = {}  # noqa: RUF012

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("parameters", {}), dict):
            return value
        own = {key: each for key, each in value.items() if key in cls.model_fields and key != "parameters"}
        loose = {key: each for key, each in value.items() if key not in cls.model_fields}
        below = value.get("parameters", {})
        twice = next((name for name in loose if name in below), None)
        if twice is not None:
            raise ValueError(f"{twice} stands beside parameters and in it; keep one of the two")
        return {**own, "parameters": {**below, **loose}}

    @model_validator(mode="after")
    def _honoured(self) -> "StageMerge":
        try:
            self.check()
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("search: ")) from error
        return self

    @property
    def plain(self) -> bool:
        """Whether it says nothing but how a merge is spread: then the merge is WiSE-FT's, with the experiment's alpha."""
        return self.method == WISE_FT and not self.parameters

    @property
    def searched(self) -> bool:
        """Whether anything is searched."""
        return isinstance(self.method, dict) or any(map(is_searched, self.parameters.values()))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that stages may be merged by."""
        return (self.method,) if isinstance(self.method, str) else tuple(self.method[SEARCH])

    @property
    def based(self) -> bool:
        """Whether one of them has a use for a base."""
        return any(getattr(merger_class(method), "base", Need.NO) is not Need.NO for method in self.methods)

    @property
    def measured(self) -> bool:
        """Whether one of them reads Fisher information."""
        return any(getattr(merger_class(method), "statistic", None) is not None for method in self.methods)

    def check(self) -> None:
        """Raise ConfigError for what is wrong whatever is tried: a method or parameter that is not there, no range, a value of another
        kind."""
        if isinstance(self.method, dict) and (list(self.method) != [SEARCH] or not self.method[SEARCH]):
            raise ConfigError("method is the name of one, or several to search: method: {search: [wise_ft, slerp]}")
        strange = next((method for method in self.methods if method not in ROWS), None)
        if strange is not None:
            raise ConfigError(f"method: {unknown('merge method', strange, ROWS)}")
        for method in self.methods:
            statistic = getattr(merger_class(method), "statistic", None)
            if statistic is not None and statistic.name != FISHER:
                raise ConfigError(
                    f"method: {method} needs the {statistic.name} of both models, which a stage does not measure; choose another"
                )
        if "statistics" in self.model_fields_set and not self.measured:
            raise ConfigError(f"statistics: {', '.join(self.methods)} reads none; leave it out")
        known = {name for method in self.methods for name in knobs_of(method)}
        for name in self.parameters:
            if target_of(name).knob not in known:
                keys = [*known, *(key for key in StageMerge.model_fields if key != "parameters")]
                raise ConfigError(unknown(f"parameter of {' or '.join(self.methods)}", target_of(name).knob, keys))
        if "base" in self.model_fields_set and not self.based:
            raise ConfigError(f"base: {', '.join(self.methods)} measures from no base; leave it out")
        self.axes()
        self.fixed()
        if not self.searched:
            self.merger()

    def axes(self) -> tuple[Axis, ...]:
        """What is searched, in the order of the file."""
        named = (Axis(METHOD, values=self.methods),) if isinstance(self.method, dict) else ()
        found = [range_of(name, value).axes(name) for name, value in self.parameters.items() if is_searched(value)]
        return (*named, *(axis for axes in found for axis in axes))

    def fixed(self) -> tuple[tuple[str, Any], ...]:
        """What is given, as the methods take it."""
        return tuple((name, self.given(name, value)) for name, value in self.parameters.items() if not is_searched(value))

    def given(self, name: str, value: Any) -> Any:
        """A value that is given; ConfigError for one of another kind."""
        knob = next(knobs_of(method)[target_of(name).knob] for method in self.methods if target_of(name).knob in knobs_of(method))
        if target_of(name) == Target(knob.name):
            return value_of(knob, value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{name} is {value!r}; give a number, or search it: {name}: {{search: {{low: 0, high: 1}}}}")
        return float(value)

    def merger(self) -> Merger:
        """The merge of every stage, where nothing is searched."""
        return merger_of(self.methods[0], dict(self.fixed()), (), STAGE)


def is_searched(value: Any) -> bool:
    """Whether a parameter is searched."""
    return isinstance(value, Mapping) and SEARCH in value


def range_of(name: str, value: Mapping[str, Any]) -> Range:
    """What is tried of a parameter; ConfigError for what is no range."""
    told = value[SEARCH]
    if len(value) > 1:
        raise ConfigError(f"{name} has {', '.join(key for key in value if key != SEARCH)} beside search; keep one of the two")
    if not isinstance(told, list | Mapping):
        raise ConfigError(f"{name}: search is {told!r}; give {{low: 0, high: 1}}, or a list of values")
    try:
        return Range.model_validate({"values": told} if isinstance(told, list) else dict(told))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"][:1]))
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{name}: {unknown('key of its search', key, list(Range.model_fields))}") from error
        raise ConfigError(f"{name}: {key} is {first['input']!r}; give low and high, or values") from error


def value_of(knob: Knob, value: Any) -> Any:
    """A hyperparameter's value from what the file gives: plain, a schedule, or one of them per source."""
    file = YamlFile(f"merge.{knob.name}", {knob.name: value})
    if knob.varies is Varies.TENSORS or knob.both:
        return level_of(file, (knob.name,), value)
    if knob.varies is Varies.SOURCES:
        return per_source(knob, {}, (knob.name,), value, list(STAGE), file)
    try:
        return TypeAdapter(knob.kind).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{knob.name} cannot be {value!r}: {error.errors()[0]['msg']}") from error
