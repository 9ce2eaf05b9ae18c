"""What configuration is written in: groups of keys, and the kinds of value that many keys share.

Reading a configuration imports neither torch nor Ray, so `validate` answers in a fraction of a second.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from foundation.errors import ConfigError
from pipeline.config.complaints import sentences
from pipeline.config.yaml_file import YamlFile

Checked = TypeVar("Checked")


def as_value_error(check: Callable[[Checked], object]) -> AfterValidator:
    """Turn a library's ConfigError into pydantic's kind of error, so that it is reported with its line."""

    def validate(value: Checked) -> Checked:
        try:
            check(value)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return value

    return AfterValidator(validate)


Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
WholeNumber = Annotated[int, Field(ge=0, le=10**9, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Flag = Annotated[bool, Field(strict=True)]


class Settings(BaseModel):
    """A group of keys. Unknown ones are refused, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Settings)


def validated(
    model: type[Model], file: YamlFile, data: dict[str, Any] | None = None, relatives: Mapping[str, type[Settings]] | None = None
) -> Model:
    """`data` (else the file's) as `model`; ConfigError with one line per mistake, each with its place in the file.

    `relatives` are other recipes' configurations by name: a key that only they know is said to be theirs.
    """
    try:
        return model.model_validate(file.data if data is None else data)
    except ValidationError as error:
        raise ConfigError("\n".join(sentences(model, file, error.errors(), relatives or {}))) from error
