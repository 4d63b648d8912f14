"""Labels by an existing reward model, or by one class of a classifier."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from panacea_lib.batches import BATCH_TOKENS, by_length
from panacea_lib.errors import InputError
from panacea_lib.labelling.scores import scored_annotations
from panacea_lib.models.base import quantized_loading, refused_unless_loaded, settle
from panacea_lib.models.chat import Tokenizer
from panacea_lib.problem_errors import nearest
from panacea_lib.problem_files import is_local
from panacea_lib.problem_labelling import ModelLabels
from panacea_lib.train_result import StepListener

Row = tuple[list[int], list[int]]  # token ids, and which of the two texts each belongs to


def model_annotations(
    source: ModelLabels,
    location: str,
    dimension: str,
    pairs: pa.Table,
    on_step: StepListener | None = None,
) -> pa.Table:
    """What the model says of every pair: columns of `AnnotationRecord`, in the pairs' order.

    location: a hub id or the directory that `source.model` means; pairs: pair_id, prompt,
    response_a, response_b. Equal (prompt, response) are scored once. The model reads the dialogue
    through its tokenizer's chat template where it has one, else prompt and response as a pair of
    texts. What is longer than it may read loses its beginning: first the prompt's, then the
    response's, never the response's end. InputError: see `load_scorer`.
    """
    model, tokenizer, output = load_scorer(source, location, dimension)
    columns = [pairs[name].to_pylist() for name in ("prompt", "response_a", "response_b")]
    prompts, a, b = columns
    asked = [*zip(prompts, a, strict=True), *zip(prompts, b, strict=True)]
    position = {pair: i for i, pair in enumerate(dict.fromkeys(asked))}
    rows = encode(tokenizer, list(position), _longest(source, model, tokenizer))
    scores = _scores(model, rows, output, on_step)[[position[pair] for pair in asked]]
    name = Path(location).name if is_local(source.model) else source.model
    n = pairs.num_rows
    return scored_annotations(
        pairs["pair_id"], dimension, "model", name, scores[:n], scores[n:], source.temperature
    )


def load_scorer(
    source: ModelLabels, location: str, dimension: str
) -> tuple[Any, Tokenizer, int | None]:
    """Model (evaluation mode), tokenizer, and the class whose log probability is the score.

    The class is None for a reward model, whose one output is the score itself. Weights are read
    from safetensors only, and no code of the model's authors is run. InputError: there is no such
    model, it wants pickled weights or code of its own, has no trained head, not one output where
    no `label` is named, or no class of that name.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    where = f"labels.{dimension}, model {source.model!r}"
    options: dict[str, Any] = {"revision": source.revision, "trust_remote_code": False}
    with refused_unless_loaded(where, "a sequence classifier"):
        config = AutoConfig.from_pretrained(location, **options)
        output = _output(config, source.label, where)
        tokenizer = AutoTokenizer.from_pretrained(location, **options)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            location, output_loading_info=True, **options, **quantized_loading("none")
        )
    if info["missing_keys"]:
        raise InputError(
            f"{where}: its files lack {', '.join(sorted(info['missing_keys']))}, so it would score "
            "at random; name a reward model or a classifier, not a language model"
        )
    if not tokenizer.is_fast:
        raise InputError(f"{where}: it has no tokenizer.json; name a model that has one")
    return settle(model), tokenizer, output


def _output(config: Any, label: str | None, where: str) -> int | None:
    """The position of the class `label`; None for the one output of a reward model."""
    classes = {name: i for i, name in config.id2label.items()}
    if len(classes) == 1:
        if label is not None:
            raise InputError(f"{where}: it has one output, which is the score; delete label")
        return None
    if label is None:
        raise InputError(
            f"{where}: it has {len(classes)} classes ({', '.join(classes)}); write one as label"
        )
    if label not in classes:
        raise InputError(f"{where}: it has no class {label!r} ({nearest(label, classes)})")
    return classes[label]


def _longest(source: ModelLabels, model: Any, tokenizer: Tokenizer) -> int:
    """Tokens that the model may read: the problem's limit, within the model's own."""
    own = getattr(model.config.get_text_config(), "max_position_embeddings", source.max_length)
    return min(source.max_length, tokenizer.model_max_length, own)


def encode(tokenizer: Tokenizer, dialogues: Sequence[tuple[str, str]], longest: int) -> list[Row]:
    """Each (prompt, response) as the model reads it, in at most `longest` tokens."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()  # a tokenizer may have been saved with either
    if tokenizer.chat_template is not None:
        return _encode_chat(tokenizer, dialogues, longest)
    prompts, responses = (
        backend.encode_batch([pair[i] for pair in dialogues], add_special_tokens=False)
        for i in (0, 1)
    )
    room = longest - tokenizer.num_special_tokens_to_add(pair=True)
    rows = []
    for prompt, response in zip(prompts, responses, strict=True):
        response.truncate(room, direction="left")
        prompt.truncate(room - len(response), direction="left")
        both = backend.post_process(prompt, response)
        rows.append((both.ids, both.type_ids))
    return rows


def _encode_chat(
    tokenizer: Tokenizer, dialogues: Sequence[tuple[str, str]], longest: int
) -> list[Row]:
    turns = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        for prompt, response in dialogues
    ]
    texts = tokenizer.apply_chat_template(turns, tokenize=False)
    rows = []
    for encoding in tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False):
        ids = encoding.ids
        if len(ids) > longest:
            # A model that has always read a first token of its own goes on doing so.
            head = ids[:1] if ids[0] == tokenizer.bos_token_id else []
            ids = head + ids[len(ids) - (longest - len(head)) :]
        rows.append((ids, [0] * len(ids)))
    return rows


@torch.inference_mode()
def _scores(
    model: Any, rows: list[Row], output: int | None, on_step: StepListener | None
) -> np.ndarray:
    """The score of every row, shape (N,), in the rows' order."""
    pad = _pad_token(model, rows)
    two_texts = getattr(model.config, "type_vocab_size", 0) > 1
    scores = np.empty(len(rows))
    done = 0
    for batch in by_length([len(ids) for ids, _ in rows], BATCH_TOKENS):
        width = len(rows[batch[-1]][0])

        def padded(values: list[list[int]], fill: int, width: int = width) -> torch.Tensor:
            filled = [row + [fill] * (width - len(row)) for row in values]
            return torch.tensor(filled, device=model.device)

        inputs = {
            "input_ids": padded([rows[i][0] for i in batch], pad),
            "attention_mask": padded([[1] * len(rows[i][0]) for i in batch], 0),
        }
        if two_texts:
            inputs["token_type_ids"] = padded([rows[i][1] for i in batch], 0)
        scores[batch] = _score(model, model(**inputs).logits.float(), output).cpu().numpy()
        done += len(batch)
        if on_step is not None:
            on_step(done, len(rows), {})
    return scores


def _score(model: Any, logits: torch.Tensor, output: int | None) -> torch.Tensor:
    """(B, classes) → (B,)."""
    if output is None:
        return logits.squeeze(-1)
    if model.config.problem_type == "multi_label_classification":
        return torch.nn.functional.logsigmoid(logits[:, output])
    return logits.log_softmax(-1)[:, output]


def _pad_token(model: Any, rows: list[Row]) -> int:
    """What the model itself takes for padding.

    A decoder reads its score at the last token that is no padding. One that names no padding was
    trained to read it at the very last token, whatever that is: so its padding must be a token
    that no row holds.
    """
    config = model.config.get_text_config()
    if config.pad_token_id is None:
        used = {token for ids, _ in rows for token in ids}
        config.pad_token_id = next(i for i in range(config.vocab_size) if i not in used)
    return config.pad_token_id
