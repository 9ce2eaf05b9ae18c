"""The keys of the modality-expert model an experiment starts from.

model: digits                                              # the tiny one, made here from the seed
model: runs/earlier/checkpoint                             # a directory of this project
model: {beit: path/to/beit, tokenizer: path/to/bert}       # vision weights, copied to the other experts
model: {vlmo: seed.ckpt, tokenizer: path/to/bert, allow_pickle: true}
model: {new: {hidden_size: 192, num_attention_heads: 3}, tokenizer: path/to/bert}
"""

from typing import Annotated, Any

from pydantic import Field, model_validator

from pipeline.config.complaints import is_what
from pipeline.config.kinds import Flag, Settings

PlaceText = Annotated[str, Field(min_length=1)]
FORMS = "give digits, a checkpoint's directory, or one of {beit: …}, {vlmo: …}, {new: {…}} with a tokenizer"
ORIGINS = ("digits", "checkpoint", "beit", "vlmo", "new")


class ModelStart(Settings):
    """One of the five origins. `config` changes the configuration of a model that is made (`digits`, `beit`, `vlmo`)."""

    digits: Flag = False
    checkpoint: PlaceText | None = None
    beit: PlaceText | None = None
    vlmo: PlaceText | None = None
    new: dict[str, Any] | None = None
    tokenizer: PlaceText | None = None
    config: dict[str, Any] = {}  # noqa: RUF012
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
        if self.origin == "checkpoint" and self.config:
            raise ValueError("model: config belongs to a model that is made; a checkpoint has its own, so leave it out")
        if self.origin == "vlmo" and not self.allow_pickle:
            raise ValueError("model: a .ckpt file is a pickle; set allow_pickle: true to have its weights read (nothing in it is run)")
        return self

    @property
    def origin(self) -> str:
        """Which of ORIGINS it is."""
        return next(name for name in ORIGINS if getattr(self, name) not in (None, False))
