"""The ruler: exact optimal values and fronts, by enumerating what the reference can answer.

π*_λ(y|x) ∝ π_ref(y|x) · exp(λ·r(x,y)/β) maximises V(λ) = E[λ·r] − β·KL(π‖π_ref), and
V*(λ) = E_x β·log E_ref[exp(λ·r/β)] (Panacea, arXiv 2402.02030, eq. 2 with linear scalarization;
the closed form is that of DPO, arXiv 2305.18290, eq. 4).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from panacea_lib.models.chat import Tokenizer, encode_prompts, encode_responses
from panacea_lib.world.gold import enumerated_scores
from panacea_lib.world.grammar import WorldPrompt, all_answers, render

_ROWS = 512  # answers per forward: a prompt's cache is shared by all of them


@dataclass(frozen=True)
class Enumeration:
    """Everything there is to know of P prompts, A = 739 outcomes (the last is ⊥), m dimensions.

    logprob: (P, A) of the reference policy, in nats; reward: (P, A, m), normalised.
    """

    logprob: np.ndarray
    reward: np.ndarray

    @property
    def outside_mass(self) -> float:
        """The reference's mean probability of ⊥."""
        return float(np.exp(self.logprob[:, -1]).mean())

    def optimum(self, preferences: np.ndarray, beta: float) -> "Optimum":
        """The exact optimum for each of the G preference vectors, shape (G, m)."""
        tilted = np.einsum("gm,pam->gpa", preferences, self.reward) / beta + self.logprob[None]
        log_partition = np.logaddexp.reduce(tilted, axis=2)
        probability = np.exp(tilted - log_partition[:, :, None])
        kl = (probability * (tilted - log_partition[:, :, None] - self.logprob[None])).sum(axis=2)
        reward = np.einsum("gpa,pam->gpm", probability, self.reward)
        return Optimum(value=beta * log_partition, kl=kl, reward=reward)

    def reference_reward(self) -> np.ndarray:
        """E_ref[r] per prompt, shape (P, m)."""
        return np.einsum("pa,pam->pm", np.exp(self.logprob), self.reward)


@dataclass(frozen=True)
class Optimum:
    """π*_λ per preference vector and prompt: value (G, P), kl (G, P) in nats, reward (G, P, m)."""

    value: np.ndarray
    kl: np.ndarray
    reward: np.ndarray


@torch.inference_mode()
def _answer_logprobs(model: Any, tokenizer: Tokenizer, prompt: WorldPrompt) -> np.ndarray:
    """log π_ref of each of the 738 answers to one prompt, shape (A − 1,), in nats."""
    from transformers import DynamicCache

    context = torch.tensor(encode_prompts(tokenizer, [prompt.text]), device=model.device)
    rows = encode_responses(tokenizer, [render(prompt, answer) for answer in all_answers()])
    logprobs = []
    for start in range(0, len(rows), _ROWS):
        chunk = rows[start : start + _ROWS]
        width = max(len(row) for row in chunk)
        ids = torch.tensor([row + [0] * (width - len(row)) for row in chunk], device=model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in chunk])
        cache = DynamicCache(config=model.config)
        first = model(context, past_key_values=cache, use_cache=True).logits[:, -1:]
        cache.batch_repeat_interleave(len(chunk))
        rest = model(ids[:, :-1], past_key_values=cache, use_cache=True).logits
        logits = torch.cat([first.expand(len(chunk), -1, -1), rest], dim=1).float()
        picked = logits.log_softmax(-1).gather(2, ids[:, :, None])[:, :, 0]
        logprobs.append((picked.double() * mask.to(picked.device)).sum(1).cpu().numpy())
    return np.concatenate(logprobs)


def enumerate_reference(
    model: Any,
    tokenizer: Tokenizer,
    prompts: list[WorldPrompt],
    dimensions: list[str],
    mean: np.ndarray,
    scale: np.ndarray,
) -> Enumeration:
    """Enumerate the reference policy on each prompt; `mean` and `scale`, shape (m,), normalise
    the gold rewards. Costs one pass over 738 answers a prompt."""
    logprob = np.stack([_answer_logprobs(model, tokenizer, prompt) for prompt in prompts])
    outside = np.log(np.maximum(1.0 - np.exp(logprob).sum(axis=1), 1e-12))
    raw = np.stack([enumerated_scores(prompt, dimensions) for prompt in prompts])
    return Enumeration(np.column_stack([logprob, outside]), (raw - mean) / scale)
