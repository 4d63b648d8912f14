"""Drawing responses and scoring their probability, in batches, reproducibly.

Sampling is at temperature 1 and untruncated: only then is E[λ·r] − β·E[log π/π_ref] the value of
the policy that was trained, and only then does the ruler measure it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from panacea_lib.models.chat import Tokenizer, decode_responses, encode_prompts
from panacea_lib.trainers import StepListener

TokenRows = list[list[int]]


@torch.inference_mode()
def generate_rows(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    max_new_tokens: int,
    seed: int,
    **arguments: Any,
) -> TokenRows:
    """One sampled response per prompt as token ids, the end-of-sequence token included where it
    was reached. All rows are one batch; `arguments` go to `generate` (such as `preference=`)."""
    batch = tokenizer.pad(
        {"input_ids": encode_prompts(tokenizer, list(prompts))}, return_tensors="pt"
    ).to(model.device)
    torch.manual_seed(seed)
    output = model.generate(
        **batch,
        max_new_tokens=max_new_tokens,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=tokenizer.pad_token_id,
        **arguments,
    )
    return [
        _until_end(row, tokenizer.eos_token_id)
        for row in output[:, batch["input_ids"].shape[1] :].tolist()
    ]


def _until_end(row: list[int], end: int) -> list[int]:
    return row[: row.index(end) + 1] if end in row else row


@torch.inference_mode()
def sequence_logprobs(
    model: Any, tokenizer: Tokenizer, prompts: TokenRows, responses: TokenRows, **arguments: Any
) -> torch.Tensor:
    """log π(response | prompt) in nats, summed over the response's tokens; shape (B,), float64.

    All rows are one batch, right-padded; `arguments` go to the forward (such as `preference=`).
    """
    rows = [p + r for p, r in zip(prompts, responses, strict=True)]
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    response_mask = mask.clone()
    for i, prompt in enumerate(prompts):
        response_mask[i, : len(prompt)] = 0
    ids, mask, response_mask = (t.to(model.device) for t in (ids, mask, response_mask))
    start = min(len(prompt) for prompt in prompts)  # no logits where every row is still prompt
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        use_cache=False,
        logits_to_keep=width - start + 1,
        **arguments,
    ).logits[:, :-1]
    targets = ids[:, start:]
    picked = logits.float().log_softmax(-1).gather(2, targets[:, :, None])[:, :, 0]
    return (picked.double() * response_mask[:, start:]).sum(1).cpu()


def sample_responses(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    per_prompt: int,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    on_step: StepListener | None = None,
) -> list[list[str]]:
    """`per_prompt` responses of the model itself to each prompt, as texts."""
    asked = [prompt for prompt in prompts for _ in range(per_prompt)]
    texts: list[str] = []
    for start in range(0, len(asked), batch_size):
        chunk = asked[start : start + batch_size]
        rows = generate_rows(model, tokenizer, chunk, max_new_tokens, batch_seed(seed, start))
        texts += decode_responses(tokenizer, rows)
        tell(on_step, start + len(chunk), len(asked))
    return [texts[i : i + per_prompt] for i in range(0, len(texts), per_prompt)]


def batch_seed(seed: int, start: int) -> int:
    """The seed of the batch that begins at row `start`: the same whatever ran before it."""
    return (seed * 1_000_003 + start) % 2**31


def tell(on_step: Callable[[int, int, dict[str, float]], None] | None, done: int, of: int) -> None:
    """Report progress where somebody listens."""
    if on_step is not None:
        on_step(done, of, {})
