"""A small Llama and its tokenizer, trained from scratch on the problem's own text.

So a problem runs end to end with nothing downloaded. The loop is `transformers.Trainer`.
"""

from collections.abc import Sequence
from pathlib import Path
from string import digits
from typing import Any

from panacea_lib.models.chat import Tokenizer, encode_prompts, encode_responses
from panacea_lib.problem_models import ScratchModel
from panacea_lib.train_result import StepListener, TrainResult
from panacea_lib.trainers import ProgressCallback, curve_rows, quiet

_SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
_TEMPLATE = (
    "{% for m in messages %}"
    "{{ ('<user> ' if m.role == 'user' else '<assistant> ') + m.content }}"
    "{{ ' ' if m.role == 'user' else eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def build_tokenizer(config: ScratchModel, texts: Sequence[str]) -> Tokenizer:
    """A word-level or byte-level BPE tokenizer of at most `vocab_size` entries, with a chat
    template of two roles.

    Each digit is a token, whether or not the texts have it: preferences are spelled in digits.
    """
    from tokenizers import Tokenizer as RawTokenizer
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [*_SPECIAL.values(), "<user>", "<assistant>"]
    if config.tokenizer == "words":
        raw = RawTokenizer(models.WordLevel(unk_token="<unk>"))
        raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore
        trainer = trainers.WordLevelTrainer(
            vocab_size=config.vocab_size - len(digits), special_tokens=special
        )
    else:
        raw = RawTokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
        raw.decoder = decoders.ByteLevel()  # pyright: ignore
        trainer = trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    raw.train_from_iterator(texts, trainer)
    if config.tokenizer == "words":
        words = raw.get_vocab()
        for digit in digits:
            words.setdefault(digit, len(words))
        raw.model = models.WordLevel(words, unk_token="<unk>")  # pyright: ignore
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, padding_side="left", clean_up_tokenization_spaces=False, **_SPECIAL
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>", "<assistant>"]})
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def _build_model(config: ScratchModel, tokenizer: Tokenizer, seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=-(-len(tokenizer) // 32) * 32,  # bitsandbytes packs rows by 32
            hidden_size=config.hidden_size,
            intermediate_size=2 * config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=2 * config.max_length,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            initializer_range=0.8 / config.hidden_size**0.5,  # 0.02 is for wide models
        )
    )


def _dataset(config: ScratchModel, tokenizer: Tokenizer, corpus: Sequence[tuple[str, str]]) -> Any:
    """Prompts and responses as token ids; only responses are learned."""
    import datasets

    prompts = encode_prompts(tokenizer, [prompt for prompt, _ in corpus])
    responses = encode_responses(tokenizer, [response for _, response in corpus])
    data = {
        "input_ids": [p + r for p, r in zip(prompts, responses, strict=True)],
        "labels": [[-100] * len(p) + r for p, r in zip(prompts, responses, strict=True)],
    }
    cut = {name: [row[: config.max_length] for row in rows] for name, rows in data.items()}
    return datasets.Dataset.from_dict(cut)


def train_scratch_model(
    config: ScratchModel,
    corpus: Sequence[tuple[str, str]],
    out_dir: Path,
    seed: int,
    on_step: StepListener | None = None,
) -> TrainResult:
    """Train tokenizer and model on (prompt, response) texts and save both in `out_dir`.

    Its details: steps, final loss (nats per token), parameters, vocabulary.
    """
    import torch
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer = build_tokenizer(config, [text for pair in corpus for text in pair])
    model = _build_model(config, tokenizer, seed)
    arguments = TrainingArguments(
        output_dir=str(out_dir / "trainer"),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, config.steps // 20),
        weight_decay=0.0,
        seed=seed,
        save_strategy="no",
        logging_steps=max(1, config.steps // 20),
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    tokenizer.padding_side = "right"
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=_dataset(config, tokenizer, corpus),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[ProgressCallback(on_step)],
    )
    quiet(trainer)
    trainer.train()
    tokenizer.padding_side = "left"
    with torch.no_grad():  # sampling at temperature 1 is then sampling at config.temperature
        model.model.norm.weight /= config.temperature
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    curve = curve_rows(trainer.state.log_history, "loss")
    details = {
        "steps": config.steps,
        "loss": curve[-1]["value"],
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
    }
    return TrainResult(details, curve)
