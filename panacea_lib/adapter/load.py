"""Loading a saved adapter, strictly."""

from pathlib import Path

from peft import (
    PeftConfig,
    PeftModelForCausalLM,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from transformers import PreTrainedModel

from panacea_lib.adapter.config import PanaceaConfig


def load_adapter(
    base_model: PreTrainedModel, adapter_dir: str | Path, *, trainable: bool = False
) -> PeftModelForCausalLM:
    """The adapter saved in `adapter_dir` on top of `base_model` (which is changed in place).

    `PeftModel.from_pretrained` warns and goes on where weights are missing, says nothing of those
    that fit nowhere, and falls back to a pickle. Here each is an error, and then `base_model` is
    given back as it was.
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
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    wrong = sorted(
        key
        for key in expected.keys() | tensors.keys()
        if key not in expected or key not in tensors or expected[key].shape != tensors[key].shape
    )
    if wrong:
        model.unload()
        raise ValueError(
            f"{weights} does not fit this base model: {len(wrong)} tensors are missing, unexpected "
            f"or of another shape, the first being {wrong[:3]}."
        )
    set_peft_model_state_dict(model, tensors)
    return model.train(trainable)
