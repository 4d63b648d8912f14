"""A Panacea adapter at one fixed λ as a plain PEFT LoRA, for servers that know no other kind.

At a fixed λ the update of a layer is U · diag · Vᵀ with a constant diagonal: a LoRA of rank k + m
with A = Vᵀ and B = U · diag · α/k. Nothing of this project is needed to load it.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from peft import LoraConfig, PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor, nn

from panacea_lib.adapter.config import PanaceaConfig
from panacea_lib.adapter.layer import PanaceaLayer
from panacea_lib.adapter.preference import Preference, as_preference


def export_lora(
    model: nn.Module,
    preference: Preference,
    out_dir: str | Path,
    adapter_name: str = "default",
) -> Path:
    """Write `adapter_name` at one λ as a LoRA into `out_dir`; returns its path.

    Args:
        model: A `PeftModel`, one that transformers loaded with an adapter, or either within DDP or
            `torch.compile`; quantised or not. It is not changed.
        preference: λ by dimension name, or (m,).
        out_dir: A folder that does not exist yet or is empty; it appears whole or not at all.
        adapter_name: Which of the model's adapters.

    Raises:
        FileExistsError: `out_dir` holds something already.
        ValueError: There is no such adapter, λ is not one preference vector of its dimensions, or
            a factor is not finite.
    """
    out = Path(out_dir)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not empty: name another folder.")
    base = _base_model(model)
    layers = {
        name: module
        for name, module in base.named_modules()
        if isinstance(module, PanaceaLayer) and adapter_name in module.panacea_factors
    }
    if not layers:
        raise ValueError(f"{type(model).__name__} has no Panacea adapter named {adapter_name!r}.")
    config = base.peft_config[adapter_name]
    tensors = _lora_tensors(layers, adapter_name, _single(preference, config.dimensions))
    is_transposed = any(layer.is_transposed for layer in layers.values())

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as aside:
        written = Path(aside) / "lora"
        written.mkdir()
        _lora_config(config, is_transposed).save_pretrained(str(written))
        save_file(tensors, written / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        written.replace(out)  # over an empty folder too
    return out


def _base_model(model: nn.Module) -> Any:
    inner = extract_model_from_parallel(model, keep_torch_compile=False)
    return inner.get_base_model() if isinstance(inner, PeftModel) else inner


def _single(preference: Preference, dimensions: list[str]) -> Tensor:
    value = as_preference(preference, dimensions)
    if value.dim() != 1:
        raise ValueError(
            f"A LoRA holds one preference vector; got {value.shape[0]}: export each of them."
        )
    return value


@torch.no_grad()
def _lora_tensors(
    layers: dict[str, PanaceaLayer], adapter_name: str, preference: Tensor
) -> dict[str, Tensor]:
    """A (r, in) and B (out, r) of every layer, float32, under the names that PEFT saves."""
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        factors = layer.factors(adapter_name)
        diagonal = factors.diagonal(preference.to(factors.U.device))
        pair = {"A": factors.V.T, "B": factors.U * diagonal}
        for letter, tensor in pair.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"The adapter {adapter_name!r} is not finite in layer {name}.")
            key = f"base_model.model.{name}.lora_{letter}.weight"
            tensors[key] = tensor.float().cpu().contiguous()
    return tensors


def _lora_config(config: PanaceaConfig, is_transposed: bool) -> LoraConfig:
    rank = config.r + len(config.dimensions)
    lora = LoraConfig(
        r=rank,
        lora_alpha=rank,  # scaling 1: α/k is in B
        target_modules=_listed(config.target_modules),
        exclude_modules=_listed(config.exclude_modules),
        fan_in_fan_out=is_transposed,
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        revision=config.revision,
        inference_mode=True,
    )
    # It made sets of the lists, and would save them in another order each run.
    lora.target_modules = _listed(lora.target_modules)
    lora.exclude_modules = _listed(lora.exclude_modules)
    return lora


def _listed(names: set[str] | list[str] | str | None) -> list[str] | str | None:
    return sorted(names) if isinstance(names, set | list) else names
