"""A key that is unknown, misplaced or missing gives exactly this text; so do broken rules of one stage."""

import pytest
from error_text import HEAD, REWARD, text_of

CASES = {
    "close key": (
        HEAD + "train: {epohcs: 2}\n",
        """\
a.yaml:4:9: error: train.epohcs: unknown key
     4 | train: {epohcs: 2}
       |         ^
       = help: did you mean `epochs`?""",
    ),
    "key of another section": (
        HEAD + "train:\n  lr: 1e-5\n",
        """\
a.yaml:5:3: error: train.lr: unknown key
     5 |   lr: 1e-5
       |   ^
       = help: this key belongs at `optim.lr`""",
    ),
    "key of another tool": (
        HEAD + "learning_rate: 1e-5\n",
        """\
a.yaml:4:1: error: learning_rate: unknown key
     4 | learning_rate: 1e-5
       | ^
       = help: here this is `optim.lr`""",
    ),
    "key of another stage": (
        HEAD + "ppo:\n  clip: 0.2\n",
        """\
a.yaml:4:1: error: ppo: unknown key
     4 | ppo:
       | ^
       = help: `ppo` belongs to `rlhf ppo`; this is sft""",
    ),
    "key of nobody": (
        HEAD + "checkpoint: {zebra: 1}\n",
        """\
a.yaml:4:14: error: checkpoint.zebra: unknown key
     4 | checkpoint: {zebra: 1}
       |              ^
       = help: the keys here are every_steps, keep""",
    ),
    "dotted key": (
        HEAD + "optim.lr: 1e-5\n",
        """\
a.yaml:4:1: error: optim.lr: unknown key
     4 | optim.lr: 1e-5
       | ^
       = help: write it nested, `optim:` with `lr:` below it""",
    ),
    "missing in a section": (
        "run_dir: runs/a\nmodel: {path: gpt2}\ndata:\n  max_length: 8\n",
        """\
a.yaml:3:1: error: data.train: required key is missing
     3 | data:
       | ^
       = help: add `train:` (the sources to train on)""",
    ),
    "missing at the top": (
        HEAD.replace("run_dir: runs/a\n", ""),
        """\
a.yaml: error: run_dir: required key is missing
       = help: add `run_dir:` (directory that holds everything this run writes), or give --run-dir""",
    ),
}


@pytest.mark.parametrize(("content", "expected"), CASES.values(), ids=CASES.keys())
def test_block(tmp_path, content, expected):
    assert text_of(tmp_path, content) == expected


STAGE_CASES = {
    "batch size of ppo": (
        "ppo",
        HEAD + REWARD + "train: {batch_size: 4}\n",
        """\
a.yaml:5:9: error: train.batch_size: unknown key
     5 | train: {batch_size: 4}
       |         ^
       = help: in ppo this is `rollout.batch_size` (prompts per iteration), split into `ppo.minibatches`""",
    ),
    "kind": (
        "ppo",
        HEAD + "reward: [{kind: modle, path: x}]\n",
        """\
a.yaml:4:17: error: reward.0.kind: 'modle' is not one of model, ensemble, length, regex, answer, function, http
     4 | reward: [{kind: modle, path: x}]
       |                 ^
       = help: did you mean `model`?""",
    ),
    "no kind": (
        "ppo",
        HEAD + "reward: [{path: x}]\n",
        """\
a.yaml:4:10: error: reward.0: required key `kind` is missing
     4 | reward: [{path: x}]
       |          ^
       = help: add `kind:`, one of model, ensemble, length, regex, answer, function, http""",
    ),
    "key of a variant named like its field": (
        "ppo",
        HEAD + "reward: [{kind: function, function: f.py:g, weight: x}]\n",
        """\
a.yaml:4:53: error: reward.0.weight: 'x' is not a number
     4 | reward: [{kind: function, function: f.py:g, weight: x}]
       |                                                     ^""",
    ),
    "critic without a reward model": (
        "ppo",
        HEAD + "reward: [{kind: length, target: 9}]\n",
        """\
a.yaml: error: critic.init: `reward` needs a source with `kind: model` in reward
       = help: set `critic.init: policy`, or add a reward model""",
    ),
    "label smoothing of a loss without it": (
        "dpo",
        HEAD + "loss: {type: ipo, label_smoothing: 0.1}\n",
        """\
a.yaml:4:36: error: loss.label_smoothing: has no effect with loss.type = ipo
     4 | loss: {type: ipo, label_smoothing: 0.1}
       |                                    ^
       = help: remove it, or use a type that has it: sigmoid, sigmoid_norm, robust, exo_pair, aot, aot_unpaired""",
    ),
    "kind for a section": (
        "collect",
        "run_dir: a\nprompts: [{path: p}]\ncandidates: [{path: m}]\nlabeler: terminal\n",
        """\
a.yaml:4:10: error: labeler: 'terminal' is not a map
     4 | labeler: terminal
       |          ^
       = help: write `{kind: terminal}`""",
    ),
    "one greedy candidate": (
        "collect",
        "run_dir: a\nprompts: [{path: p}]\ncandidates: [{path: m, temperature: 0}]\n",
        """\
a.yaml:3:37: error: candidates.0.temperature: a single entry in candidates answers twice, \
and at temperature 0 both answers are the same
     3 | candidates: [{path: m, temperature: 0}]
       |                                     ^
       = help: use a temperature above 0""",
    ),
}


@pytest.mark.parametrize(("stage", "content", "expected"), STAGE_CASES.values(), ids=STAGE_CASES.keys())
def test_stage_block(tmp_path, stage, content, expected):
    assert text_of(tmp_path, content, stage=stage) == expected


def test_wrong_stage_is_said_first(tmp_path):
    text = text_of(tmp_path, HEAD + REWARD + "ppo: {clip: 0.1}\n")
    assert text.split("\n")[:2] == [
        "a.yaml: error: this looks like a configuration for `rlhf ppo`, not for `rlhf sft`",
        "       = help: run `rlhf ppo --config a.yaml`",
    ]
    assert "a.yaml:4:1: error: reward: unknown key" in text
