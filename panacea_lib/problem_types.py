"""What the sections of a problem are made of."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
DimensionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
License = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9.+-]{0,63}$",
        description="as the Hugging Face hub spells it, e.g. apache-2.0, cc-by-4.0, other; model "
        "cards state it",
    ),
]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Quantization = Literal["none", "nf4", "int8"]


class Strict(BaseModel):
    """Immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
