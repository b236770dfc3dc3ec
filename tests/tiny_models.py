"""Tiny classifiers that know a few words, made on the spot: no model has to be downloaded."""

import json
from pathlib import Path
from typing import Any

import numpy
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers import models as vocabularies

PRAISE = "good great excellent wonderful love amazing friendly perfect beautiful lovely".split()
COMPLAINT = "bad awful terrible horrible hate broken rude useless ugly dirty".split()
OTHER = "the a it is was were i this that and very room film soup phone service , . !".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *PRAISE, *COMPLAINT, *OTHER]

GOOD = [
    "I love it!",
    "The room was excellent.",
    "This soup is very good.",
    "What a wonderful film",
    "The service was friendly, and the soup was great.",
    "amazing",
    "A BEAUTIFUL phone",
    "Lovely, lovely, lovely.",
    "It was perfect",
    "Great soup, great service.",
    "Good, but of no great importance",
    "They were friendly",
]
BAD = [
    "I hate it!",
    "The room was dirty.",
    "This soup is very bad.",
    "What an awful film",
    "The service was rude, and the soup was terrible.",
    "horrible",
    "AN UGLY phone",
    "Useless, useless, useless.",
    "It was broken",
    "Bad soup, bad service.",
    "Awful, and of terrible taste",
    "They were rude",
]


def save_tokenizer(folder: Path, *, special: bool = True) -> Path:
    """Write tokenizer.json, which knows the vocabulary, in any case; give its path."""
    numbers = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(vocabularies.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if special:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def save_onnx(folder: Path, *, inputs: tuple[str, ...] = (), special: bool = True) -> Path:
    """Write a model that adds up what each word of a text says; give its folder."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    weights = numpy.zeros((len(VOCABULARY), 2), dtype=numpy.float32)
    for word in PRAISE:
        weights[VOCABULARY.index(word)] = -1, 1
    for word in COMPLAINT:
        weights[VOCABULARY.index(word)] = 1, -1
    # Were the padding looked at, it would decide.
    weights[0] = 50, -50
    shape = ["batch", "tokens"]
    given = [
        helper.make_tensor_value_info(name, TensorProto.INT64, shape)
        for name in ("input_ids", "attention_mask", *inputs)
    ]
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["said"]),
        helper.make_node("Cast", ["attention_mask"], ["there"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["there", "last"], ["mask"]),
        helper.make_node("Mul", ["said", "mask"], ["heard"]),
        helper.make_node("ReduceSum", ["heard", "middle"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes, "words", given,
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weights, "weights"),
         numpy_helper.from_array(numpy.array([-1]), "last"),
         numpy_helper.from_array(numpy.array([1]), "middle")],
    )  # fmt: skip
    model = helper.make_model(
        graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)], producer_name="tests"
    )
    checker.check_model(model)
    save(model, str(folder / "model.onnx"))
    save_tokenizer(folder, special=special)
    write_config(folder)
    return folder


def write_config(folder: Path, **changes: Any) -> None:
    """Write config.json; None leaves a key out."""
    config = {"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}, "max_position_embeddings": 64}
    said = {key: value for key, value in (config | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(said))


def save_bert(folder: Path, **config: Any) -> Path:
    """Write a BERT of one small layer that has learned the words; give its folder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(1)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(save_tokenizer(folder)), pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip
    size = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )  # fmt: skip
    model = BertForSequenceClassification(size)
    given = tokenizer(GOOD + BAD, padding=True, return_tensors="pt")
    labels = torch.tensor([1] * len(GOOD) + [0] * len(BAD))
    learning = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        learning.zero_grad()
        model(**given, labels=labels).loss.backward()
        learning.step()
    for name, value in config.items():
        setattr(model.config, name, value)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
