"""A problem's section on its base model: trained from scratch, or from the hub or a directory."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from panacea_lib.problem_types import License, Positive, Quantization, Rate, Strict


class ScratchModel(Strict):
    """A small Llama trained from scratch on the problem's own text: no download, no GPU."""

    kind: Literal["scratch"]
    license: License | None = None
    tokenizer: Literal["words", "bpe"] = "words"
    vocab_size: Positive = 1024
    hidden_size: Positive = 64
    layers: Positive = 2
    heads: Positive = 4
    steps: Positive = 800
    batch_size: Positive = 64
    learning_rate: Rate = 1e-2
    temperature: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="below 1 sharpens the finished model, as samples at it would be"
    )
    max_length: Positive = 64
    quantization: Quantization = "none"

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size: must be a multiple of 2 · heads = {2 * self.heads} (rotary "
                f"positions turn pairs of numbers), not {self.hidden_size}"
            )
        if self.quantization == "nf4" and self.hidden_size % 32:
            raise ValueError(
                "hidden_size: must be a multiple of 32 to be quantised to nf4, "
                f"not {self.hidden_size}"
            )
        return self


class PretrainedModel(Strict):
    """A causal language model from the hub or a local directory."""

    kind: Literal["pretrained"]
    license: License | None = None
    model: str = Field(
        description="hub id, or a directory if it begins with /, ., ~ or ${VARIABLE}"
    )
    revision: str = "main"
    max_length: Positive = 1024
    quantization: Quantization = "nf4"
