"""Supervised fine-tuning with one data set per dimension: its loss, its rows and its trainings."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from safetensors.torch import load_file
from small_models import DIMENSIONS, MODEL, small_base, small_config, small_pairs, texts_of
from torch import Tensor

from panacea_lib.adapter import PanaceaConfig
from panacea_lib.errors import InputError
from panacea_lib.generation import sequence_logprobs
from panacea_lib.models.base import load_base_model
from panacea_lib.models.chat import encode_prompts, encode_responses
from panacea_lib.problem_training import PreferenceSampling, Scalarization
from panacea_lib.trainers import quiet, trainer_device
from panacea_lib.training.preferences import draw_preferences
from panacea_lib.training.sft_trainer import (
    PanaceaSftTrainer,
    build_sft_trainer,
    order_in_turns,
    read_rows,
)

NAN = float("nan")
PER_BATCH = PreferenceSampling(per="batch", vertex_probability=0.0)
VERTICES = PreferenceSampling(vertex_probability=1.0)
WEIGHTS = "adapter_model.safetensors"


def write(path: Path, columns: dict[str, Any]) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def opposites() -> dict[str, list[str]]:
    """Two data sets of unequal size that want the opposite of the same prompts."""
    prompts = texts_of("train", 12)
    first = small_pairs(40)["response_a"]
    short, long = min(first, key=len), max(first, key=len)
    return {
        "prompt": [*prompts, *prompts[:4]],
        "response": [short] * 12 + [long] * 4,
        "dimension": [DIMENSIONS[0]] * 12 + [DIMENSIONS[1]] * 4,
    }


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("sft") / "rows.parquet", opposites())


def built(data: Path, out_dir: Path, save_every: int = 0, **changes: Any) -> PanaceaSftTrainer:
    config = small_config(data, "sft", **changes)
    model, tokenizer = load_base_model(Path(config.base_model), config.quantization)
    numbers = config.training
    arguments = {
        "output_dir": str(out_dir),
        "max_steps": numbers.steps,
        "per_device_train_batch_size": numbers.batch_size,
        "gradient_accumulation_steps": numbers.accumulation,
        "learning_rate": numbers.learning_rate,
        "lr_scheduler_type": "cosine",
        "seed": config.seed,
        "logging_steps": 1,
        "save_strategy": "steps" if save_every else "no",
        **({"save_steps": save_every} if save_every else {}),
        **trainer_device(),
    }
    if config.fixed_preference is None:
        adapter = PanaceaConfig(dimensions=config.dimensions, r=4, alpha=8)
    else:
        adapter = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"])
    trainer = build_sft_trainer(config, model, tokenizer, arguments, adapter, [])
    quiet(trainer)
    return trainer


def trained(data: Path, out_dir: Path, **changes: Any) -> PanaceaSftTrainer:
    trainer = built(data, out_dir, **changes)
    trainer.train()
    trainer.model.save_pretrained(out_dir / "adapter")
    return trainer


def weights(out_dir: Path) -> dict[str, Tensor]:
    return load_file(out_dir / "adapter" / WEIGHTS)


def logged(trainer: PanaceaSftTrainer, metric: str) -> list[float]:
    return [entry[metric] for entry in trainer.state.log_history if metric in entry]


def token_nll(model: Any, tokenizer: Any, columns: dict[str, list[str]], **keywords: Any) -> Tensor:
    """Nats per token of each response, by the code that scores a generation."""
    prompts = encode_prompts(tokenizer, columns["prompt"])
    responses = encode_responses(tokenizer, columns["response"])
    total = sequence_logprobs(model.eval(), tokenizer, prompts, responses, **keywords)
    return -total / torch.tensor([len(row) for row in responses])


# ---- the loss


def test_the_loss_of_the_first_batch_is_as_worked_by_hand(two_sets, tmp_path):
    """A new adapter is the base model, so the base says what each row's loss is."""
    trainer = trained(two_sets, tmp_path, steps=1, batch_size=16, seed=5)
    rows = trainer.train_dataset
    own, row = torch.tensor(rows["dimension"][:]), rows["row"][:]
    base, tokenizer = load_base_model(small_base(), "none")
    columns = opposites()
    nll = token_nll(base, tokenizer, {name: [columns[name][i] for i in row] for name in columns})
    drawn = torch.tensor(draw_preferences(PreferenceSampling(), 2, seed=5, step=0, rows=row))
    by_hand = (2 * drawn[torch.arange(16), own] * nll).mean()  # two dimensions share the rows
    assert logged(trainer, "loss")[0] == pytest.approx(by_hand.item(), abs=2e-4)
    for i, name in enumerate(DIMENSIONS):
        expected = nll[own == i].mean().item()
        assert logged(trainer, f"loss/{name}")[0] == pytest.approx(expected, rel=1e-4)
    assert abs(nll[own == 0].mean() - nll[own == 1].mean()) > 0.05, "or this shows nothing"


def test_each_dimension_weighs_its_lambda_however_large_its_data_set_is(two_sets, tmp_path):
    """12 rows against 4: at λ = (½, ½) the loss is the mean of the two mean losses."""
    halves = {"adapter": "lora", "fixed_preference": [0.5, 0.5]}
    trainer = trained(two_sets, tmp_path, steps=1, batch_size=24, **halves)
    assert Counter(trainer.train_dataset["row"][:]) == Counter(
        {**dict.fromkeys(range(12), 1), **dict.fromkeys(range(12, 16), 3)}
    )
    base, tokenizer = load_base_model(small_base(), "none")
    nll = token_nll(base, tokenizer, opposites())
    expected = (nll[:12].mean() + nll[12:].mean()) / 2
    assert logged(trainer, "loss")[0] == pytest.approx(expected.item(), abs=2e-4)


def test_a_vertex_trains_nothing_but_that_dimension_s_rows(two_sets, tmp_path):
    """Rows whose λ is the other dimension's vertex may say what they like."""
    trainer = built(two_sets, tmp_path, batch_size=16, preferences=VERTICES)
    batch = next(iter(trainer.get_train_dataloader()))
    drawn = draw_preferences(VERTICES, 2, seed=0, step=0, rows=batch["row"].tolist())
    mute = torch.tensor(drawn)[torch.arange(16), batch["dimension"]] == 0
    assert 0 < mute.sum() < 16

    def loss_and_gradients() -> tuple[float, list[Tensor]]:
        trainer.model.train().zero_grad()
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        parameters = (p for p in trainer.model.parameters() if p.requires_grad)
        return loss.item(), [p.grad.clone() for p in parameters]

    loss, gradients = loss_and_gradients()
    for spoken in (mute, ~mute):
        said = spoken[:, None] & (batch["labels"] != -100)
        batch["labels"] = torch.where(said, 7, batch["labels"])
        other_loss, others = loss_and_gradients()
        same = all(torch.allclose(a, b, atol=1e-8) for a, b in zip(gradients, others, strict=True))
        assert same == (spoken is mute)
        assert (other_loss == pytest.approx(loss, rel=1e-6)) == (spoken is mute)


def test_a_lora_of_one_dimension_spends_its_steps_on_that_dimension(two_sets, tmp_path):
    vertex = {"adapter": "lora", "fixed_preference": [0.0, 1.0]}
    trainer = trained(two_sets, tmp_path, steps=2, batch_size=4, **vertex)
    assert set(trainer.train_dataset["dimension"][:]) == {1}
    assert logged(trainer, "loss") == pytest.approx(logged(trainer, f"loss/{DIMENSIONS[1]}"))
    assert not logged(trainer, f"loss/{DIMENSIONS[0]}")


def test_prompts_are_masked_and_lose_their_beginning_first(two_sets, tmp_path):
    room = 12
    whole, cut = (
        built(two_sets, tmp_path, steps=1, batch_size=16, max_length=length)
        for length in (MODEL.max_length, room)
    )
    columns = opposites()
    tokenizer: Any = whole.processing_class
    for full, short in zip(whole.train_dataset, cut.train_dataset, strict=True):
        prompt = encode_prompts(tokenizer, [columns["prompt"][full["row"]]])[0]
        response = encode_responses(tokenizer, [columns["response"][full["row"]]])[0]
        assert full["input_ids"] == prompt + response, "what generation continues, and answers"
        assert full["labels"] == [-100] * len(prompt) + response
        answer = response[: room - 1]
        assert short["input_ids"] == (prompt + answer)[-room:]
        assert [token for token in short["labels"] if token != -100] == answer


# ---- trainings


def test_the_adapter_answers_by_its_preference_where_data_sets_conflict(two_sets, tmp_path):
    trainer = trained(two_sets, tmp_path, steps=80, batch_size=8, learning_rate=2e-2)
    columns = opposites()
    nll = {
        vertex: token_nll(
            trainer.model, trainer.processing_class, columns, preference=torch.eye(2)[vertex]
        )
        for vertex in (0, 1)
    }
    for rows, mine, others in ((slice(0, 12), 0, 1), (slice(12, 16), 1, 0)):
        assert (nll[mine][rows] < nll[others][rows] - 0.05).all()
    for name in DIMENSIONS:
        curve = logged(trainer, f"loss/{name}")
        assert sum(curve[-5:]) < sum(curve[:5])


@pytest.mark.parametrize(("size", "parts"), [(1, 8), (4, 2)])
def test_a_batch_of_8_is_the_same_in_parts(two_sets, tmp_path, size, parts):
    """Rows of unequal length, so that a mean over tokens would show; three steps of Adam."""
    whole = trained(two_sets, tmp_path / "whole", steps=3, batch_size=8)
    split = trained(two_sets, tmp_path / "parts", steps=3, batch_size=size, accumulation=parts)
    assert logged(whole, "loss") == pytest.approx(logged(split, "loss"), abs=3e-4)
    assert logged(whole, "grad_norm") == pytest.approx(logged(split, "grad_norm"), rel=1e-3)
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.allclose(one[name], two[name], atol=2e-5) for name in one)


def test_a_resumed_training_ends_with_the_same_bytes(two_sets, tmp_path):
    whole = trained(two_sets, tmp_path / "whole", steps=6, batch_size=4, save_every=4)
    resumed = built(two_sets, tmp_path / "resumed", steps=6, batch_size=4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    resumed.model.save_pretrained(tmp_path / "resumed" / "adapter")
    files = [tmp_path / name / "adapter" / WEIGHTS for name in ("whole", "resumed")]
    assert files[0].read_bytes() == files[1].read_bytes()
    for metric in (f"loss/{DIMENSIONS[0]}", "grad_norm"):
        assert logged(whole, metric) == logged(resumed, metric) and len(logged(whole, metric)) == 6


def test_the_same_seed_gives_the_same_bytes_and_another_others(two_sets, tmp_path):
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        trained(two_sets, tmp_path / name, steps=2, batch_size=4, seed=seed)
    one, again, other = (
        (tmp_path / name / "adapter" / WEIGHTS).read_bytes() for name in ("one", "again", "other")
    )
    assert one == again != other


@pytest.mark.parametrize("kind", ["tchebycheff", "smooth_tchebycheff"])
def test_tchebycheff_compares_the_dimensions_means_under_one_preference(two_sets, tmp_path, kind):
    """Three rows of one dimension and two of the other: each mean is over its own rows."""
    config = Scalarization(kind=kind, temperature=0.05, ideal=[0.1, 0.2])
    changes = {"scalarization": config, "preferences": PER_BATCH}
    trainer = trained(two_sets, tmp_path, steps=3, batch_size=5, **changes)
    for step, found in enumerate(logged(trainer, "loss")):
        means = torch.tensor([logged(trainer, f"loss/{name}")[step] for name in DIMENSIONS])
        drawn = torch.tensor(draw_preferences(PER_BATCH, 2, 0, step, [0])[0])
        excess = drawn * (means - torch.tensor([0.1, 0.2]))
        expected = excess.max() if kind == "tchebycheff" else 0.05 * (excess / 0.05).logsumexp(0)
        assert found == pytest.approx(expected.item(), abs=2e-4)
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())


def test_every_batch_is_the_next_rows_of_the_order_and_speaks_of_all(two_sets, tmp_path):
    trainer = built(two_sets, tmp_path, steps=3, batch_size=5, accumulation=2)
    batches = list(trainer.get_train_dataloader())
    assert [len(batch["row"]) for batch in batches] == [5] * 6, "no batch is incomplete"
    assert (
        torch.cat([batch["row"] for batch in batches]).tolist() == trainer.train_dataset["row"][:]
    )
    assert all(len(set(batch["dimension"].tolist())) == 2 for batch in batches)


def test_on_a_quantised_base_what_is_trained_stays_float32(two_sets, tmp_path):
    pytest.importorskip("bitsandbytes")
    trainer = built(two_sets, tmp_path, steps=1, quantization="nf4")
    trainer.train()
    found = [p for p in trainer.model.parameters() if p.requires_grad]
    assert found and all(p.dtype == torch.float32 for p in found)
    assert logged(trainer, "loss")[0] > 0


def test_a_tchebycheff_batch_has_room_for_every_dimension(two_sets, tmp_path):
    changes = {"scalarization": Scalarization(kind="tchebycheff"), "preferences": PER_BATCH}
    with pytest.raises(InputError, match="batch_size: must be at least 2 with tchebycheff"):
        built(two_sets, tmp_path, batch_size=1, **changes)


def test_a_loss_that_is_no_number_stops_the_training(two_sets, tmp_path):
    trainer = built(two_sets, tmp_path, steps=2)
    with torch.no_grad():
        next(p for p in trainer.model.parameters() if p.requires_grad).fill_(NAN)
    with pytest.raises(FloatingPointError):
        trainer.train()


# ---- the rows


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    count=st.integers(0, 60),
    seed=st.integers(0, 2**31 - 1),
)
def test_dimensions_take_turns_and_each_goes_round_its_rows(sizes, count, seed):
    dimension = [i for i, size in enumerate(sizes) for _ in range(size)]
    m = len(sizes)
    order = order_in_turns(dimension, range(m), count, seed)
    assert [dimension[place] for place in order] == [place % m for place in range(count)]
    for i, size in enumerate(sizes):
        own = order[i::m]
        rounds = [own[start : start + size] for start in range(0, len(own), size)]
        assert all(len(set(part)) == len(part) for part in rounds), "no row twice in a round"
    longer = order_in_turns(dimension, range(m), count + 9, seed)
    assert longer[:count] == order, "a longer training begins as a shorter one does"


def test_orders_differ_by_round_and_by_seed():
    dimension = [0] * 8 + [1] * 8
    order = order_in_turns(dimension, [0, 1], 32, seed=0)
    assert order[:16] != order[16:] and sorted(order[:16]) == sorted(order[16:]) == [*range(16)]
    assert order_in_turns(dimension, [0, 1], 32, seed=1) != order
    assert order_in_turns(dimension, [1], 8, seed=0) == order[1:16:2]


def test_a_pairs_file_gives_each_dimension_what_it_prefers(tmp_path):
    label = [[1.0, 0.0], [0.5, 0.9], [NAN, 0.5], [0.2, NAN], [NAN, NAN]]
    columns = {
        "prompt": [f"p{i}" for i in range(5)],
        "response_a": [f"a{i}" for i in range(5)],
        "response_b": [f"b{i}" for i in range(5)],
        "label": label,
    }
    rows = read_rows(write(tmp_path / "pairs.parquet", columns), DIMENSIONS)
    assert list(zip(rows.prompt, rows.response, rows.dimension, rows.row, strict=True)) == [
        ("p0", "a0", 0, 0),
        ("p0", "b0", 1, 0),
        ("p1", "a1", 1, 1),
        ("p3", "b3", 0, 3),
    ]


def test_a_pairs_file_trains(tmp_path):
    pairs = small_pairs(16)
    pairs["label"][3] = [NAN, 1.0]
    trainer = trained(write(tmp_path / "pairs.parquet", pairs), tmp_path, steps=2, batch_size=4)
    assert all(len(logged(trainer, f"loss/{name}")) == 2 for name in DIMENSIONS)


BAD = [
    ({"dimension": ["helpfulness"] * 15 + ["charm"]}, "row 15, column dimension: unknown 'charm'"),
    ({"dimension": ["helpfulness"] * 16}, r"no row to train \['harmlessness'\] on"),
    ({"response": ["fine", None] * 8}, "row 1, column response: no value"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_a_data_set_that_cannot_be_trained_on_is_refused_in_words(tmp_path, change, message):
    path = write(tmp_path / "rows.parquet", opposites() | change)
    with pytest.raises(InputError, match=f"rows.parquet: {message}"):
        built(path, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing was written"


def test_pairs_that_cannot_be_trained_on_are_refused_in_words(tmp_path):
    pairs = small_pairs(4)
    cases = {
        "no row to train on": {name: column[:0] for name, column in pairs.items()},
        "no column \\['label'\\]": {k: v for k, v in pairs.items() if k != "label"},
        "row 1, column label: 1 values for 2": pairs | {"label": [[1.0, 0.0], [1.0]] * 2},
        "no row to train \\['harmlessness'\\] on": pairs | {"label": [[1.0, 0.5]] * 4},
    }
    for message, columns in cases.items():
        with pytest.raises(InputError, match=f"bad.parquet: {message}"):
            read_rows(write(tmp_path / "bad.parquet", columns), DIMENSIONS)


def test_masked_tokens_do_not_count(two_sets, tmp_path):
    """Padding a batch with a longer row leaves the loss of the others as it was."""
    trainer = built(two_sets, tmp_path, steps=1, batch_size=16)
    batch = next(iter(trainer.get_train_dataloader()))
    padded = {
        "input_ids": F.pad(batch["input_ids"], (0, 5), value=3),
        "attention_mask": F.pad(batch["attention_mask"], (0, 5)),
        "labels": F.pad(batch["labels"], (0, 5), value=-100),
    }
    one = trainer.compute_loss(trainer.model, batch)
    two = trainer.compute_loss(trainer.model, batch | padded)
    assert one.item() == pytest.approx(two.item(), rel=1e-5)
