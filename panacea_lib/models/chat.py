"""Text to tokens and back, in one place, so that training, scoring and generation agree.

A sequence is the chat template's rendering of the prompt (with its generation prompt), then the
response, then the end-of-sequence token: exactly what generation produces.
"""

from typing import Any

Tokenizer = Any  # transformers.PreTrainedTokenizerBase; naming it would import transformers


def encode_prompts(tokenizer: Tokenizer, prompts: list[str]) -> list[list[int]]:
    """Token ids of each prompt as one user turn, ending where the assistant's turn begins.

    Raises `ValueError` where the tokenizer has no chat template: a base model without one does
    not say how it wants to be asked.
    """
    if tokenizer.chat_template is None:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template; use a model that "
            "was tuned on dialogue, or save a chat_template with its tokenizer"
        )
    unique = list(dict.fromkeys(prompts))  # a prompt is asked many times, and templates are slow
    turns = [[{"role": "user", "content": prompt}] for prompt in unique]
    texts = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    ids = dict(zip(unique, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True))
    return [list(ids[prompt]) for prompt in prompts]


def encode_responses(tokenizer: Tokenizer, responses: list[str]) -> list[list[int]]:
    """Token ids of each response with the end-of-sequence token."""
    ids = tokenizer(responses, add_special_tokens=False)["input_ids"]
    return [[*row, tokenizer.eos_token_id] for row in ids]


def decode_responses(tokenizer: Tokenizer, rows: Any) -> list[str]:
    """Texts of generated token rows, special tokens dropped."""
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    return [text.strip() for text in texts]
