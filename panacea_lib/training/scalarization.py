"""How m losses become one: what λ weighs (arXiv 2402.02030, section 4.2)."""

import torch
from torch import Tensor

from panacea_lib.problem_training import Scalarization


def scalarize(losses: Tensor, preference: Tensor, config: Scalarization) -> Tensor:
    """The one loss of a batch under λ, a scalar.

    losses: (B, m), 0 where a row says nothing of a dimension and else divided by the share of rows
    that do say something of it, so that the mean over the batch is that dimension's mean loss.
    preference: λ of each row, (B, m).

    linear             mean over rows of Σᵢ λᵢ·lossᵢ
    tchebycheff        maxᵢ λᵢ·(meanᵢ − zᵢ), meanᵢ over the batch
    smooth_tchebycheff μ·log Σᵢ exp(λᵢ·(meanᵢ − zᵢ)/μ) (arXiv 2402.19078): above the maximum,
                       by no more than μ·log m

    A max of means is not a mean of maxima, so the last two need one λ for the whole batch.
    ValueError where the rows' λ differ there, where z has not m entries, or where shapes differ.
    """
    if losses.dim() != 2 or losses.shape != preference.shape:
        raise ValueError(
            f"losses {tuple(losses.shape)} and preference {tuple(preference.shape)} must both be "
            "(B, m)"
        )
    if config.kind == "linear":
        return (preference * losses).sum(1).mean()
    if not torch.equal(preference, preference[:1].expand_as(preference)):
        raise ValueError(f"{config.kind} compares batch means under one λ, but the rows' λ differ")
    excess = preference[0] * (losses.mean(0) - _ideal(config, losses))
    if config.kind == "tchebycheff":
        return excess.max()
    return config.temperature * torch.logsumexp(excess / config.temperature, dim=0)


def _ideal(config: Scalarization, losses: Tensor) -> Tensor:
    """z, shape (m,): the losses that no policy beats; zeros unless the configuration says."""
    m = losses.shape[1]
    ideal = [0.0] * m if config.ideal is None else config.ideal
    if len(ideal) != m:
        raise ValueError(f"ideal: must have one loss for each of {m} dimensions, not {len(ideal)}")
    return losses.new_tensor(ideal)
