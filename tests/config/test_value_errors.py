"""A value that does not fit gives exactly this text: place, line, caret, and the way out."""

import pytest
from error_text import HEAD, text_of

CASES = {
    "bool for a number": (
        HEAD + "optim: {lr: true}\n",
        """\
a.yaml:4:13: error: optim.lr: true is not a number
     4 | optim: {lr: true}
       |             ^""",
    ),
    "text for a number": (
        HEAD + 'train: {batch_size: "8"}\n',
        """\
a.yaml:4:21: error: train.batch_size: '8' is not a whole number
     4 | train: {batch_size: "8"}
       |                     ^
       = help: write `8`""",
    ),
    "fraction for a whole number": (
        HEAD + "seed: 1e3\n",
        """\
a.yaml:4:7: error: seed: 1e3 is not a whole number
     4 | seed: 1e3
       |       ^
       = help: write `1000`""",
    ),
    "number for text": (
        HEAD.replace("gpt2", "gpt2, revision: 1234567"),
        """\
a.yaml:2:31: error: model.revision: 1234567 is not text
     2 | model: {path: gpt2, revision: 1234567}
       |                               ^
       = help: quote it: "1234567\"""",
    ),
    "word for a truth value": (
        HEAD + "train:\n  compile: yes\n",
        """\
a.yaml:5:12: error: train.compile: 'yes' is not true or false
     5 |   compile: yes
       |            ^
       = help: write `true`""",
    ),
    "nothing for a number": (
        HEAD + "optim:\n  lr:\n",
        """\
a.yaml:5:6: error: optim.lr: null is not a number
     5 |   lr:
       |      ^
       = help: give it a value, or remove the line to get 1e-05""",
    ),
    "NaN": (
        HEAD + "optim: {lr: .nan}\n",
        """\
a.yaml:4:13: error: optim.lr: must be a finite number, not .nan
     4 | optim: {lr: .nan}
       |             ^""",
    ),
    "out of bounds": (
        HEAD + "optim: {warmup: 1.5}\n",
        """\
a.yaml:4:17: error: optim.warmup: must be less than 1, not 1.5
     4 | optim: {warmup: 1.5}
       |                 ^""",
    ),
    "bad enum": (
        HEAD.replace("gpt2", "gpt2, dtype: bf16"),
        """\
a.yaml:2:28: error: model.dtype: 'bf16' is not one of auto, float32, bfloat16
     2 | model: {path: gpt2, dtype: bf16}
       |                            ^
       = help: did you mean `bfloat16`?""",
    ),
    "neither member of a union": (
        HEAD + "train: {micro_tokens: lots}\n",
        """\
a.yaml:4:23: error: train.micro_tokens: 'lots' is not auto or a whole number
     4 | train: {micro_tokens: lots}
       |                       ^""",
    ),
    "union member out of bounds": (
        HEAD + "train: {micro_tokens: 0}\n",
        """\
a.yaml:4:23: error: train.micro_tokens: must be at least 1, not 0
     4 | train: {micro_tokens: 0}
       |                       ^""",
    ),
    "item of a union's list": (
        HEAD.replace("gpt2", "gpt2, lora: {target: [q, 3]}"),
        """\
a.yaml:2:40: error: model.lora.target.1: 3 is not text
     2 | model: {path: gpt2, lora: {target: [q, 3]}}
       |                                        ^
       = help: quote it: "3\"""",
    ),
    "path for a list of sources": (
        HEAD.replace("[{path: a.jsonl}]", "a.jsonl"),
        """\
a.yaml:3:15: error: data.train: 'a.jsonl' is not a list
     3 | data: {train: a.jsonl}
       |               ^
       = help: write `[{path: a.jsonl}]`""",
    ),
    "name for a section": (
        HEAD.replace("{path: gpt2}", "gpt2"),
        """\
a.yaml:2:8: error: model: 'gpt2' is not a map of keys
     2 | model: gpt2
       |        ^
       = help: write `{path: gpt2}`""",
    ),
    "wrong number of items": (
        HEAD + "optim: {betas: [0.9]}\n",
        """\
a.yaml:4:16: error: optim.betas: 2 items needed, not 1
     4 | optim: {betas: [0.9]}
       |                ^""",
    ),
    "two ways to evaluate": (
        HEAD.replace("]}", "], eval: [{path: b}], eval_fraction: 0.1}"),
        """\
a.yaml:3:68: error: data.eval_fraction: excludes data.eval: both choose the evaluation rows
     3 | data: {train: [{path: a.jsonl}], eval: [{path: b}], eval_fraction: 0.1}
       |                                                                    ^
       = help: keep one of them""",
    ),
}


@pytest.mark.parametrize(("content", "expected"), CASES.values(), ids=CASES.keys())
def test_block(tmp_path, content, expected):
    assert text_of(tmp_path, content) == expected
