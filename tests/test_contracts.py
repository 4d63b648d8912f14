"""What our subclasses override or call of TRL, PEFT and transformers without a promise.

These libraries may move their private parts in any minor version, and an override that no longer
overrides anything fails silently. So their shape is written down here: where a test of this module
fails after an upgrade, read the module of ours that it names before changing the expectation.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate.utils import extract_model_from_parallel
from peft import PeftModel, PeftType, get_peft_model
from peft.config import PeftConfig, PeftConfigMixin
from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from peft.utils import (
    get_quantization_kwargs,
    register_peft_method,
    resolve_quantization_backend,
    set_peft_model_state_dict,
)
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
)
from transformers.integrations.peft import PeftAdapterMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.loading_report import LoadStateDictInfo
from trl.trainer import dpo_trainer, reward_trainer, sft_trainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.sft_trainer import SFTTrainer
from trl.trainer.utils import add_fused_lm_head, shuffle_sequence_dict, split_tensor_dict

from panacea_lib.adapter import PanaceaConfig, PanaceaLayer, PanaceaModel
from panacea_lib.rewards.soft_trainer import SoftLabelCollator, SoftLabelRewardTrainer
from panacea_lib.trainers import ProgressCallback
from panacea_lib.training.guard import FiniteGuard
from panacea_lib.training.logs import ScaleCallback, TimeCallback
from panacea_lib.training.pair_trainer import PairCollator, PanaceaPairTrainer
from panacea_lib.training.rloo_trainer import PanaceaRlooTrainer
from panacea_lib.training.sft_trainer import PanaceaSftTrainer, SftCollator
from panacea_lib.training.stopping import StopCallback

PAIRS = "panacea_lib/training/pair_trainer.py"
RLOO = "panacea_lib/training/rloo_trainer.py"
SFT = "panacea_lib/training/sft_trainer.py"
GUARD = "panacea_lib/training/guard.py"
SOFT = "panacea_lib/rewards/soft_trainer.py"
TUNER = "panacea_lib/adapter/model.py"
LAYER = "panacea_lib/adapter/layer.py"
LOAD = "panacea_lib/adapter/load.py"
DPOCollator = dpo_trainer.DataCollatorForPreference
RewardCollator = reward_trainer.DataCollatorForPreference
SftCollatorOfTrl = sft_trainer.DataCollatorForLanguageModeling


# ---- signatures: (theirs, its parameters in order, the module of ours that relies on it)

Signature = tuple[Callable[..., Any], str, str]
SIGNATURES: list[Signature] = [
    (DPOTrainer._compute_loss, "self model inputs return_outputs", PAIRS),
    (DPOTrainer._prepare_dataset, "self dataset processing_class args dataset_name", PAIRS),
    (DPOTrainer._set_signature_columns_if_needed, "self", PAIRS),
    (DPOCollator.torch_call, "self examples", PAIRS),
    (
        DPOCollator.__init__,
        "self pad_token_id max_length truncation_mode pad_to_multiple_of return_tensors",
        PAIRS,
    ),
    (
        RewardTrainer.compute_loss,
        "self model inputs return_outputs num_items_in_batch",
        SOFT,
    ),
    (SFTTrainer.compute_loss, "self model inputs return_outputs num_items_in_batch", SFT),
    (SftCollatorOfTrl.torch_call, "self examples", SFT),
    (
        SftCollatorOfTrl.__init__,
        "self pad_token_id padding_free return_position_ids pad_to_multiple_of return_tensors",
        SFT,
    ),
    (RewardTrainer._set_signature_columns_if_needed, "self", SOFT),
    (RLOOTrainer._compute_loss, "self model inputs", RLOO),
    (RLOOTrainer._generate_and_score_completions, "self inputs", RLOO),
    (RLOOTrainer._send_telemetry, "self", RLOO),
    (RLOOTrainer._tokenize_prompts, "self prompts", RLOO),
    (RewardCollator.torch_call, "self examples", SOFT),
    (RewardCollator.__init__, "self pad_token_id pad_to_multiple_of return_tensors", SOFT),
    (BaseTuner.forward, "self args kwargs", TUNER),
    (BaseTuner._pre_injection_hook, "self model config adapter_name", TUNER),
    (BaseTuner._post_injection_hook, "self model config adapter_name", TUNER),
    (
        BaseTuner._remap_adapter_state_dict_for_load,
        "model config adapter_name state_dict",
        TUNER,
    ),
    (BaseTuner.set_adapter, "self adapter_name inference_mode", TUNER),
    (PeftModel._enable_peft_forward_hooks, "self args kwargs", TUNER),
    (BaseTuner._prepare_adapter_config, "self peft_config model_config", TUNER),
    (BaseTuner._check_merge_allowed, "self", TUNER),
    (BaseTuner._replace_module, "self parent child_name new_module child", TUNER),
    (
        BaseTuner._create_and_replace,
        "self peft_config adapter_name target target_name parent current_key parameter_name",
        TUNER,
    ),
    (get_quantization_kwargs, "model", TUNER),
    (resolve_quantization_backend, "base_layer kwargs", LAYER),
    (check_adapters_to_merge, "module adapter_names", LAYER),
    (BaseTunerLayer._move_adapter_to_device_of_base_layer, "self adapter_name device", LAYER),
    (BaseTunerLayer._get_base_layer_device_and_dtype, "self base_layer", LAYER),
    (BaseTunerLayer.set_adapter, "self adapter_names inference_mode", LAYER),
    (BaseTunerLayer.delete_adapter, "self adapter_name", LAYER),
    (BaseTunerLayer.get_base_weight, "self", LAYER),
    (BaseTunerLayer.set_base_weight, "self weight_data", LAYER),
    (PeftConfigMixin.to_dict, "self", "panacea_lib/adapter/config.py"),
    (
        register_peft_method,
        "name config_cls model_cls prefix is_mixed_compatible",
        "panacea_lib/adapter/__init__.py",
    ),
    (
        set_peft_model_state_dict,
        "model peft_model_state_dict adapter_name ignore_mismatched_sizes low_cpu_mem_usage",
        "panacea_lib/policy.py and panacea_lib/adapter/load.py",
    ),
    (
        PeftAdapterMixin.load_adapter,
        "self peft_model_id adapter_name peft_config adapter_state_dict low_cpu_mem_usage "
        "is_trainable hotswap local_files_only adapter_kwargs load_config kwargs",
        LOAD,
    ),
    (PeftAdapterMixin.delete_adapter, "self adapter_names", LOAD),
    (
        extract_model_from_parallel,
        "model keep_fp32_wrapper keep_torch_compile recursive",
        "panacea_lib/adapter/export.py",
    ),
    (TrainerCallback.on_step_begin, "self args state control kwargs", GUARD),
    (TrainerCallback.on_pre_optimizer_step, "self args state control kwargs", GUARD),
    (TrainerCallback.on_log, "self args state control kwargs", "panacea_lib/trainers.py"),
    (TrainerCallback.on_step_end, "self args state control kwargs", "panacea_lib/trainers.py"),
    (DynamicCache.batch_repeat_interleave, "self repeats", "panacea_lib/world/exact.py"),
]


@pytest.mark.parametrize(
    ("theirs", "expected", "ours"), SIGNATURES, ids=[row[0].__qualname__ for row in SIGNATURES]
)
def test_a_signature_is_as_it_was(theirs, expected, ours):
    found = " ".join(inspect.signature(theirs).parameters)
    assert found == expected, f"{theirs.__module__}.{theirs.__qualname__} changed: look at {ours}"


# ---- overrides: what of ours replaces something of theirs, so that a renamed method is noticed

OVERRIDES: dict[type, tuple[str, str]] = {
    PanaceaPairTrainer: (
        "__init__ _compute_loss _prepare_dataset _set_signature_columns_if_needed",
        PAIRS,
    ),
    PairCollator: ("torch_call", PAIRS),
    PanaceaRlooTrainer: (
        "__init__ _compute_loss _generate_and_score_completions "
        "_get_per_token_logps_and_entropies _send_telemetry _tokenize_prompts",
        RLOO,
    ),
    PanaceaSftTrainer: ("__init__ compute_loss", SFT),
    SftCollator: ("torch_call", SFT),
    SoftLabelRewardTrainer: ("_set_signature_columns_if_needed compute_loss", SOFT),
    SoftLabelCollator: ("torch_call", SOFT),
    PanaceaModel: (
        "_check_merge_allowed _create_and_replace _post_injection_hook _pre_injection_hook "
        "_prepare_adapter_config _remap_adapter_state_dict_for_load forward prefix "
        "tuner_layer_cls target_module_mapping",
        TUNER,
    ),
    PanaceaLayer: (
        "_move_adapter_to_device_of_base_layer adapter_layer_names delete_adapter "
        "other_param_names set_adapter",
        LAYER,
    ),
    PanaceaConfig: ("__post_init__ to_dict", "panacea_lib/adapter/config.py"),
    ProgressCallback: ("on_log on_step_end on_train_begin", "panacea_lib/trainers.py"),
    FiniteGuard: ("on_pre_optimizer_step on_step_begin", GUARD),
    ScaleCallback: ("on_log", "panacea_lib/training/logs.py"),
    TimeCallback: ("on_log on_train_begin", "panacea_lib/training/logs.py"),
    StopCallback: ("on_step_end on_train_begin", "panacea_lib/training/stopping.py"),
}


@pytest.mark.parametrize("ours", OVERRIDES, ids=lambda ours: ours.__name__)
def test_an_override_still_overrides_something(ours):
    names, module = OVERRIDES[ours]
    theirs = [base for base in ours.__mro__[1:] if not base.__module__.startswith("panacea_lib")]
    for name in names.split():
        declared = any(name in vars(base) or name in _annotations(base) for base in theirs[:-1])
        assert name in vars(ours), f"{module} no longer has {name}: mend this list"
        assert declared, f"no class above {ours.__name__} has {name} any more: look at {module}"


def _annotations(base: type) -> dict[str, Any]:
    return vars(base).get("__annotations__", {})


# ---- what their functions give


def test_dpo_batches_are_a_above_b_with_a_mask_of_the_completion():
    examples = [
        {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5, 6]},
        {"prompt_ids": [7], "chosen_ids": [8, 9], "rejected_ids": [1]},
    ]
    for i, example in enumerate(examples):
        example |= {"ref_chosen_logps": -1.0 - i, "ref_rejected_logps": -3.0 - i}
    batch = DPOCollator(pad_token_id=0, max_length=8)(examples)
    rows = [[1, 2, 3, 0, 0], [7, 8, 9, 0, 0], [1, 2, 4, 5, 6], [7, 1, 0, 0, 0]]
    assert batch["input_ids"].tolist() == rows, f"look at {PAIRS}"
    completion = [[0, 0, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 1, 0, 0, 0]]
    assert batch["completion_mask"].tolist() == completion, f"look at {PAIRS}"
    assert batch["attention_mask"].sum(1).tolist() == [3, 3, 5, 2]
    assert batch["ref_chosen_logps"].tolist() == [-1, -2]
    assert batch["ref_rejected_logps"].tolist() == [-3, -4]


def test_reward_batches_are_a_above_b():
    examples = [
        {"chosen_ids": [1, 2], "rejected_ids": [3]},
        {"chosen_ids": [4], "rejected_ids": []},
    ]
    batch = RewardCollator(pad_token_id=0)(examples)
    assert batch["input_ids"].tolist() == [[1, 2], [4, 0], [3, 0], [0, 0]], f"look at {SOFT}"
    assert set(batch) == {"input_ids", "attention_mask"}, f"look at {SOFT}"


def test_sft_batches_keep_the_labels_they_are_given():
    examples = [
        {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]},
        {"input_ids": [4, 5], "labels": [-100, 5]},
    ]
    batch = SftCollatorOfTrl(pad_token_id=0)(examples)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 5, 0]], f"look at {SFT}"
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]], f"look at {SFT}"
    assert batch["labels"].tolist() == [[-100, 2, 3], [-100, 5, -100]], f"look at {SFT}"


def test_sft_asks_these_questions_before_it_touches_the_data_or_scales_the_loss():
    assert "loss_is_scaled_for_ga is not None" in inspect.getsource(Trainer.training_step), SFT
    assert '"skip_prepare_dataset"' in inspect.getsource(SFTTrainer.__init__), SFT
    assert '"sequential"' in inspect.getsource(Trainer._get_train_sampler), SFT


def test_log_probs_are_asked_for_with_the_chunk_s_size_in_the_fifth_place():
    """And what else is asked comes by name; ours counts on both."""
    method = RLOOTrainer._get_per_token_logps_and_entropies
    found = list(inspect.signature(method).parameters)
    expected = "self model input_ids attention_mask logits_to_keep batch_size"
    assert " ".join(found[:6]) == expected, f"look at {RLOO}"


def test_what_a_rollout_carries_is_shuffled_and_split_with_it():
    torch.manual_seed(0)
    rows = torch.arange(6)
    batch: Any = {"ids": rows, "preference": torch.stack([rows, rows], 1)}
    shuffled: Any = shuffle_sequence_dict(batch)
    parts: Any = split_tensor_dict(shuffled, 3)
    assert [len(part["ids"]) for part in parts] == [2, 2, 2], f"look at {RLOO}"
    for part in parts:
        assert part["preference"][:, 0].tolist() == part["ids"].tolist(), f"look at {RLOO}"


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, num_attention_heads=2, **sizes)).eval()


def test_the_fused_head_gives_log_probs_that_are_zero_where_masked():
    model = tiny_llama()
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    labels = ids.masked_fill(torch.tensor([[1, 1, 0, 0, 1]]).bool(), -100)
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        add_fused_lm_head(model)
        found = model(input_ids=ids, labels=labels, fused_lm_head=True, use_cache=False).log_probs
    by_hand = [0.0, expected[1, 3].item(), expected[2, 4].item(), 0.0]
    assert found[0].tolist() == pytest.approx(by_hand, abs=1e-5), f"look at {PAIRS}"


def test_a_forward_can_keep_the_last_logits_only():
    model, ids = tiny_llama(), torch.tensor([[1, 2, 3, 4, 5]])
    with torch.no_grad():
        every, last = model(input_ids=ids), model(input_ids=ids, logits_to_keep=2)
    assert torch.allclose(every.logits[:, -2:], last.logits), "look at panacea_lib/generation.py"


def test_peft_s_registry_is_closed_and_grows_by_its_enum_s_members():
    where = "look at panacea_lib/adapter/__init__.py"
    with pytest.raises(ValueError, match="Unknown PEFT type"):
        register_peft_method(name="nonesuch", config_cls=PeftConfig, model_cls=BaseTuner)
    member = PeftType("PANACEA")
    assert member.value == "PANACEA" and PeftType.__members__["PANACEA"] is member, where
    assert PEFT_TYPE_TO_CONFIG_MAPPING[member] is PanaceaConfig, where
    assert PEFT_TYPE_TO_TUNER_MAPPING[member] is PanaceaModel, where
    assert PEFT_TYPE_TO_PREFIX_MAPPING[member] == "panacea_", where
    for table in ("_member_names_", "_member_map_", "_value2member_map_"):
        assert hasattr(PeftType, table), where


def test_checkpointing_goes_through_the_attribute_that_we_wrap():
    model = tiny_llama()
    model.gradient_checkpointing_enable()
    layer = model.model.layers[0]
    assert isinstance(layer, GradientCheckpointingLayer), f"look at {TUNER}"
    assert callable(layer._gradient_checkpointing_func), f"look at {TUNER}"
    calls = []
    layer._gradient_checkpointing_func = lambda function, *args: calls.append(1) or function(*args)
    model.train()(input_ids=torch.tensor([[1, 2]]))
    assert calls == [1], f"look at {TUNER}"
    assert hasattr(PreTrainedModel, "activation_checkpointing_enable"), f"look at {TUNER}"


def test_gradients_are_looked_at_before_the_step_that_would_use_them():
    source = inspect.getsource(Trainer._run_epoch)
    order = [
        source.index(call)
        for call in (
            "on_step_begin(",
            "training_step(",
            "on_pre_optimizer_step(",
            "optimizer.step()",
        )
    ]
    assert order == sorted(order), f"look at {GUARD}"
    source = inspect.getsource(Trainer.log)
    assert source.index("log_history.append") < source.index("on_log("), (
        "panacea_lib/training/logs.py"
    )


def test_a_checkpoint_s_state_is_written_last():
    """`last_complete_checkpoint` takes a folder with the state file for whole."""
    source = inspect.getsource(Trainer._save_checkpoint)
    written = ("self.save_model(", "_save_optimizer_and_scheduler(", "_save_rng_state(")
    order = [source.index(call) for call in (*written, "save_to_json(")]
    assert order == sorted(order), "look at panacea_lib/training/train.py"


def tiny_adapted() -> PeftModel:
    return get_peft_model(tiny_llama(), PanaceaConfig(dimensions=["a", "b"], r=2))


def test_all_that_peft_loads_passes_the_tuner_s_check():
    source = inspect.getsource(set_peft_model_state_dict)
    assert "tuner_cls._remap_adapter_state_dict_for_load(" in source, f"look at {TUNER}"
    with pytest.raises(ValueError, match="does not fit"):
        set_peft_model_state_dict(tiny_adapted(), {})


def test_transformers_loads_adapters_by_the_method_that_we_wrap():
    theirs = inspect.unwrap(PeftAdapterMixin.load_adapter)
    assert theirs is not PeftAdapterMixin.load_adapter, f"{LOAD} wraps it no more"
    assert PreTrainedModel.load_adapter is PeftAdapterMixin.load_adapter, f"look at {LOAD}"
    loading = inspect.getsource(PreTrainedModel.from_pretrained)
    assert "model.load_adapter(" in loading, f"look at {LOAD}"
    fields = {field.name for field in dataclasses.fields(LoadStateDictInfo)}
    assert {"missing_keys", "unexpected_keys", "mismatched_keys"} <= fields, f"look at {LOAD}"
    assert "return loading_info" in inspect.getsource(theirs), f"look at {LOAD}"


def test_every_way_to_switch_goes_through_the_layers():
    """The shared λ learns of the active adapter there, and nowhere else."""
    model = tiny_adapted()
    model.add_adapter("other", PanaceaConfig(dimensions=["c", "d"], r=2))
    state = model.base_model.preference_state
    inner = model.get_base_model()
    switches: list[Callable[[], Any]] = [
        lambda: model.set_adapter("other"),
        lambda: model.base_model.set_adapter("default"),
        lambda: PeftAdapterMixin.set_adapter(inner, "other"),
        lambda: model.delete_adapter("other"),
    ]
    inner._hf_peft_config_loaded = True  # as if transformers had loaded them
    for switch, expected in zip(switches, ("other", "default", "other", "default"), strict=True):
        switch()
        assert state.active == [expected], f"look at {LAYER}"
    assert list(state.adapters) == ["default"], f"look at {LAYER}"


def test_four_bit_layers_have_the_switch_that_we_turn_off():
    where = "look at panacea_lib/models/base.py and panacea_lib/adapter/model.py"
    nn = pytest.importorskip("bitsandbytes").nn
    layer = nn.Linear4bit(32, 32)
    assert hasattr(layer, "support_avx512bf16_for_cpu"), where
    backend = resolve_quantization_backend(layer)
    assert backend is not None and backend.backend_name == "bnb 4bit", where
    assert backend.layer_type == "linear", where
    assert resolve_quantization_backend(torch.nn.Linear(2, 2)) is None, where


def test_the_printer_is_still_what_prints():
    trainer_source = inspect.getsource(Trainer.__init__)
    assert "PrinterCallback" in trainer_source, "look at quiet() in panacea_lib/trainers.py"
    assert "print(" in inspect.getsource(PrinterCallback.on_log)
