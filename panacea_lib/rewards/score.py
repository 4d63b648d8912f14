"""Scores of a reward model, and how good they are on held-out pairs."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panacea_lib.batches import BATCH_TOKENS, by_length
from panacea_lib.intervals import wilson_interval
from panacea_lib.models.chat import encode_prompts, encode_responses
from panacea_lib.problem_types import Quantization
from panacea_lib.rewards.train import load_classifier, truncate
from panacea_lib.trainers import StepListener


class RewardModels:
    """The reward models of some dimensions on one base model, loaded once."""

    def __init__(
        self, base_folder: Path, quantization: Quantization, folders: list[Path], max_length: int
    ) -> None:
        from peft import PeftModel

        base, self._tokenizer = load_classifier(base_folder, quantization)
        self._max_length = max_length
        self._names = [str(i) for i in range(len(folders))]
        # One base with an adapter and a score head per dimension.
        self._model: Any = PeftModel.from_pretrained(base, str(folders[0]), self._names[0])
        for name, folder in zip(self._names[1:], folders[1:], strict=True):
            self._model.load_adapter(str(folder), name)
        self._model.eval()

    def scores(
        self, prompts: list[str], responses: list[str], on_step: StepListener | None = None
    ) -> np.ndarray:
        """Raw scores of the responses, one prompt beside each; shape (N, m), in the folders' order.

        Batches hold rows of like length.
        """
        prompt_ids = encode_prompts(self._tokenizer, prompts)
        response_ids = encode_responses(self._tokenizer, responses)
        rows = [
            truncate(p, r, self._max_length) for p, r in zip(prompt_ids, response_ids, strict=True)
        ]
        columns = []
        for name in self._names:
            self._model.set_adapter(name)
            columns.append(_score_rows(self._model, self._tokenizer.pad_token_id, rows, on_step))
        return np.stack(columns, axis=1)


def score_responses(
    base_folder: Path,
    quantization: Quantization,
    reward_folder: Path,
    max_length: int,
    prompts: list[str],
    responses: list[str],
    on_step: StepListener | None = None,
) -> np.ndarray:
    """Raw scores of one reward model, one prompt beside each response; shape (N,).

    Equal (prompt, response) texts are scored once.
    """
    model = RewardModels(base_folder, quantization, [reward_folder], max_length)
    score = partial(model.scores, on_step=on_step)
    return once_each(score, prompts, responses)[:, 0]


def once_each(
    score: Callable[[list[str], list[str]], np.ndarray], prompts: list[str], responses: list[str]
) -> np.ndarray:
    """score(prompts, responses), (N, m), with equal (prompt, response) texts scored once."""
    pairs = list(zip(prompts, responses, strict=True))
    unique = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
    scores = score([prompt for prompt, _ in unique], [response for _, response in unique])
    return scores[[unique[pair] for pair in pairs]]


@torch.inference_mode()
def _score_rows(
    model: Any, pad: int, rows: list[list[int]], on_step: StepListener | None
) -> np.ndarray:
    """The score of every row of token ids, in the rows' order."""
    scores = np.empty(len(rows))
    done = 0
    for batch in by_length([len(row) for row in rows], BATCH_TOKENS):
        width = len(rows[batch[-1]])
        ids = torch.tensor([rows[i] + [pad] * (width - len(rows[i])) for i in batch])
        mask = torch.tensor([[1] * len(rows[i]) + [0] * (width - len(rows[i])) for i in batch])
        logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
        scores[batch] = logits.squeeze(-1).float().cpu().numpy()
        done += len(batch)
        if on_step is not None:
            on_step(done, len(rows), {})
    return scores


def reward_model_metrics(
    margins: np.ndarray, labels: np.ndarray, gold_probability: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Rows (metric, value, low, high, n) on held-out pairs; ties are left out.

    margins: reward of a less reward of b, shape (N,); labels: P(a preferred), (N,);
    gold_probability: the true P(a preferred) where it is known. `accuracy` counts agreement with
    the label (a Wilson interval of 95 %), `majority` is what always naming the commoner side
    gets, `best_possible` what the true probability gets on these very labels.
    """
    kept = labels != 0.5
    margins, labels = margins[kept], labels[kept]
    first, n = labels > 0.5, int(kept.sum())
    rows = [_share("accuracy", (margins > 0) == first)]
    majority = max(first.mean(), 1 - first.mean()) if n else np.nan
    rows.append({"metric": "majority", "value": float(majority), "low": None, "high": None, "n": n})
    if gold_probability is not None:
        rows.append(_share("best_possible", (gold_probability[kept] > 0.5) == first))
    loss = np.logaddexp(0, -np.where(first, margins, -margins)).mean() if n else np.nan
    rows.append({"metric": "log_loss", "value": float(loss), "low": None, "high": None, "n": n})
    return rows


def _share(metric: str, hits: np.ndarray) -> dict[str, Any]:
    """A share with its Wilson interval."""
    n = len(hits)
    if n == 0:
        return {"metric": metric, "value": None, "low": None, "high": None, "n": 0}
    low, high = wilson_interval(int(hits.sum()), n)
    return {"metric": metric, "value": float(hits.mean()), "low": low, "high": high, "n": n}
