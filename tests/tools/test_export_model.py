"""`rlhf export`: what plain transformers loads gives the same numbers, and the card tells where it comes from."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny import PROMPTS, Tiny
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf_cli.cli import main
from rlhf_cli.models.load import quiet_peft


@pytest.fixture
def rlhf(capsys, work):
    def call(*arguments: object, code: int = 0) -> str:
        assert main(["export", *map(str, arguments)]) == code
        streams = capsys.readouterr()
        return streams.out if code == 0 else streams.err

    return call


@torch.no_grad()
def logits_of(folder: Path, auto: type = AutoModelForCausalLM) -> torch.Tensor:
    ids = AutoTokenizer.from_pretrained(folder)(PROMPTS[0], return_tensors="pt").input_ids
    return auto.from_pretrained(folder, dtype=torch.float32)(ids).logits


def test_a_run_in_shards_and_half_precision(runs: Path, rlhf, work):
    record = json.loads(rlhf(runs / "sft", "out", "--dtype", "bfloat16", "--shard-size", "30KB", "--json"))
    assert record["files"] > 1
    assert 0 < record["largest_difference"] < 0.5
    shards = list((work / "out").glob("*.safetensors"))
    assert len(shards) == record["files"]
    assert {tensor.dtype for shard in shards for tensor in load_file(shard).values()} == {torch.bfloat16}
    expected = logits_of(runs / "sft/model")
    assert torch.allclose(logits_of(work / "out"), expected, atol=0.3)
    assert not torch.equal(logits_of(work / "out"), expected)
    tokenizer = AutoTokenizer.from_pretrained(work / "out")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(runs / "sft/model").chat_template


def test_float32_changes_nothing(runs: Path, rlhf, work):
    record = json.loads(rlhf(runs / "sft", "out", "--json"))
    assert record["largest_difference"] < 1e-6
    assert torch.equal(logits_of(work / "out"), logits_of(runs / "sft/model"))


def test_an_adapter_is_merged_into_its_base(tiny: Tiny, runs: Path, rlhf, work):
    rlhf(runs / "lora/adapter", "merged")
    ids = AutoTokenizer.from_pretrained(tiny.model)(PROMPTS[0], return_tensors="pt").input_ids
    base = AutoModelForCausalLM.from_pretrained(tiny.model, dtype=torch.float32)
    with torch.no_grad(), quiet_peft():
        plain = base(ids).logits.clone()
        expected = PeftModel.from_pretrained(base, runs / "lora/adapter")(ids).logits
    assert torch.allclose(logits_of(work / "merged"), expected, atol=1e-4)
    assert not torch.allclose(plain, expected, atol=1e-2)
    assert not (work / "merged/adapter_config.json").exists()
    rlhf(runs / "lora/adapter", "again", "--base", tiny.model)
    assert torch.equal(logits_of(work / "again"), logits_of(work / "merged"))


def test_a_reward_model_keeps_its_scores(runs: Path, rlhf, work):
    rlhf(runs / "train-rm", "out")
    auto = AutoModelForSequenceClassification
    assert torch.equal(logits_of(work / "out", auto), logits_of(runs / "train-rm/model", auto))
    assert "pipeline_tag: text-classification" in (work / "out/README.md").read_text()


def test_the_card_tells_chain_data_and_results_but_no_folders(tiny: Tiny, runs: Path, rlhf, work):
    rlhf(runs / "train-rm", "out")
    card = (work / "out/README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "- train-rm: train-rm, 6 steps\n  - model: sft: sft, 40 steps\n    - model: model\n" in card
    assert "12 of 12 rows" in card
    assert "| loss |" in card
    assert "seed 0" in card
    assert str(runs) not in card


def test_it_overwrites_nothing_and_says_what_is_wrong(runs: Path, rlhf, work):
    (work / "full").mkdir()
    (work / "full/notes.txt").touch()
    assert "not empty" in rlhf(runs / "sft", "full", code=73)
    assert "no adapter" in rlhf(runs / "sft", "out", "--base", "x", code=65)
    assert "no model" in rlhf("./none", "out", code=66)
    assert not (work / "out").exists()
