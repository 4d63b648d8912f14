"""λ as words before the prompt: one digit per dimension, round(9·λᵢ), in the dimensions' order.

Source: Rewards-in-Context (arXiv 2402.10207) and MO-ODPO (arXiv 2503.00295) condition one plain
model on numbers in its prompt. One token per dimension, so that training may overwrite the digits
of a tokenised prompt with those of another λ.
"""

from collections.abc import Sequence
from string import digits

import torch
from torch import Tensor

from panacea_lib.generation import TokenRows
from panacea_lib.models.chat import Tokenizer


def levels(preference: Tensor) -> Tensor:
    """The digits of λ: (…, m) → (…, m), whole numbers from 0 to 9 (halves go to the even one)."""
    return (9 * preference).round().long()


def digit_ids(tokenizer: Tokenizer) -> Tensor:
    """Token ids of "0" to "9", shape (10,).

    ValueError where one of them is no token of its own.
    """
    ids = [tokenizer.convert_tokens_to_ids(digit) for digit in digits]
    missing = [d for d, i in zip(digits, ids, strict=True) if i in (None, tokenizer.unk_token_id)]
    if missing:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no single token for "
            f"{', '.join(missing)}, so a preference cannot be put before its prompts."
        )
    return torch.tensor(ids)


def preference_tokens(tokenizer: Tokenizer, preferences: Tensor) -> TokenRows:
    """The m tokens of every λ of preferences (B, m)."""
    return digit_ids(tokenizer)[levels(preferences.cpu())].tolist()


def preference_offset(tokenizer: Tokenizer, prompt: Sequence[int]) -> int:
    """Where in a prompt's token ids the digits begin: 0, or 1 behind a token that opens the text.

    It is the same before and after they are put in.
    """
    return int(len(prompt) > 0 and prompt[0] == tokenizer.bos_token_id)


def overwritten(input_ids: Tensor, tokenizer: Tokenizer, preferences: Tensor) -> Tensor:
    """Rows that begin with a prompt of `with_preference`, (B, T), under other λ, (B, m)."""
    begins = -1 if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    offset = (input_ids[:, :1] == begins).long()
    places = offset + torch.arange(preferences.shape[1], device=input_ids.device)
    words = digit_ids(tokenizer).to(input_ids)[levels(preferences)]
    return input_ids.scatter(1, places, words)


def with_preference(prompt_ids: TokenRows, tokenizer: Tokenizer, preferences: Tensor) -> TokenRows:
    """Every prompt's token ids with the m tokens of its λ, preferences (B, m), in front."""
    rows = []
    for prompt, words in zip(prompt_ids, preference_tokens(tokenizer, preferences), strict=True):
        offset = preference_offset(tokenizer, prompt)
        rows.append([*prompt[:offset], *words, *prompt[offset:]])
    return rows
