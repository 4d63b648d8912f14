"""Panacea (arXiv 2402.02030) as a PEFT method: one adapter, every preference vector.

`import panacea_lib.adapter` makes the method known to PEFT and transformers, so that
`get_peft_model`, `PeftModel.from_pretrained`, `AutoPeftModelForCausalLM` and
`AutoModelForCausalLM.from_pretrained(adapter_dir)` accept it like any other. Using one of the names
below from `panacea_lib` (`panacea_lib.set_preference(…)`) imports this package too; `import
panacea_lib` alone, which is light, does not.

    config.py      PanaceaConfig: what is saved beside the weights
    layer.py       one adapted linear map: the formula, merging
    model.py       the tuner: which layers are adapted, how a model is told λ
    preference.py  λ: what it may be, and where it lives
    load.py        strict loading
    export.py      one λ, frozen into a plain LoRA
"""

from peft import PeftType
from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)
from peft.utils import register_peft_method

from panacea_lib.adapter.config import PanaceaConfig
from panacea_lib.adapter.export import export_lora
from panacea_lib.adapter.layer import Factors, Linear, PanaceaLayer
from panacea_lib.adapter.load import be_strict_in_transformers, load_adapter
from panacea_lib.adapter.model import (
    PanaceaModel,
    find_preference_state,
    set_preference,
    under_preference,
)
from panacea_lib.adapter.preference import Preference, PreferenceState, as_preference

__all__ = [
    "Factors",
    "Linear",
    "PanaceaConfig",
    "PanaceaLayer",
    "PanaceaModel",
    "Preference",
    "PreferenceState",
    "as_preference",
    "export_lora",
    "find_preference_state",
    "load_adapter",
    "set_preference",
    "under_preference",
]


def _register() -> None:
    """Tell PEFT of the method. A second import replaces the first one's classes.

    PEFT's registration refuses names outside its closed `PeftType` enum. A plain string in its
    mappings would do for PEFT, but transformers reads `.peft_type.value` and finds none: so the
    enum grows by one member.
    """
    if "PANACEA" not in PeftType.__members__:
        member = str.__new__(PeftType, "PANACEA")
        member._name_ = member._value_ = "PANACEA"
        type.__setattr__(PeftType, "PANACEA", member)  # where Python ≥ 3.12 finds members
        PeftType._member_names_.append("PANACEA")
        PeftType._member_map_["PANACEA"] = member
        PeftType._value2member_map_["PANACEA"] = member
    for mapping in (
        PEFT_TYPE_TO_CONFIG_MAPPING,
        PEFT_TYPE_TO_TUNER_MAPPING,
        PEFT_TYPE_TO_PREFIX_MAPPING,
    ):
        mapping.pop(PeftType("PANACEA"), None)
    register_peft_method(name="panacea", config_cls=PanaceaConfig, model_cls=PanaceaModel)
    be_strict_in_transformers()


_register()
