"""One adapted linear map: W(λ) = W₀ + (α/k) · U · diag(σ₁…σ_k, s·λ₁…s·λ_m) · Vᵀ.

Source: Panacea, arXiv 2402.02030, the embedding of λ as singular values into an SVD-shaped low-rank
update. Shapes: B rows, T tokens, m dimensions, k = r learned singular values.
"""

import warnings
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from peft.utils import resolve_quantization_backend
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from panacea_lib.adapter.config import PanaceaConfig
from panacea_lib.adapter.preference import PreferenceState


class Factors(nn.Module):
    """U, V, σ and s of one adapter on one linear map.

    A module and not `ParameterDict`s, so that parameter names read `….default.U`: TRL copies a
    reference adapter by the infix `.default.` and would silently copy nothing otherwise.
    """

    def __init__(self, in_features: int, out_features: int, config: PanaceaConfig) -> None:
        super().__init__()
        rank = config.r + len(config.dimensions)
        # float32 whatever the base model's type: the first steps of σ and s are tiny.
        self.U = nn.Parameter(torch.empty(out_features, rank, dtype=torch.float32))
        self.V = nn.Parameter(torch.empty(in_features, rank, dtype=torch.float32))
        self.sigma = nn.Parameter(torch.zeros(config.r, dtype=torch.float32))
        self.scale = nn.Parameter(torch.zeros(1, dtype=torch.float32))
        self.scaling = config.alpha / config.r
        self.dimensions = config.dimensions
        nn.init.normal_(self.U, std=config.init_std)
        nn.init.normal_(self.V, std=config.init_std)

    def diagonal(self, preference: Tensor) -> Tensor:
        """(α/k) · (σ, s·λ): (…, m) → (…, k + m), float32."""
        sigma = self.sigma.expand(*preference.shape[:-1], -1)
        return self.scaling * torch.cat((sigma, self.scale * preference), dim=-1)

    def forward(self, x: Tensor, preference: Tensor) -> Tensor:
        """x (B, T, in) and λ (m,) or (B, 1, m) → what the adapter adds, (B, T, out), in x's type.

        The small factors are cast to the type of x, not x to theirs: a float32 copy of x in every
        layer would cost far more memory and time than the adapter itself. λ acts in float32.
        """
        hidden = (x @ self.V.to(x.dtype)) * self.diagonal(preference)
        return functional.linear(hidden.to(x.dtype), self.U.to(x.dtype))

    def delta_weight(self, preference: Tensor) -> Tensor:
        """λ (m,) → the dense W(λ) − W₀, (out, in), float32."""
        return (self.U * self.diagonal(preference)) @ self.V.T


class PanaceaLayer(BaseTunerLayer):
    """What an adapted layer holds: its base layer, its factors by adapter name, the model's λ."""

    adapter_layer_names: tuple[str, ...] = ("panacea_factors",)
    other_param_names: tuple[str, ...] = ()

    def __init__(
        self, base_layer: nn.Module, preference_state: PreferenceState, **kwargs: Any
    ) -> None:
        self.base_layer = base_layer
        self.quantization_backend = resolve_quantization_backend(base_layer, **kwargs)
        self.is_transposed = isinstance(base_layer, Conv1D)  # GPT-2 keeps its weights (in, out)
        self.preference_state = preference_state
        self.panacea_factors = nn.ModuleDict()
        self.merged_adapters: list[str] = []
        self.merged_at: dict[str, Tensor] = {}  # the λ (m,) each merged adapter was merged at

    def update_layer(
        self, adapter_name: str, config: PanaceaConfig, inference_mode: bool = False
    ) -> None:
        """Add (or replace) the factors of `adapter_name`."""
        base: Any = self.base_layer
        inputs, outputs = (
            base.weight.shape if self.is_transposed else (base.in_features, base.out_features)
        )
        self.panacea_factors[adapter_name] = Factors(inputs, outputs, config)
        self.preference_state.adapters[adapter_name] = config.dimensions
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """As PEFT's; the λ that is set next is read for the adapters active now."""
        super().set_adapter(adapter_names, inference_mode)
        # A layer without factors of the active adapter may have another kind's, or none.
        if any(name in self.panacea_factors for name in self.active_adapters):
            self.preference_state.active = list(self.active_adapters)

    def delete_adapter(self, adapter_name: str) -> None:
        """As PEFT's; the adapter's dimensions are forgotten with it."""
        super().delete_adapter(adapter_name)
        self.preference_state.adapters.pop(adapter_name, None)

    def factors(self, adapter_name: str) -> Factors:
        """The factors of `adapter_name`, typed."""
        module = self.panacea_factors[adapter_name]
        assert isinstance(module, Factors)
        return module

    def is_finite(self) -> bool:
        """Whether all weights of the active adapters are."""
        factors = [self.factors(n) for n in self.active_adapters if n in self.panacea_factors]
        return all(bool(p.isfinite().all()) for f in factors for p in f.parameters())

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        """As PEFT's, without the cast to the base layer's type: adapters stay float32."""
        factors = self.factors(adapter_name)
        if device is None:
            device, _ = self._get_base_layer_device_and_dtype(self.base_layer)
        if device is not None and not factors.U.is_meta:
            factors.to(device)


class Linear(nn.Module, PanaceaLayer):
    """Panacea on a linear layer: `nn.Linear`, plain or quantised, or GPT-2's `Conv1D`."""

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: PanaceaConfig,
        preference_state: PreferenceState,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        PanaceaLayer.__init__(self, base_layer, preference_state, **kwargs)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x (B, T, in) → x · W(λ)ᵀ, (B, T, out)."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            if name in self.panacea_factors:
                factors = self.factors(name)
                self.preference_state.check_dimensions(factors.dimensions)
                delta = factors(x, self.preference_state.for_input(x))
                result = result + delta.to(result.dtype)
        return result

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the adapters' deltas at the current λ (m,) to the base weights.

        Args:
            safe_merge: Refuse to write weights that are not finite.
            adapter_names: The adapters to merge; default: the active ones.
        """
        names = check_adapters_to_merge(self, adapter_names)
        names = [name for name in names if name in self.panacea_factors]
        for name in names:  # before the first of them changes the weights
            self.preference_state.check_dimensions(self.factors(name).dimensions)
        for name in names:
            preference = self.preference_state.single()
            weight = self._shifted_base_weight(name, preference, sign=1)
            if safe_merge and not torch.isfinite(weight).all():
                raise ValueError(
                    f"NaNs detected in the merged weights. The adapter {name} seems to be broken"
                )
            self.set_base_weight(weight)
            self.merged_adapters.append(name)
            self.merged_at[name] = preference
            self.preference_state.merged_layers += 1

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the merged deltas out again, at the λ they were merged at."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        while self.merged_adapters:
            name = self.merged_adapters.pop()
            preference = self.merged_at.pop(name)
            self.set_base_weight(self._shifted_base_weight(name, preference, sign=-1))
            self.preference_state.merged_layers -= 1

    def _shifted_base_weight(self, adapter_name: str, preference: Tensor, sign: int) -> Tensor:
        """W₀ ± (W(λ) − W₀), shaped as W₀ is stored: added in float32, rounded once."""
        weight = self.get_base_weight()
        delta = self.factors(adapter_name).delta_weight(preference.to(weight.device))
        delta = delta.T if self.is_transposed else delta
        return (weight.float() + sign * delta).to(weight.dtype)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """W(λ) − W₀ of one adapter at the current λ (m,): as W₀ is stored, float32."""
        factors = self.factors(adapter)
        self.preference_state.check_dimensions(factors.dimensions)
        delta = factors.delta_weight(self.preference_state.single().to(factors.U.device))
        return delta.T if self.is_transposed else delta

    def __repr__(self) -> str:
        return "panacea." + super().__repr__()
