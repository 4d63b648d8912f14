"""Baselines that answer for λ with plain LoRAs: mixed, picked, or asked in words.

mod                  decoding-time mixing of one LoRA per dimension (MOD, arXiv 2406.18853)
lora_per_preference  one LoRA per λ of a small set, the nearest answers (the "discrete policy
                     solutions" of Panacea, arXiv 2402.02030)
prompt_conditioned   one LoRA that reads λ before the prompt (`panacea_lib.prompt_preference`)

The rows of a batch may have different λ in all three.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from panacea_lib.generation import (
    Drawn,
    DrawnLogprobs,
    TokenRows,
    draw_rows,
    sequence_logprobs,
)
from panacea_lib.models.chat import Tokenizer
from panacea_lib.policy import Policy
from panacea_lib.prompt_preference import digit_ids, with_preference

PREFERENCES_FILE = "preferences.json"  # of a LoRA per λ: {"<subfolder>": [λ₁, …, λ_m]}
PROMPT_LORA = "prompt_lora"  # of prompt_conditioned: the LoRA's subfolder


@dataclass
class LoraPolicy(Policy):
    """A policy of plain LoRAs. They know no λ, so the policy remembers whose batch it is."""

    lora_names: tuple[str, ...] = ()  # as the model calls them
    remembered: Tensor | None = None

    @contextmanager
    def under(self, preferences: Tensor) -> Iterator[None]:
        """As `Policy.under`."""
        before, self.remembered = self.remembered, preferences
        try:
            yield
        finally:
            self.remembered = before

    def as_reference(self) -> AbstractContextManager[None]:
        """As `Policy.as_reference`."""
        return self.model.disable_adapter()

    def preferences(self) -> Tensor:
        """λ of the batch's rows, (B, m); ValueError outside of `under`."""
        if self.remembered is None:
            raise ValueError(f"{type(self).__name__} answers within `under(preferences)` only")
        return self.remembered


# ---- one LoRA per dimension, mixed token by token


def mixed(logits: Tensor, preferences: Tensor) -> Tensor:
    """Log probabilities of the mixture, (B, …, V) float32, from its members' logits (B·m, …, V).

    π(token) ∝ Π_i π_i(token)^λᵢ, normalised at every step. Rows m·b … m·b + m − 1 are prompt b's,
    one per dimension; preferences (B, m). This is MOD for the reverse KL divergence.
    """
    members = logits.float().log_softmax(-1).unflatten(0, preferences.shape)
    weights = preferences.to(members).reshape(*preferences.shape, *[1] * (members.dim() - 2))
    return (weights * members).sum(1).log_softmax(-1)


class _OneTokenPerPrompt(DrawnLogprobs):
    """A logits processor that draws each prompt's next token from the mixture, and leaves
    `generate` no other choice in any of the prompt's m rows: they stay copies of one text."""

    def __init__(self, preferences: Tensor) -> None:
        super().__init__()
        self._preferences = preferences

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        m = self._preferences.shape[1]
        mixture = super().__call__(
            input_ids, mixed(scores, self._preferences).repeat_interleave(m, 0)
        )
        drawn = torch.multinomial(mixture[::m].exp(), 1)  # (B, 1)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn.repeat_interleave(m, 0), 0.0)


@dataclass
class _MixedModel:
    """The mixture, called as a model is: one row per prompt, log probabilities for logits."""

    model: Any
    lora_names: list[str]
    preferences: Tensor

    @property
    def device(self) -> torch.device:
        return self.model.device

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, **arguments: Any
    ) -> SimpleNamespace:
        m = len(self.lora_names)
        logits = self.model(
            input_ids=input_ids.repeat_interleave(m, 0),
            attention_mask=attention_mask.repeat_interleave(m, 0),
            position_ids=position_ids.repeat_interleave(m, 0),
            adapter_names=self.lora_names * len(input_ids),
            **arguments,
        ).logits
        return SimpleNamespace(logits=mixed(logits, self.preferences))


@dataclass
class MixingPolicy(LoraPolicy):
    """MOD: every token costs m forwards, so a batch of B prompts has B·m rows."""

    def draw(
        self, prompts: list[str], max_new_tokens: int, seed: int, max_length: int | None = None
    ) -> Drawn:
        """As `Policy.draw`."""
        drawn = draw_rows(
            self.model,
            self.tokenizer,
            [prompt for prompt in prompts for _ in self.lora_names],
            max_new_tokens,
            seed,
            max_length,
            _OneTokenPerPrompt(self.preferences()),
            adapter_names=[*self.lora_names] * len(prompts),
        )
        m = len(self.lora_names)
        return Drawn(drawn.rows[::m], drawn.logprobs[::m])

    def logprobs(self, prompt_ids: TokenRows, responses: TokenRows) -> Tensor:
        """As `Policy.logprobs`: of the mixture that `generate` draws from."""
        mixture = _MixedModel(self.model, [*self.lora_names], self.preferences())
        return sequence_logprobs(mixture, self.tokenizer, prompt_ids, responses)


def open_mixture(
    model: Any, tokenizer: Tokenizer, folder: Path, dimensions: list[str]
) -> MixingPolicy:
    """MOD of the LoRAs folder/<dimension>, the same files that rewarded soups interpolate."""
    model, names = _with_loras(model, [folder / name for name in dimensions])
    return MixingPolicy(
        model,
        tokenizer,
        dimensions,
        forwards_per_token=len(names),
        adapters=len(names),
        lora_names=names,
    )


# ---- one LoRA per λ


@dataclass
class NearestPolicy(LoraPolicy):
    """One LoRA per λ of a small set; a row is answered by the one whose λ is nearest (L2)."""

    known: tuple[tuple[float, ...], ...] = ()  # the LoRAs' λ

    def nearest(self, preferences: Tensor) -> list[str]:
        """The LoRA of every row's λ (B, m); of equally near ones, the first in the file."""
        known = torch.tensor(self.known, dtype=torch.float32)
        squares = (preferences.float().cpu()[:, None] - known).square().sum(-1)
        return [self.lora_names[i] for i in squares.argmin(1).tolist()]

    def draw(
        self, prompts: list[str], max_new_tokens: int, seed: int, max_length: int | None = None
    ) -> Drawn:
        """As `Policy.draw`."""
        names = self.nearest(self.preferences())
        how = (max_new_tokens, seed, max_length)
        return draw_rows(self.model, self.tokenizer, prompts, *how, adapter_names=names)

    def logprobs(self, prompt_ids: TokenRows, responses: TokenRows) -> Tensor:
        """As `Policy.logprobs`."""
        names = self.nearest(self.preferences())
        rows = (prompt_ids, responses)
        return sequence_logprobs(self.model, self.tokenizer, *rows, adapter_names=names)


def open_nearest(
    model: Any, tokenizer: Tokenizer, folder: Path, dimensions: list[str]
) -> NearestPolicy:
    """The LoRAs that folder/preferences.json names; ValueError where one has no λ of m weights."""
    told = json.loads((folder / PREFERENCES_FILE).read_text(encoding="utf-8"))
    if not told or any(len(preference) != len(dimensions) for preference in told.values()):
        raise ValueError(
            f"{folder / PREFERENCES_FILE}: every subfolder needs a preference vector of "
            f"{len(dimensions)} weights, one for each of {dimensions}."
        )
    model, names = _with_loras(model, [folder / name for name in told])
    known = tuple(tuple(preference) for preference in told.values())
    return NearestPolicy(
        model, tokenizer, dimensions, adapters=len(names), lora_names=names, known=known
    )


# ---- λ in words


@dataclass
class _AskedInWords:
    """A model whose every row is told its λ before it generates."""

    model: Any
    tokenizer: Tokenizer
    preferences: Tensor

    @property
    def device(self) -> torch.device:
        return self.model.device

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **arguments: Any) -> Tensor:
        """As `generate` of transformers; λ's m tokens are not in the output, of which the first
        columns are as wide as `input_ids`."""
        prompts = [
            row[mask == 1].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)
        ]
        told = with_preference(prompts, self.tokenizer, self.preferences)
        batch = self.tokenizer.pad({"input_ids": told}, return_tensors="pt").to(self.device)
        output = self.model.generate(**batch, **arguments)
        return output[:, self.preferences.shape[1] :]


@dataclass
class PromptPolicy(LoraPolicy):
    """One LoRA that is told λ in m tokens before the prompt; the reference sees none of them."""

    def prompt_ids(
        self, prompts: list[str], max_new_tokens: int, max_length: int | None = None
    ) -> TokenRows:
        """As `Policy.prompt_ids`, without the m tokens of λ but with room for them."""
        return super().prompt_ids(prompts, max_new_tokens, self._room(max_new_tokens, max_length))

    def draw(
        self, prompts: list[str], max_new_tokens: int, seed: int, max_length: int | None = None
    ) -> Drawn:
        """As `Policy.draw`."""
        model = _AskedInWords(self.model, self.tokenizer, self.preferences())
        room = self._room(max_new_tokens, max_length)
        return draw_rows(model, self.tokenizer, prompts, max_new_tokens, seed, room)

    def logprobs(self, prompt_ids: TokenRows, responses: TokenRows) -> Tensor:
        """As `Policy.logprobs`; `prompt_ids` are those of the prompts without λ."""
        told = with_preference(prompt_ids, self.tokenizer, self.preferences())
        return sequence_logprobs(self.model, self.tokenizer, told, responses)

    def _room(self, max_new_tokens: int, max_length: int | None) -> int | None:
        if max_length is None:
            return None
        room = max_length - len(self.dimensions)
        if room <= max_new_tokens:
            raise ValueError(
                f"max_length {max_length} leaves no room for a prompt beside "
                f"{len(self.dimensions)} tokens of preference and {max_new_tokens} of response."
            )
        return room


def open_prompt_conditioned(
    model: Any, tokenizer: Tokenizer, folder: Path, dimensions: list[str]
) -> PromptPolicy:
    """The LoRA in folder/prompt_lora; ValueError where the tokenizer cannot spell λ."""
    digit_ids(tokenizer)
    model, names = _with_loras(model, [folder / PROMPT_LORA])
    return PromptPolicy(model, tokenizer, dimensions, adapters=1, lora_names=names)


def _with_loras(model: Any, folders: Sequence[Path]) -> tuple[Any, tuple[str, ...]]:
    """The base model with the LoRAs of all folders beside each other, and their names there.

    Numbered, because PEFT takes no name with a dot, and a folder may be called 0.5.
    """
    from peft import PeftModel

    names = tuple(f"lora{i}" for i in range(len(folders)))
    wrapped = PeftModel.from_pretrained(model, str(folders[0]), adapter_name=names[0])
    for name, folder in zip(names[1:], folders[1:], strict=True):
        wrapped.load_adapter(str(folder), adapter_name=name)
    return wrapped.eval(), names
