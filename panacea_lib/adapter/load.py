"""Loading a saved adapter, strictly: what is missing, unknown or of another shape is an error.

PEFT and transformers warn of missing weights and go on, and say little of those that fit nowhere.
Whatever PEFT loads passes `PanaceaModel._remap_adapter_state_dict_for_load`, which calls
`check_tensors`; what transformers loads itself passes `be_strict_in_transformers`.
"""

import functools
from collections.abc import Collection
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModelForCausalLM, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.peft import PeftAdapterMixin

from panacea_lib.adapter.config import PanaceaConfig


def load_adapter(
    base_model: PreTrainedModel, adapter_dir: str | Path, *, trainable: bool = False
) -> PeftModelForCausalLM:
    """The adapter saved in `adapter_dir` on top of `base_model` (which is changed in place).

    As `PeftModel.from_pretrained`, which falls back to a pickle and leaves `base_model` wrapped
    after an error: here only safetensors are read, and `base_model` is given back as it was.
    """
    weights = Path(adapter_dir) / SAFETENSORS_WEIGHTS_NAME
    if not weights.is_file():
        raise FileNotFoundError(f"No adapter weights at {weights} (only safetensors are read).")
    config = PeftConfig.from_pretrained(str(adapter_dir))
    if not isinstance(config, PanaceaConfig):
        raise ValueError(f"{adapter_dir} holds a {config.peft_type} adapter, not a Panacea one.")
    config.inference_mode = not trainable
    tensors = load_file(weights)
    model = PeftModelForCausalLM(base_model, config)
    try:
        set_peft_model_state_dict(model, tensors)
    except ValueError as error:
        model.unload()
        raise ValueError(f"{weights}: {error}") from error
    return model.train(trainable)


def check_tensors(model: nn.Module, adapter_name: str, tensors: dict[str, Tensor]) -> None:
    """Refuse saved `tensors`, under the model's own names, that are not the adapter's.

    Tensors of the base model (PEFT saves embeddings of a resized vocabulary along) are let pass.
    """
    known = model.state_dict()
    of_adapter = {key for key in known if f".panacea_factors.{adapter_name}." in key}
    wrong = {
        key
        for key in of_adapter | tensors.keys()
        if key not in tensors or key not in known or known[key].shape != tensors[key].shape
    }
    _refuse(wrong)


def be_strict_in_transformers() -> None:
    """Make `model.load_adapter` of transformers refuse what it would only warn of.

    `AutoModelForCausalLM.from_pretrained(adapter_dir)` calls it too. It asks the tuner nothing
    after loading, so the method itself is wrapped; adapters of other kinds see no difference.
    """
    load = PeftAdapterMixin.load_adapter
    if hasattr(load, "checks_panacea"):
        return

    @functools.wraps(load)
    def strict(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = set(getattr(self, "peft_config", {}))

        def added() -> list[str]:
            configs: dict[str, Any] = getattr(self, "peft_config", {})
            new = (name for name in configs if name not in before)
            return [name for name in new if isinstance(configs[name], PanaceaConfig)]

        try:
            info = load(self, *args, **kwargs)
            for name in added():
                # transformers counts all Panacea adapters of the model as missing but this one.
                missing = {key for key in info.missing_keys if f".{name}." in key}
                mismatched = {key for key, *_ in info.mismatched_keys}
                _refuse(missing | mismatched | info.unexpected_keys)
        except (ValueError, RuntimeError):  # the latter where transformers itself refuses a shape
            for name in added():
                self.delete_adapter(name)
            raise
        return info

    strict.checks_panacea = True  # type: ignore[attr-defined]
    PeftAdapterMixin.load_adapter = strict


def _refuse(wrong: Collection[str]) -> None:
    if wrong:
        raise ValueError(
            f"The saved adapter does not fit this base model: {len(wrong)} tensors are missing, "
            f"unexpected or of another shape, the first being {sorted(wrong)[:3]}."
        )
