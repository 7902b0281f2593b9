"""Measure a trained model on held-out rows, the same way whoever trained it: plain rows, one at a time, fp32.

python -m scripts.bench.score --stage sft|train-rm|dpo --world DIR --model DIR prints the mean loss per example.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from scripts.bench.sides import BETA, ROW_FILES, read_jsonl

Logprob = Callable[[str, str], Tensor]


def main() -> None:
    """Print the loss."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stage", choices=ROW_FILES, required=True)
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    arguments = parser.parse_args()
    rows = read_jsonl(arguments.world / "held_out" / ROW_FILES[arguments.stage])
    texts = [{key: str(value) for key, value in row.items()} for row in rows]
    tokenizer = AutoTokenizer.from_pretrained(arguments.world / "model")
    measure = {"sft": sft_loss, "train-rm": reward_loss, "dpo": dpo_loss}[arguments.stage]
    with torch.no_grad():
        loss = measure(arguments.world, arguments.model, tokenizer, texts)
    print(json.dumps({"loss": loss}))


def sft_loss(
    _world: Path, model: Path, tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, str]]
) -> float:
    """Give the negative log-likelihood of completions per token, over all tokens."""
    logprob = logprob_of(model, tokenizer)
    total = sum(float(logprob(row["prompt"], row["completion"])) for row in rows)
    return -total / sum(len(tokenizer(row["completion"])["input_ids"]) + 1 for row in rows)


def reward_loss(
    _world: Path, model: Path, tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, str]]
) -> float:
    """Give the Bradley-Terry loss per pair."""
    scorer = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1).eval()

    def score(text: str) -> Tensor:
        ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        scores: Tensor = scorer(torch.tensor([ids])).logits
        return scores[0, 0]

    losses = [
        -logsigmoid(score(row["prompt"] + row["chosen"]) - score(row["prompt"] + row["rejected"]))
        for row in rows
    ]
    return float(torch.stack(losses).mean())


def dpo_loss(
    world: Path, model: Path, tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, str]]
) -> float:
    """Give the sigmoid DPO loss per pair, with the untrained model as reference."""
    policy, reference = logprob_of(model, tokenizer), logprob_of(world / "model", tokenizer)

    def gain(prompt: str, answer: str) -> Tensor:
        return policy(prompt, answer) - reference(prompt, answer)

    losses = [
        -logsigmoid(BETA * (gain(row["prompt"], row["chosen"]) - gain(row["prompt"], row["rejected"])))
        for row in rows
    ]
    return float(torch.stack(losses).mean())


def logprob_of(path: Path, tokenizer: PreTrainedTokenizerBase) -> Logprob:
    """Load a model; the result gives the summed log-prob of an answer and its EOS behind a prompt."""
    model = AutoModelForCausalLM.from_pretrained(path).eval()

    def logprob(prompt: str, answer: str) -> Tensor:
        num_prompt = len(tokenizer(prompt)["input_ids"])
        ids = torch.tensor([*tokenizer(prompt + answer)["input_ids"], tokenizer.eos_token_id])
        logits: Tensor = model(ids[None]).logits
        logprobs = logits[0, num_prompt - 1 : -1].log_softmax(-1)
        return logprobs.gather(-1, ids[num_prompt:, None]).sum()

    return logprob


if __name__ == "__main__":
    main()
