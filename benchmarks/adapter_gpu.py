"""The adapter beside QLoRA on a Llama of 8B's shape in nf4: time and memory of a training step.

Needs a CUDA device; `benchmarks.adapter --gpu` runs it. Random weights: nothing is downloaded.
"""

import gc
from collections.abc import Callable, Iterator

import torch
from bitsandbytes.nn.modules import Linear4bit, Params4bit
from torch import nn
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

from benchmarks.adapter_steps import Shape, Step, lora, panacea, training_step
from benchmarks.ratios import measure_ratio

LLAMA_8B = Shape(4096, 14336, 32, 32, 8, 128256, rows=4, tokens=1024)
TIME_TARGET, MEMORY_TARGET = 1.05, 1.02


def quantised(shape: Shape, device: torch.device) -> LlamaForCausalLM:
    """A Llama of `shape` with random weights: linear layers in nf4, the rest in bfloat16.

    Built on no device and filled layer by layer, so that the whole is never there unquantised.
    """
    torch.manual_seed(0)
    with torch.device("meta"):
        model = LlamaForCausalLM(shape.config())
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name != "lm_head":
            model.set_submodule(name, _nf4(module, device))
        elif isinstance(module, nn.Embedding | nn.Linear):
            module.weight = nn.Parameter(_random(module.weight, device), requires_grad=False)
        elif isinstance(module, LlamaRMSNorm):
            ones = torch.ones_like(module.weight, device=device, dtype=torch.bfloat16)
            module.weight = nn.Parameter(ones, requires_grad=False)
    # Its frequencies are computed when it is made, so the one made on no device has none.
    model.model.rotary_emb = LlamaRotaryEmbedding(shape.config()).to(device)
    return model


def _random(like: torch.Tensor, device: torch.device) -> torch.Tensor:
    return torch.randn(like.shape, device=device, dtype=torch.bfloat16) * 0.02


def _nf4(linear: nn.Linear, device: torch.device) -> Linear4bit:
    layer = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=False,
        compute_dtype=torch.bfloat16,
        quant_type="nf4",
        device="meta",
    )
    weight = _random(linear.weight, device)
    layer.weight = Params4bit(weight, quant_type="nf4", module=layer)  # type: ignore[call-arg]
    return layer.to(device)  # quantises


def sharing(base: LlamaForCausalLM) -> LlamaForCausalLM:
    """Another model around the weights of `base`, with gradient checkpointing.

    So two adapters need one base in memory, and each of them is alone in its model.
    """
    with torch.device("meta"):
        shell = LlamaForCausalLM(base.config)
    for name, module in base.named_modules():
        if not list(module.children()):
            shell.set_submodule(name, module)
    shell.is_loaded_in_4bit = True  # type: ignore[assignment]  # PEFT's LoRA looks here
    shell.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return shell


def steps(base: LlamaForCausalLM, shape: Shape) -> tuple[Callable[[], Step], Callable[[], Step]]:
    """What makes our training step on `base`, and what makes QLoRA's of the same rank."""

    def ours() -> Step:
        return training_step(panacea(sharing(base)), shape, 2)

    def theirs() -> Step:
        return training_step(lora(sharing(base)), shape, None)

    return ours, theirs


def measured(pairs: int) -> Iterator[str]:
    """The two rows as lines of the table: step time, and peak memory of a model that is alone."""
    base = quantised(LLAMA_8B, torch.device("cuda"))
    ours, theirs = steps(base, LLAMA_8B)
    where = f"Llama 8B nf4, {LLAMA_8B.rows} × {LLAMA_8B.tokens} tokens, bf16, checkpointing"
    bytes_ours, bytes_theirs = peak_bytes(ours), peak_bytes(theirs)
    share = bytes_ours / bytes_theirs
    verdict = "met" if share <= MEMORY_TARGET else "missed"
    gib = [f"{value / 2**30:.2f} GiB" for value in (bytes_ours, bytes_theirs)]
    yield (
        f"| gpu-memory | peak of a step; of a QLoRA step; {where} | {' | '.join(gib)} "
        f"| {share:.3f} | – | ≤ {MEMORY_TARGET:g} | {verdict} |"
    )
    ratio = measure_ratio(ours(), theirs(), pairs)
    yield (
        f"| gpu-time | step; QLoRA step; {where} | {ratio.ours * 1e3:.0f} "
        f"| {ratio.theirs * 1e3:.0f} | {ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) "
        f"| {ratio.pairs} | ≤ {TIME_TARGET:g} | {ratio.verdict(TIME_TARGET)} |"
    )


def peak_bytes(make: Callable[[], Step]) -> int:
    """The most GPU memory that three steps hold, the base model's included."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step = make()
    for _ in range(3):
        step()
    return torch.cuda.max_memory_allocated()
