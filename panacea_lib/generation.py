"""Drawing responses and scoring their probability, in batches, reproducibly.

Sampling is at temperature 1 and untruncated: only then is E[λ·r] − β·E[log π/π_ref] the value of
the policy that was trained, and only then does the ruler measure it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from panacea_lib.models.chat import Tokenizer, decode_responses, encode_prompts
from panacea_lib.train_result import StepListener

TokenRows = list[list[int]]


@dataclass(frozen=True)
class Drawn:
    """Responses as token ids, the end-of-sequence token included where it was reached, and their
    log probabilities in nats, shape (B,), float64: those that they were drawn with."""

    rows: TokenRows
    logprobs: torch.Tensor


class DrawnLogprobs:
    """A logits processor that keeps the log probability of every token that `generate` draws.

    It changes nothing. Each step it sees what will be drawn from, and what the last step drew.
    """

    def __init__(self) -> None:
        self._drawn_from: torch.Tensor | None = None  # (B, V), of the step that is under way
        self._kept: list[torch.Tensor] = []  # (B,) per step

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._keep(input_ids)
        self._drawn_from = scores.float().log_softmax(-1)
        return scores

    def totals(self, output: torch.Tensor, rows: TokenRows) -> torch.Tensor:
        """The sums over the tokens of `rows`, which `generate` returned as the end of `output`."""
        self._keep(output)
        kept = torch.stack(self._kept, 1).double().cpu()
        lengths = torch.tensor([len(row) for row in rows])
        # What follows a row's end was not drawn: `generate` fills it up.
        return (kept * (torch.arange(kept.shape[1]) < lengths[:, None])).sum(1)

    def _keep(self, input_ids: torch.Tensor) -> None:
        if self._drawn_from is not None:
            self._kept.append(self._drawn_from.gather(1, input_ids[:, -1:])[:, 0])


@torch.inference_mode()
def draw_rows(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    max_new_tokens: int,
    seed: int,
    max_length: int | None = None,
    logprobs: DrawnLogprobs | None = None,
    **arguments: Any,
) -> Drawn:
    """One sampled response per prompt, with the probability it was drawn with.

    All rows are one batch; `arguments` go to `generate` (such as `preference=`). `max_length` as in
    `fitting_prompts`; `logprobs` is the logits processor, where another one than usual draws.
    """
    logprobs = logprobs or DrawnLogprobs()
    rows = fitting_prompts(tokenizer, prompts, max_new_tokens, max_length)
    batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(model.device)
    torch.manual_seed(seed)
    output = model.generate(
        **batch,
        max_new_tokens=max_new_tokens,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=tokenizer.pad_token_id,
        logits_processor=[logprobs],
        **arguments,
    )
    responses = [
        _until_end(row, tokenizer.eos_token_id)
        for row in output[:, batch["input_ids"].shape[1] :].tolist()
    ]
    return Drawn(responses, logprobs.totals(output, responses))


def generate_rows(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    max_new_tokens: int,
    seed: int,
    max_length: int | None = None,
    **arguments: Any,
) -> TokenRows:
    """The rows of `draw_rows`."""
    how = (max_new_tokens, seed, max_length)
    return draw_rows(model, tokenizer, prompts, *how, **arguments).rows


def fitting_prompts(
    tokenizer: Tokenizer, prompts: Sequence[str], max_new_tokens: int, max_length: int | None
) -> TokenRows:
    """Token ids of the prompts; where prompt and response would exceed `max_length` together,
    the prompt loses its beginning, as in training."""
    rows = encode_prompts(tokenizer, list(prompts))
    return rows if max_length is None else [row[max_new_tokens - max_length :] for row in rows]


def _until_end(row: list[int], end: int) -> list[int]:
    return row[: row.index(end) + 1] if end in row else row


@torch.inference_mode()
def sequence_logprobs(
    model: Any, tokenizer: Tokenizer, prompts: TokenRows, responses: TokenRows, **arguments: Any
) -> torch.Tensor:
    """log π(response | prompt) in nats, summed over the response's tokens; shape (B,), float64.

    All rows are one batch, and all responses begin at one column, so that there are no logits
    of prompts; `arguments` go to the forward (such as `preference=`).
    """
    asked, answered = (max(map(len, rows)) for rows in (prompts, responses))
    ids = torch.full((len(prompts), asked + answered), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        row = slice(asked - len(prompt), asked + len(response))
        ids[i, row] = torch.tensor(prompt + response)
        mask[i, row] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=answered + 1,
        **arguments,
    ).logits[:, :-1]
    targets = ids[:, asked:]
    picked = logits.float().log_softmax(-1).gather(2, targets[:, :, None])[:, :, 0]
    return (picked.double() * mask[:, asked:]).sum(1).cpu()


def sample_responses(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    per_prompt: int,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    on_step: StepListener | None = None,
    max_length: int | None = None,
) -> list[list[str]]:
    """`per_prompt` responses of the model itself to each prompt, as texts.

    `max_length` as in `fitting_prompts`.
    """
    asked = [prompt for prompt in prompts for _ in range(per_prompt)]
    texts: list[str] = []
    for start in range(0, len(asked), batch_size):
        chunk = asked[start : start + batch_size]
        drawn_by = batch_seed(seed, start)
        rows = generate_rows(model, tokenizer, chunk, max_new_tokens, drawn_by, max_length)
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
