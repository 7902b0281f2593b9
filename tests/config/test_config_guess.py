"""Which stage a file is for, when only the file can tell."""

import pytest

from rlhf_cli.config.guess import guess_stage
from rlhf_cli.errors import ConfigError, MissingInputError, UsageError


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("# rlhf: dpo\nloss: {on: completion}", "dpo"),
        ("# yaml-language-server: $schema=../schema/train-rm.schema.json\nppo: {}", "train-rm"),
        ("# yaml-language-server: $schema=https://example.com/sft.schema.json\n{}", "sft"),
        ("# a note that ends in ppo\nloss: {on: all}", "sft"),
        ("loss: {ties: soft}", "train-rm"),
        ("loss:\n  beta: 0.2", "dpo"),
        ("reference: x\nppo: {}", "ppo"),
        ("reference: x", "dpo"),
        ("prompts: []", "collect"),
    ],
)
def test_line_1_tells_first_and_keys_second(tmp_path, text, stage):
    path = tmp_path / "a.yaml"
    path.write_text(text + "\n")
    assert guess_stage(path) == stage


def test_extended_files_and_overrides_tell_too(tmp_path):
    (tmp_path / "base.yaml").write_text("rollout: {batch_size: 8}\n")
    (tmp_path / "a.yaml").write_text("extends: base.yaml\nseed: 1\n")
    assert guess_stage(tmp_path / "a.yaml") == "ppo"
    (tmp_path / "b.yaml").write_text("seed: 1\n")
    assert guess_stage(tmp_path / "b.yaml", ["loss.on=all"]) == "sft"


@pytest.mark.parametrize("text", ["seed: 1\n", "loss: sigmoid\n", "loss: {label_smoothing: 0.1}\n", ""])
def test_what_does_not_tell_is_a_usage_error(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="do not tell which stage"):
        guess_stage(path)


def test_unreadable_files_fail_as_in_load_config(tmp_path):
    with pytest.raises(MissingInputError):
        guess_stage(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError):
        guess_stage(tmp_path / "a.yaml")
