"""The keys of the modality-expert model an experiment starts from.

model: digits                                              # the tiny one, made here from the seed
model: runs/earlier/checkpoint                             # a directory of this project
model: {beit: path/to/beit, tokenizer: path/to/bert}       # vision weights, copied to the other experts
model: {vlmo: seed.ckpt, tokenizer: path/to/bert, allow_pickle: true}
model: {new: {hidden_size: 192, num_attention_heads: 3}, tokenizer: path/to/bert}
"""

from typing import Annotated, Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from foundation.errors import ConfigError
from pipeline.config.complaints import is_what
from pipeline.config.kinds import Count, Flag, NotNegative, Positive, Settings, WholeNumber

PlaceText = Annotated[str, Field(min_length=1)]
FORMS = "give digits, a checkpoint's directory, or one of {beit: …}, {vlmo: …}, {new: {…}} with a tokenizer"
ORIGINS = ("digits", "checkpoint", "beit", "vlmo", "new")
SIZES = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "fusion_layer": 10, "image_size": 224, "patch_size": 16}
DIGITS_SIZES = {"hidden_size": 96, "num_attention_heads": 4, "num_hidden_layers": 4, "fusion_layer": 2, "image_size": 32, "patch_size": 8}
"""The sizes that a model has where `config` gives none: the base size, and the tiny model's (`models/modality_experts/`)."""


class ModelSizes(Settings):
    """The keys of a model that is made: `models/modality_experts/config.py`, but for what its stages decide (heads and their choices)."""

    vocab_size: Count | None = None
    hidden_size: Count | None = None
    num_hidden_layers: Count | None = None
    num_attention_heads: Count | None = None
    intermediate_size: Count | None = None
    image_size: Count | None = None
    patch_size: Count | None = None
    max_text_length: Annotated[int, Field(ge=3, le=196, strict=True)] | None = None
    token_types: Annotated[int, Field(ge=2, le=16, strict=True)] | None = None
    layer_scale: NotNegative | None = None
    drop_path: Annotated[float, Field(ge=0, lt=1, strict=True)] | None = None
    layer_norm_eps: Positive | None = None
    initializer_range: NotNegative | None = None
    sharing: Literal["shared", "all", "attention", "ffn", "layer_norm"] | None = None
    fusion_layer: WholeNumber | None = None
    streams: Literal["separate", "joint"] | None = None
    pad_token_id: WholeNumber | None = None

    _written: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _in_order(cls, value: Any, handler: ModelWrapValidatorHandler["ModelSizes"]) -> "ModelSizes":
        made = handler(value)
        if isinstance(value, dict):
            made._written = tuple(value)
        return made

    @property
    def given(self) -> dict[str, Any]:
        """What was written, in that order (by which the model's step is known), as the model's config takes it."""
        return {name: getattr(self, name) for name in self._written if getattr(self, name) is not None}


class ModelStart(Settings):
    """One of the five origins. `config` changes the configuration of a model that is made (`digits`, `beit`, `vlmo`, `new`)."""

    digits: Flag = False
    checkpoint: PlaceText | None = None
    beit: PlaceText | None = None
    vlmo: PlaceText | None = None
    new: ModelSizes | None = None
    tokenizer: PlaceText | None = None
    config: ModelSizes = ModelSizes()
    copy_to_experts: Flag = True
    allow_pickle: Flag = False

    @model_validator(mode="before")
    @classmethod
    def _plain_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"digits": True} if value == "digits" else {"checkpoint": value}
        if not isinstance(value, dict):
            raise ValueError(f"model {is_what(value)}; {FORMS}")
        return value

    @model_validator(mode="after")
    def _one(self) -> "ModelStart":
        named = [name for name in ORIGINS if getattr(self, name) not in (None, False)]
        if len(named) != 1:
            raise ValueError(f"model names {' and '.join(named) or 'no origin'}; {FORMS}")
        if self.origin in ("beit", "vlmo", "new") and self.tokenizer is None:
            raise ValueError(f"model: {self.origin} has no tokenizer; name a directory with one, e.g. tokenizer: path/to/bert-base-uncased")
        if self.origin in ("digits", "checkpoint") and self.tokenizer is not None:
            raise ValueError(f"model: {self.origin} has its own tokenizer; leave tokenizer out")
        if self.origin == "checkpoint" and self.config.given:
            raise ValueError("model: config belongs to a model that is made; a checkpoint has its own, so leave it out")
        if self.origin == "vlmo" and not self.allow_pickle:
            raise ValueError("model: a .ckpt file is a pickle; set allow_pickle: true to have its weights read (nothing in it is run)")
        if self.origin != "vlmo" and self.allow_pickle:
            raise ValueError(f"model: allow_pickle is for a .ckpt file, and {self.origin} has none; leave it out")
        if self.origin != "beit" and not self.copy_to_experts:
            raise ValueError(f"model: copy_to_experts is for beit, and this starts from {self.origin}; leave it out")
        if self.origin == "digits" and self.config.vocab_size is not None:
            raise ValueError("model: the vocabulary of digits is made with it; leave vocab_size out of its config")
        try:
            self.check_sizes()
        except ConfigError as error:
            raise ValueError(f"model: {error}") from error
        return self

    @property
    def sizes(self) -> dict[str, Any]:
        """What was written of the configuration of a model that is made."""
        return {**self.config.given, **(self.new.given if self.new else {})}

    @property
    def patch_size(self) -> int:
        """The pixels along a patch of a model that is made."""
        return int(self.sizes.get("patch_size") or (DIGITS_SIZES if self.origin == "digits" else SIZES)["patch_size"])

    def check_sizes(self) -> None:
        """ConfigError where no model that is made can have these sizes."""
        if self.origin == "checkpoint":
            return
        sizes = {**(DIGITS_SIZES if self.origin == "digits" else SIZES), **self.sizes}
        hidden, heads, layers, fusion = (sizes[name] for name in list(SIZES)[:4])
        if hidden % heads:
            raise ConfigError(f"hidden_size {hidden} cannot be shared by {heads} heads; give a multiple of num_attention_heads")
        if fusion > layers:
            raise ConfigError(f"fusion_layer is {fusion}, but there are {layers} layers; give {layers} or less")
        check_patches(sizes["image_size"], sizes["patch_size"])

    @property
    def origin(self) -> str:
        """Which of ORIGINS it is."""
        return next(name for name in ORIGINS if getattr(self, name) not in (None, False))


def check_patches(image_size: int, patch_size: int) -> None:
    """ConfigError unless images of so many pixels are cut into patches of so many."""
    if image_size % patch_size:
        nearest = max(1, round(image_size / patch_size)) * patch_size
        raise ConfigError(f"image_size {image_size} cannot be cut into patches of {patch_size} pixels; give a multiple, e.g. {nearest}")
