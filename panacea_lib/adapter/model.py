"""The tuner: which layers are adapted, and how a model is told its preference vector λ."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import get_quantization_kwargs, resolve_quantization_backend
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.pytorch_utils import Conv1D

from panacea_lib.adapter.config import PanaceaConfig
from panacea_lib.adapter.layer import Linear, PanaceaLayer
from panacea_lib.adapter.load import check_tensors
from panacea_lib.adapter.preference import Preference, PreferenceState

LLAMA_LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def default_targets(model: nn.Module) -> list[str] | str:
    """The linear layers to adapt where nobody names them: all but the output's.

    By name where layers are named as Llama's are, so that a saved configuration is short; else
    "all-linear", which PEFT replaces by the full names of those it finds.
    """
    present = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    return sorted(LLAMA_LINEAR) if present >= LLAMA_LINEAR else "all-linear"


def find_preference_state(model: nn.Module) -> PreferenceState | None:
    """The λ shared by the adapter layers anywhere inside `model`; None if there are none."""
    layers = (module for module in model.modules() if isinstance(module, PanaceaLayer))
    layer = next(layers, None)
    return None if layer is None else layer.preference_state


def set_preference(model: nn.Module, preference: Preference | None) -> None:
    """Set the current λ of any model with a Panacea adapter inside.

    For a `PeftModel` this is its own `set_preference`; it also reaches a model inside a wrapper
    (DDP, FSDP, torch.compile) and one that transformers loaded together with an adapter. The last
    takes no `preference=`, its `generate` expects one row per row it makes, and under gradient
    checkpointing λ must stay until backward is done.
    """
    _known_state(model).set(preference)


def under_preference(model: nn.Module, preference: Preference) -> AbstractContextManager[None]:
    """`with under_preference(model, λ):` the current λ is this one; the previous comes back after.

    For the same models as `set_preference`, and with the same limits.
    """
    state = _known_state(model)
    return state.using(state.parse(preference))


def _known_state(model: nn.Module) -> PreferenceState:
    state = find_preference_state(model)
    if state is None:
        raise ValueError(f"{type(model).__name__} has no Panacea adapter to set a preference on.")
    return state


class PanaceaModel(BaseTuner):
    """A causal language model that answers for a preference vector λ (arXiv 2402.02030).

    λ is a dict of weights by dimension name, or (m,), or (B, m) with one row per row of
    `input_ids`. It can be given to one call (`model(..., preference=λ)`,
    `model.generate(..., preference=λ)`), to a block (`with model.preference(λ)`), or until further
    notice (`model.set_preference(λ)`); all four work on the `PeftModel` around this one.

    Gradient checkpointing runs layers again during backward, when the call or block that brought λ
    is over: each layer is then run under the λ of its own forward (`CheckpointUnderPreference`).
    """

    prefix: str = "panacea_"
    tuner_layer_cls = PanaceaLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 (declared so by PEFT)
    preference_state: PreferenceState

    # ---- λ

    def set_preference(self, preference: Preference | None) -> None:
        """Replace the current λ; None clears it."""
        self.preference_state.set(preference)

    def preference(self, preference: Preference) -> AbstractContextManager[None]:
        """`with model.preference(λ):` the current λ is this one; the previous comes back after."""
        return self.preference_state.using(self.preference_state.parse(preference))

    def forward(self, *args: Any, preference: Preference | None = None, **kwargs: Any) -> Any:
        """As the base model's, under `preference` (default: the current λ)."""
        if preference is None:
            return self.model(*args, **kwargs)
        with self.preference(preference):
            return self.model(*args, **kwargs)

    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *args: Any,
        preference: Preference | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the base model's, under `preference` (default: the current λ).

        λ (B, m) has one row per prompt and follows its prompt where beams or several returned
        sequences multiply the rows.
        """
        state = self.preference_state
        value, dimensions = state.value, state.value_dimensions
        if preference is not None:
            value, dimensions = state.parse(preference), state.dimensions
        if value is not None and value.dim() == 2:
            sources = (generation_config, self.model.generation_config)
            value = value.repeat_interleave(_rows_per_prompt(kwargs, *sources), dim=0)
        with state.using(value, dimensions):
            return self.model.generate(inputs, generation_config, *args, **kwargs)

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """As the base model's; each layer is recomputed under the λ of its forward."""
        self.model.gradient_checkpointing_enable(*args, **kwargs)
        self._checkpoint_under_preference()

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """transformers' newer name of `gradient_checkpointing_enable`."""
        self.model.activation_checkpointing_enable(*args, **kwargs)
        self._checkpoint_under_preference()

    def _checkpoint_under_preference(self) -> None:
        for module in self.model.modules():
            checkpoint = getattr(module, "_gradient_checkpointing_func", None)
            if checkpoint and not isinstance(checkpoint, CheckpointUnderPreference):
                bound = CheckpointUnderPreference(checkpoint, self.preference_state)
                module._gradient_checkpointing_func = bound

    # ---- what PEFT asks of a tuner

    def _pre_injection_hook(
        self, model: nn.Module, config: PanaceaConfig, adapter_name: str
    ) -> None:
        _keep_four_bit_weights_as_they_are(model, trainable=not config.inference_mode)
        # transformers makes a new tuner for every adapter it adds to a model: one λ for all.
        self.preference_state = find_preference_state(model) or PreferenceState()

    def _post_injection_hook(
        self, model: nn.Module, config: PanaceaConfig, adapter_name: str
    ) -> None:
        self._checkpoint_under_preference()  # for a model whose checkpointing was on before

    def _prepare_adapter_config(
        self, peft_config: PanaceaConfig, model_config: dict
    ) -> PanaceaConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = default_targets(self.model)
        return peft_config

    def _create_and_replace(
        self,
        peft_config: PanaceaConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, Linear):
            target.update_layer(adapter_name, peft_config)
            return
        quantization = get_quantization_kwargs(self)
        backend = resolve_quantization_backend(target, **quantization)
        is_plain = isinstance(target, nn.Linear | Conv1D)
        if not is_plain and getattr(backend, "layer_type", None) != "linear":
            raise TypeError(
                "Panacea adapts linear layers: nn.Linear, Conv1D and the quantised layers that "
                f"PEFT knows (bitsandbytes' nf4 and int8); `{current_key}` is a "
                f"{type(target).__name__}: change `target_modules`, or load the base model in "
                "another way."
            )
        state = self.preference_state
        new_module = Linear(target, adapter_name, peft_config, state, **quantization)
        if adapter_name not in self.active_adapters:  # an additional adapter starts frozen
            new_module.requires_grad_(False)
        self._replace_module(parent, target_name, new_module, target)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        # All that PEFT loads passes here, once the adapter's name is known: strictness costs this.
        tensors = super()._remap_adapter_state_dict_for_load(
            model, config, adapter_name, state_dict
        )
        check_tensors(model, adapter_name, tensors)
        return tensors

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Refuse what PEFT would drop without a word for a tuner that does not know it."""
        if kwargs.get("adapter_names") is not None:
            raise ValueError(
                "One batch has one Panacea adapter: rows differ by their `preference`, not by "
                "`adapter_names`."
            )
        yield

    def _check_merge_allowed(self) -> None:
        """Refuse before the first layer is touched: a model merged by half is worse than none."""
        super()._check_merge_allowed()
        self.preference_state.single()
        for name, module in self.model.named_modules():
            if not isinstance(module, PanaceaLayer):
                continue
            if not module.is_finite():
                raise ValueError(
                    f"The adapter of `{name}` has NaN or infinite weights: nothing was merged."
                )
            backend = module.quantization_backend
            if backend is not None and backend.backend_name == "bnb 4bit":
                raise ValueError(
                    "Merging into 4-bit weights would round the adapter away: merge into the "
                    "unquantised base model."
                )


class CheckpointUnderPreference:
    """A model's checkpointing function, whose recomputation runs under the λ of the forward.

    PyTorch's own means, `context_fn`, exists only without `use_reentrant` and breaks torch.compile.
    """

    def __init__(self, checkpoint: Callable[..., Any], state: PreferenceState) -> None:
        self.checkpoint = checkpoint
        self.state = state

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        value, dimensions = self.state.value, self.state.value_dimensions

        def recomputed(*args: Any, **kwargs: Any) -> Any:
            with self.state.using(value, dimensions):
                return function(*args, **kwargs)

        return self.checkpoint(recomputed, *args, **kwargs)


def _keep_four_bit_weights_as_they_are(model: nn.Module, trainable: bool) -> None:
    """Switch off the repacking of bitsandbytes 0.50; refuse to train where it has happened.

    On CPUs with avx512_bf16 a `Linear4bit` is repacked in place by its first forward in evaluation
    mode. That answers as well, but gradients through it are silently wrong, or fail.
    """
    module: Any
    for name, module in model.named_modules():
        if not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        module.support_avx512bf16_for_cpu = False
        quant_state = getattr(module.weight, "quant_state", None)
        if trainable and getattr(quant_state, "packing_format_for_cpu", False):
            raise ValueError(
                f"bitsandbytes has repacked the 4-bit weights of `{name}` for inference on this "
                "CPU: add the adapter before the base model is first evaluated."
            )


def _rows_per_prompt(kwargs: dict[str, Any], *configs: GenerationConfig | None) -> int:
    """How many rows `generate` makes of one prompt: max(num_beams, num_return_sequences)."""

    def chosen(name: str) -> int:
        values = [kwargs.get(name), *(getattr(config, name, None) for config in configs)]
        return next((value for value in values if value is not None), 1)

    return max(chosen("num_beams"), chosen("num_return_sequences"))
