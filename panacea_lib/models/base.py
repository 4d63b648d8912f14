"""The base model of a problem: built or pointed to once, then loaded with its quantisation."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from panacea_lib.errors import InputError
from panacea_lib.models.chat import Tokenizer
from panacea_lib.models.scratch import train_scratch_model
from panacea_lib.problem_models import PretrainedModel, ScratchModel
from panacea_lib.problem_types import Quantization
from panacea_lib.train_result import StepListener, TrainResult

POINTER = "pretrained.json"


def build_base_model(
    config: ScratchModel | PretrainedModel,
    corpus: Sequence[tuple[str, str]],
    folder: Path,
    seed: int,
    on_step: StepListener | None = None,
) -> TrainResult:
    """Put the base model in `folder`: a trained one, or a pointer to a pretrained one.

    Weights from the hub stay in the hub's own cache. Returns what there is to say of it.
    InputError: a pretrained model that cannot be loaded.
    """
    if isinstance(config, ScratchModel):
        return train_scratch_model(config, corpus, folder, seed, on_step)
    point_to(config, folder)
    with refused_unless_loaded(f"base_model.model {config.model!r}", "a causal language model"):
        model, _ = load_base_model(folder, config.quantization)
    return TrainResult({"parameters": model.num_parameters()}, [])


def point_to(config: PretrainedModel, folder: Path) -> None:
    """Make `folder` stand for a pretrained model, whose weights stay where they are."""
    pointer = {"model": config.model, "revision": config.revision}
    (folder / POINTER).write_text(json.dumps(pointer, indent=1) + "\n", encoding="utf-8")


@contextmanager
def refused_unless_loaded(where: str, kind: str) -> Iterator[None]:
    """Within, what transformers cannot load is an InputError."""
    from safetensors import SafetensorError

    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{where}: cannot be loaded ({said}); it must be {kind} that transformers knows by "
            "itself (a model's own code is never run), in safetensors (pickles are never read), "
            "with its tokenizer"
        ) from error


def load_base_model(folder: Path, quantization: Quantization) -> tuple[Any, Tokenizer]:
    """Model (evaluation mode, frozen) and tokenizer (left padding, a pad token)."""
    from transformers import AutoModelForCausalLM

    source, options = model_source(folder)
    model = AutoModelForCausalLM.from_pretrained(
        source, **options, **quantized_loading(quantization)
    )
    return settle(model), load_tokenizer(folder)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The base model's tokenizer (left padding, a pad token)."""
    from transformers import AutoTokenizer

    source, options = model_source(folder)
    tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **options)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def model_source(folder: Path) -> tuple[str, dict[str, Any]]:
    """Where `from_pretrained` finds a model: the folder, or what its pointer names. No code of its
    authors is run."""
    safe = {"trust_remote_code": False}
    if not (folder / POINTER).exists():
        return str(folder), safe
    pointer = json.loads((folder / POINTER).read_text(encoding="utf-8"))
    return pointer["model"], safe | {"revision": pointer["revision"]}


def quantized_loading(quantization: Quantization) -> dict[str, Any]:
    """Keyword arguments of a model's `from_pretrained` for a quantisation; bf16 arithmetic on a
    GPU, and weights from safetensors only."""
    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_gpu else torch.float32
    options: dict[str, Any] = {"dtype": dtype, "device_map": {"": 0} if on_gpu else "cpu"}
    options["use_safetensors"] = True
    if quantization != "none":
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = (
            BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
            )
            if quantization == "nf4"
            else BitsAndBytesConfig(load_in_8bit=True)
        )
    return options


def settle(model: Any) -> Any:
    """Evaluation mode, no gradients, and no in-place repacking of 4-bit weights.

    On CPUs with avx512_bf16, bitsandbytes 0.50 repacks a `Linear4bit` at its first forward without
    gradients; training afterwards is silently wrong.
    """
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model.eval().requires_grad_(False)
