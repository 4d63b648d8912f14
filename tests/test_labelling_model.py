"""Existing reward models and classifiers as annotators: small random ones, really loaded."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from panacea_lib.errors import InputError
from panacea_lib.labelling.model import encode, load_scorer, model_annotations
from panacea_lib.problem_labelling import ModelLabels
from panacea_lib.records import AnnotationRecord, arrow_schema

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<s>", "</s>", "user", "bot", *"abcdefgh"]
TEMPLATE = (
    "<s>{% for m in messages %} {{ 'user' if m.role == 'user' else 'bot' }} {{ m.content }} </s>"
    "{% endfor %}"
)
PAIRS = pa.table(
    {
        "pair_id": ["1", "2", "3"],
        "prompt": ["a b", "a b", "c"],
        "response_a": ["d e f", "d", "g h a b c"],
        "response_b": ["d", "d", "e"],
    }
)


def tokenizer(pair: bool = False, **special) -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore
    if pair:
        words.post_processor = processors.TemplateProcessing(  # pyright: ignore
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", **special)


def llama_config(**more) -> LlamaConfig:
    sizes = {"vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 16}
    sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    return LlamaConfig(**sizes, bos_token_id=4, eos_token_id=5, **more)


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory):
    """A decoder with one output and a chat template that ends in </s>; it names no padding."""
    folder = tmp_path_factory.mktemp("models") / "tiny-reward"
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(llama_config(num_labels=1, pad_token_id=None))
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(folder)
    tokenizer(bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """An encoder of text pairs with three classes and no chat template."""
    folder = tmp_path_factory.mktemp("models") / "tiny-classes"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=24, pad_token_id=0,
        id2label={0: "rude", 1: "neutral", 2: "polite"},
        label2id={"rude": 0, "neutral": 1, "polite": 2},
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder)
    tokenizer(pair=True, pad_token="[PAD]").save_pretrained(folder)
    return folder


def source(folder, **more) -> ModelLabels:
    return ModelLabels(kind="model", model=str(folder), **more)


def test_a_reward_models_logit_is_the_score(reward_model):
    steps = []
    said = model_annotations(
        source(reward_model), str(reward_model), "tone", PAIRS, lambda *step: steps.append(step)
    )
    assert said.schema == arrow_schema(AnnotationRecord)
    assert set(said["annotator"].to_pylist()) == {"tiny-reward"}, "no path of this machine"
    assert set(said["source"].to_pylist()) == {"model"}
    assert steps[-1][:2] == (4, 4), "equal (prompt, response) are scored once"
    model = LlamaForSequenceClassification.from_pretrained(reward_model)
    for row, pair in zip(said.to_pylist(), PAIRS.to_pylist(), strict=True):
        for side in "ab":
            text = f"<s> user {pair['prompt']} </s> bot {pair[f'response_{side}']} </s>"
            ids = torch.tensor([[WORDS.index(word) for word in text.split()]])
            # One by one, unpadded: the score is read at the very last token, the closing </s>.
            assert row[f"score_{side}"] == pytest.approx(model(ids).logits.item(), abs=1e-5)
        assert row["label"] == 0.5 + 0.5 * np.sign(row["score_a"] - row["score_b"])
    assert said["label"][1].as_py() == 0.5


def test_a_named_class_gives_its_log_probability(classifier):
    given = source(classifier, label="polite", temperature=2.0)
    said = model_annotations(given, str(classifier), "tone", PAIRS)
    model = BertForSequenceClassification.from_pretrained(classifier)
    for row, pair in zip(said.to_pylist(), PAIRS.to_pylist(), strict=True):
        for side in "ab":
            first, second = pair["prompt"].split(), pair[f"response_{side}"].split()
            words = ["[CLS]", *first, "[SEP]", *second, "[SEP]"]
            ids = torch.tensor([[WORDS.index(word) for word in words]])
            types = torch.tensor([[0] * (len(first) + 2) + [1] * (len(second) + 1)])
            logits = model(ids, token_type_ids=types).logits
            expected = logits.log_softmax(-1)[0, 2].item()
            assert row[f"score_{side}"] == pytest.approx(expected, abs=1e-5)
        margin = row["score_a"] - row["score_b"]
        assert row["label"] == pytest.approx(1 / (1 + np.exp(-margin / 2)))


def test_what_is_too_long_loses_its_beginning_never_the_responses_end(classifier, reward_model):
    _, words, _ = load_scorer(source(classifier, label="rude"), str(classifier), "tone")

    def read(longest, *dialogue):
        ((ids, types),) = encode(words, [dialogue], longest)
        assert len(ids) == len(types) <= longest
        return " ".join(WORDS[i] for i in ids)

    assert read(9, "a b c", "d e f") == "[CLS] a b c [SEP] d e f [SEP]"
    assert read(8, "a b c", "d e f") == "[CLS] b c [SEP] d e f [SEP]"
    assert read(5, "a b c", "d e f") == "[CLS] [SEP] e f [SEP]"
    _, words, _ = load_scorer(source(reward_model), str(reward_model), "tone")
    assert read(20, "a b", "d e") == "<s> user a b </s> bot d e </s>"
    assert read(6, "a b", "d e") == "<s> </s> bot d e </s>"
    assert read(3, "a b", "d e") == "<s> e </s>"


def test_a_model_reads_no_more_than_it_can(classifier):
    long = PAIRS.set_column(2, "response_a", [["a b c d e f g h " * 9] * 3])
    given = source(classifier, label="polite")
    assert model_annotations(given, str(classifier), "tone", long).num_rows == 3


def test_what_cannot_be_asked_is_refused_in_one_sentence(reward_model, classifier, tmp_path):
    def refused(folder, match, **more):
        with pytest.raises(InputError, match=match) as error:
            model_annotations(source(folder, **more), str(folder), "tone", PAIRS)
        assert str(error.value).startswith("labels.tone, model ")
        assert "\n" not in str(error.value)

    refused(classifier, "3 classes .rude, neutral, polite.; write one as label")
    refused(classifier, "no class 'polit' .did you mean 'polite'", label="polit")
    refused(reward_model, "one output, which is the score; delete label", label="LABEL_0")
    refused(tmp_path / "nowhere", "cannot be loaded")

    language_model = tmp_path / "language-model"
    LlamaForCausalLM(llama_config(num_labels=1)).save_pretrained(language_model)
    tokenizer().save_pretrained(language_model)
    refused(language_model, "lack score.weight, so it would score at random")

    pickled = tmp_path / "pickled"
    shutil.copytree(reward_model, pickled)
    (pickled / "model.safetensors").unlink()
    model = LlamaForSequenceClassification.from_pretrained(reward_model)
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    refused(pickled, "safetensors")

    own_code = tmp_path / "own-code"
    shutil.copytree(reward_model, own_code)
    config = json.loads((own_code / "config.json").read_text())
    config |= {"model_type": "unheard-of", "auto_map": {"AutoConfig": "own.Config"}}
    (own_code / "config.json").write_text(json.dumps(config))
    (own_code / "own.py").write_text("raise SystemExit('this ran')\n")
    refused(own_code, "cannot be loaded")
