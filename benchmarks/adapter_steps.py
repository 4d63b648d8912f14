"""The models, and the calls on them, that `benchmarks.adapter` times. Everything is seeded."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from panacea_lib.adapter import PanaceaConfig
from panacea_lib.adapter.model import LLAMA_LINEAR

Step = Callable[[], object]

RANK = 8  # k of the adapter; LoRA gets k + m
PROMPT, ANSWER, REQUESTS = 16, 16, 32  # generation: tokens, tokens, rows


@dataclass(frozen=True)
class Shape:
    """A Llama and the batch it is trained with: `rows` of `tokens` tokens each."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    rows: int
    tokens: int

    def config(self) -> LlamaConfig:
        """The configuration of the model."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )


# A small vocabulary: the layers that carry an adapter take the time, not the output matrix.
SMALL = Shape(512, 1408, 2, 8, 8, 1000, rows=8, tokens=128)
LARGE = Shape(2048, 5632, 2, 32, 4, 1000, rows=4, tokens=128)
LLAMA_8B = Shape(4096, 14336, 32, 32, 8, 128256, rows=4, tokens=1024)


# ---- models


def dimensions(m: int) -> list[str]:
    """Names for m dimensions."""
    return [f"d{i}" for i in range(m)]


def panacea(base: nn.Module, m: int = 2) -> PeftModel:
    """`base` with a Panacea adapter on m dimensions, on all seven projections."""
    model = get_peft_model(base, PanaceaConfig(dimensions=dimensions(m), r=RANK))  # type: ignore[arg-type]
    return _as_trained(model)


def lora(base: nn.Module, m: int = 2) -> PeftModel:
    """`base` with a plain LoRA of the rank, and on the modules, that `panacea` has."""
    config = LoraConfig(r=RANK + m, lora_alpha=2 * RANK, target_modules=sorted(LLAMA_LINEAR))
    return _as_trained(get_peft_model(base, config))  # type: ignore[arg-type]


def _as_trained(model: nn.Module) -> PeftModel:
    """All adapter weights random: zeros, which both adapters start with, are no fair load."""
    assert isinstance(model, PeftModel)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator) * 0.02
            parameter.data.copy_(noise)
    return model


def llama(shape: Shape) -> LlamaForCausalLM:
    """The float32 model of `shape` with random weights, always the same."""
    torch.manual_seed(0)
    return LlamaForCausalLM(shape.config())


def preferences(rows: int, m: int) -> Tensor:
    """λ (rows, m), a different one in each row."""
    torch.manual_seed(2)
    return torch.distributions.Dirichlet(torch.ones(m)).sample((rows,))


# ---- the calls that are timed


def training_step(model: PeftModel, shape: Shape, m: int | None) -> Step:
    """Forward, backward and AdamW on one batch; m None for a model without preferences."""
    device = model.device
    mixed = model.dtype == torch.bfloat16
    torch.manual_seed(3)
    ids = torch.randint(3, shape.vocabulary, (shape.rows, shape.tokens)).to(device)
    given = None if m is None else preferences(shape.rows, m)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Fused, as transformers' Trainer has it by default; a rate that leaves the weights as they are.
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    model.train()

    def step() -> None:
        if given is not None:
            model.set_preference(given)  # type: ignore[operator]
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def prompts(shape: Shape) -> Tensor:
    """Token ids (REQUESTS, PROMPT)."""
    torch.manual_seed(4)
    return torch.randint(3, shape.vocabulary, (REQUESTS, PROMPT))


def answer(model: PeftModel, ids: Tensor) -> Tensor:
    """Greedy answers of exactly ANSWER tokens under the current adapter and λ."""
    mask = torch.ones_like(ids)
    length = {"max_new_tokens": ANSWER, "min_new_tokens": ANSWER}
    return model.generate(input_ids=ids, attention_mask=mask, do_sample=False, **length)  # type: ignore[operator]


def one_batch(shape: Shape) -> Step:
    """Our way: REQUESTS rows, each with a λ of its own, in one batch."""
    model, ids, given = panacea(llama(shape)).eval(), prompts(shape), preferences(REQUESTS, 2)

    def generate() -> None:
        model.set_preference(given)  # type: ignore[operator]
        answer(model, ids)

    return generate


def one_lora(shape: Shape) -> Step:
    """The same batch, all rows under one LoRA."""
    model, ids = lora(llama(shape)).eval(), prompts(shape)
    return lambda: answer(model, ids)


def merges(shape: Shape) -> Step:
    """For each row: merge at its λ, answer, unmerge."""
    model, ids, given = panacea(llama(shape)).eval(), prompts(shape), preferences(REQUESTS, 2)

    def generate() -> None:
        for row, preference in zip(ids, given, strict=True):
            model.set_preference(preference)  # type: ignore[operator]
            model.merge_adapter()  # type: ignore[operator]
            answer(model, row[None])
            model.unmerge_adapter()  # type: ignore[operator]

    return generate


def switches(shape: Shape) -> Step:
    """For each row: switch to its own one of REQUESTS loaded LoRAs, answer."""
    model, ids = lora(llama(shape)), prompts(shape)
    names = ["default", *(f"l{i}" for i in range(1, REQUESTS))]
    for name in names[1:]:
        model.add_adapter(name, model.peft_config["default"])
    model.eval()

    def generate() -> None:
        for row, name in zip(ids, names, strict=True):
            model.set_adapter(name)
            answer(model, row[None])

    return generate
