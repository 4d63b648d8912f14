"""The adapter where models really run: torch.compile, DDP, GPT-2, and what is refused."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from adapter_models import (
    DIMENSIONS,
    IDS,
    LAMBDA,
    ROWS,
    adapted,
    adapter_layers,
    logits,
    tiny_gpt2,
    tiny_llama,
)
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from panacea_lib.adapter import PanaceaConfig, PreferenceState, set_preference
from panacea_lib.adapter.layer import Linear

# The C++ back end where a compiler is at hand; without one, all of compilation but that.
BACKEND = "inductor" if shutil.which("g++") else "aot_eager"


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Of the adapter's parameters, by name within the PeftModel."""
    return {
        name.removeprefix("_orig_mod.").removeprefix("module."): p.grad.clone()
        for name, p in model.named_parameters()
        if p.grad is not None
    }


# ---- torch.compile


@pytest.mark.parametrize("preference", [LAMBDA, ROWS], ids=["one", "rows"])
def test_a_compiled_layer_equals_an_eager_one(preference):
    """One layer by the real back end: forward and backward."""
    layer = adapted(tiny_llama(num_hidden_layers=1)).get_base_model().model.layers[0].mlp.up_proj
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    results = []
    torch.compiler.reset()
    for forward in (layer, torch.compile(layer, backend=BACKEND, fullgraph=True)):
        layer.zero_grad()
        x.grad = None
        with layer.preference_state.using(torch.as_tensor(preference), DIMENSIONS):
            y = forward(x)
            y.square().sum().backward()
        results.append([y.detach(), x.grad, *gradients(layer).values()])
    assert len(results[0]) == 2 + 4
    torch.testing.assert_close(results[1], results[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_compiled_model_equals_an_eager_one(checkpointing):
    """The whole model through capture and automatic differentiation of the graph."""
    torch.compiler.reset()
    model = adapted(tiny_llama(num_hidden_layers=1)).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    compiled = torch.compile(model, backend="aot_eager")
    for preference in (LAMBDA, ROWS):
        results = []
        for forward in (model, compiled):
            model.zero_grad()
            out = forward(input_ids=IDS, labels=IDS, preference=preference)
            out.loss.backward()
            results.append([out.logits.detach(), *gradients(model).values()])
        assert len(results[0]) == 1 + 7 * 4
        torch.testing.assert_close(results[1], results[0], atol=1e-4, rtol=1e-4)


def test_another_preference_is_no_recompilation():
    torch.compiler.reset()
    model = adapted(tiny_llama(num_hidden_layers=1))
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model.get_base_model(), backend=counting)
    set_preference(compiled, LAMBDA)
    first = logits(compiled)
    count = len(graphs)
    set_preference(compiled, [1, 0, 0])
    second = logits(compiled)
    assert len(graphs) == count > 0
    torch.testing.assert_close(second, logits(model, preference=[1, 0, 0]), atol=1e-5, rtol=1e-5)
    assert (first - second).abs().max() > 0.1


# ---- DDP


def of_rank(rank: int) -> tuple[Tensor, Tensor]:
    """A rank's rows of the whole batch of four, and their λ."""
    ids = torch.cat((IDS, IDS[:1].flip(1)))[2 * rank : 2 * rank + 2]
    preference = torch.cat((ROWS, torch.tensor([[0.0, 1.0, 0.0]])))[2 * rank : 2 * rank + 2]
    return ids, preference


def train_one_rank(rank: int, folder: str) -> None:
    """One step with λ given to the call, and one with λ set until further notice."""
    store, limit = f"file://{folder}/store", timedelta(seconds=60)
    torch.distributed.init_process_group("gloo", store, limit, rank=rank, world_size=2)
    ids, preference = of_rank(rank)
    for way in ("call", "set"):
        model = DistributedDataParallel(adapted().train())
        if way == "set":
            set_preference(model, preference)
        given = {"preference": preference} if way == "call" else {}
        model(input_ids=ids, labels=ids, **given).loss.backward()
        torch.save(gradients(model), Path(folder) / f"{way}{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one_on_the_whole_batch(tmp_path):
    running = spawn(train_one_rank, (str(tmp_path),), nprocs=2, join=False)
    try:
        assert any(running.join(timeout=60) for _ in range(2)), "the processes hang"
    finally:
        for process in running.processes:
            process.kill()
    model = adapted().train()
    (a, one), (b, two) = of_rank(0), of_rank(1)
    ids, preference = torch.cat((a, b)), torch.cat((one, two))
    model(input_ids=ids, labels=ids, preference=preference).loss.backward()
    expected = gradients(model)
    assert len(expected) == 14 * 4
    found = sorted(tmp_path.glob("*.pt"))
    assert [path.stem for path in found] == ["call0", "call1", "set0", "set1"]
    for path in found:
        averaged = torch.load(path, weights_only=True)
        torch.testing.assert_close(averaged, expected, atol=1e-5, rtol=1e-4)


# ---- GPT-2


def test_gpt2_s_conv1d_is_adapted_and_merged():
    model = adapted(tiny_gpt2(), target_modules=["c_attn", "c_proj", "c_fc"])
    assert len(adapter_layers(model)) == 2 * 4
    base = model.get_base_model()
    layer = base.transformer.h[0].mlp.c_fc
    f = layer.factors("default")
    assert (f.V.shape[0], f.U.shape[0]) == (32, 128)
    x = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0))
    with model.preference(ROWS):
        added = layer(x) - layer.base_layer(x)
    for row, x_row, added_row in zip(ROWS, x, added, strict=True):
        torch.testing.assert_close(added_row, x_row @ f.delta_weight(row).T, atol=1e-4, rtol=1e-4)
    model(input_ids=IDS, labels=IDS, preference=ROWS).loss.backward()
    assert len(gradients(model)) == 2 * 4 * 4
    expected = logits(model, preference=LAMBDA)
    model.set_preference(LAMBDA)
    assert layer.get_delta_weight("default").shape == layer.weight.shape
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    model.unmerge_adapter()
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)


# ---- what is refused


class GPTQLinear(nn.Module):
    """A quantised layer of a kind that PEFT does not know."""

    in_features = out_features = 64

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_quantisation_that_peft_does_not_know_is_refused():
    base = tiny_llama()
    base.model.layers[1].self_attn.q_proj = GPTQLinear()
    with pytest.raises(TypeError, match=r"layers.1.self_attn.q_proj` is a GPTQLinear: change"):
        adapted(base)


def test_a_target_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match=r"Target modules .*query.* not found in the base model"):
        adapted(target_modules=["query"])
    with pytest.raises(ValueError, match="excluded"):
        adapted(target_modules=["q_proj"], exclude_modules=["q_proj"])


def test_an_embedding_is_refused():
    with pytest.raises(TypeError, match=r"`model.embed_tokens` is a Embedding"):
        adapted(target_modules=["embed_tokens", "q_proj"])
    with pytest.raises(TypeError, match=r"`transformer.wte` is a Embedding"):
        adapted(tiny_gpt2(), target_modules=["wte", "c_attn"])


def test_every_linear_layer_but_the_head():
    assert len(adapter_layers(adapted(target_modules="all-linear"))) == 14
    assert len(adapter_layers(adapted(tiny_gpt2(), target_modules="all-linear"))) == 8


def test_rows_that_differ_by_adapter_are_refused():
    model = adapted()
    for call in (model, model.generate):
        with pytest.raises(ValueError, match="One batch has one Panacea adapter"):
            call(input_ids=IDS, adapter_names=["default", "__base__", "default"], preference=ROWS)


def test_rows_flattened_into_one_dimension_are_refused():
    """As some mixtures of experts do: the row of a token is not known any more."""
    layer = Linear(nn.Linear(4, 4), "a", PanaceaConfig(dimensions=DIMENSIONS), PreferenceState())
    with layer.preference_state.using(ROWS), pytest.raises(ValueError, match="batch has 15"):
        layer(torch.zeros(3, 5, 4).flatten(0, 1))


def test_wrong_names_and_types_say_what_is_right():
    model = adapted()
    with pytest.raises(ValueError, match=r"\['humour'\].*this adapter knows \['helpfulness'"):
        model.set_preference({"humour": 1.0})
    with pytest.raises(ValueError, match="no Panacea adapter"):
        set_preference(tiny_llama(), LAMBDA)
