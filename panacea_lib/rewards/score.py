"""Scores of reward models: any responses, in batches of like length, in chunks that resume."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panacea_lib.batches import BATCH_TOKENS, by_length
from panacea_lib.models.chat import encode_prompts, encode_responses
from panacea_lib.problem_types import Quantization
from panacea_lib.rewards.train import load_classifier, truncate
from panacea_lib.train_result import StepListener

CHUNK = 4_096
"""Responses whose scores are kept together where a scoring is to survive its death."""

Scorer = Callable[[list[str], list[str]], np.ndarray]
"""(prompts, responses), one prompt beside each response → raw scores, shape (N, m)."""


class RewardModels:
    """Reward models on one base model, loaded once: a folder with m heads, or m with one each."""

    def __init__(
        self, base_folder: Path, quantization: Quantization, folders: list[Path], max_length: int
    ) -> None:
        """ValueError where several folders have more than one head each."""
        from peft import PeftModel

        heads = [heads_of(folder) for folder in folders]
        if len(folders) > 1 and set(heads) != {1}:
            raise ValueError(f"several reward models need one head each, these have {heads}")
        base, self._tokenizer = load_classifier(base_folder, quantization, heads[0])
        self._heads = sum(heads)
        self._max_length = max_length
        self._names = [str(i) for i in range(len(folders))]
        # One base with an adapter and a score head per folder.
        self._model: Any = PeftModel.from_pretrained(base, str(folders[0]), self._names[0])
        for name, folder in zip(self._names[1:], folders[1:], strict=True):
            self._model.load_adapter(str(folder), name)
        self._model.eval()

    def scores(
        self, prompts: list[str], responses: list[str], on_step: StepListener | None = None
    ) -> np.ndarray:
        """Raw scores of the responses, one prompt beside each; shape (N, m), in the order of the
        folders or the heads.

        Batches hold rows of like length.
        """
        if not prompts:
            return np.empty((0, self._heads))
        prompt_ids = encode_prompts(self._tokenizer, prompts)
        response_ids = encode_responses(self._tokenizer, responses)
        rows = [
            truncate(p, r, self._max_length) for p, r in zip(prompt_ids, response_ids, strict=True)
        ]
        columns = []
        for name in self._names:
            self._model.set_adapter(name)
            columns.append(_score_rows(self._model, self._tokenizer.pad_token_id, rows, on_step))
        return np.concatenate(columns, axis=1)


def heads_of(folder: Path) -> int:
    """How many scores a saved reward model gives."""
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
        (head,) = (name for name in weights.keys() if name.endswith("score.weight"))  # noqa: SIM118
        return weights.get_slice(head).get_shape()[0]


def score_responses(
    base_folder: Path,
    quantization: Quantization,
    reward_folder: Path,
    max_length: int,
    prompts: list[str],
    responses: list[str],
    on_step: StepListener | None = None,
    chunks: Path | None = None,
) -> np.ndarray:
    """Raw scores of one reward model, one prompt beside each response; shape (N, heads).

    Equal (prompt, response) texts are scored once. With `chunks`, a folder for these very texts
    and this model, a scoring that died goes on from the chunks that it had finished.
    """
    model = RewardModels(base_folder, quantization, [reward_folder], max_length)
    if chunks is None or not prompts:
        return once_each(partial(model.scores, on_step=on_step), prompts, responses)
    return once_each(_in_chunks(model.scores, chunks, on_step), prompts, responses)


def _in_chunks(score: Scorer, folder: Path, on_step: StepListener | None) -> Scorer:
    """`score`, CHUNK rows at a time, each kept in `folder` and found there again."""

    def resumed(prompts: list[str], responses: list[str]) -> np.ndarray:
        parts = []
        for start in range(0, len(prompts), CHUNK):
            end = min(start + CHUNK, len(prompts))
            file = folder / f"scores-{start}-{end}.npy"
            if not file.exists():
                _write_whole(file, score(prompts[start:end], responses[start:end]))
            parts.append(np.load(file, allow_pickle=False))
            if on_step is not None:
                on_step(end, len(prompts), {})
        return np.concatenate(parts)

    return resumed


def _write_whole(file: Path, scores: np.ndarray) -> None:
    """The file, whole or not at all."""
    aside = file.with_suffix(".partial.npy")
    np.save(aside, scores, allow_pickle=False)
    aside.replace(file)


def once_each(score: Scorer, prompts: list[str], responses: list[str]) -> np.ndarray:
    """score(prompts, responses), (N, m), with equal (prompt, response) texts scored once."""
    pairs = list(zip(prompts, responses, strict=True))
    unique = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
    scores = score([prompt for prompt, _ in unique], [response for _, response in unique])
    return scores[[unique[pair] for pair in pairs]]


@torch.inference_mode()
def _score_rows(
    model: Any, pad: int, rows: list[list[int]], on_step: StepListener | None
) -> np.ndarray:
    """The scores of every row of token ids, in the rows' order; shape (N, heads)."""
    order: list[int] = []
    scores: list[np.ndarray] = []
    for batch in by_length([len(row) for row in rows], BATCH_TOKENS):
        width = len(rows[batch[-1]])
        ids = torch.tensor([rows[i] + [pad] * (width - len(rows[i])) for i in batch])
        mask = torch.tensor([[1] * len(rows[i]) + [0] * (width - len(rows[i])) for i in batch])
        logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
        scores.append(logits.double().cpu().numpy())
        order += batch
        if on_step is not None:
            on_step(len(order), len(rows), {})
    return np.concatenate(scores)[np.argsort(order)]
