"""Make what both sides train on: a tokenizer, two random models and the same rows, written to one folder.

python -m scripts.bench.world --rows FILE --out DIR [--num-rows N] [--vocab N] [--size small|medium|gpu]

Rows are Anthropic HH-RLHF JSON lines (`chosen`, `rejected`: transcripts). Each is cut before its last answer; pairs
whose prompts differ or that have a side over 510 tokens are passed over. N of those left are trained on, spaced evenly
over the file, and 48 between them are held out. `rlhf` shuffles by its seed, so `ordered/` holds the rows in that order
for a side that does not.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from rlhf_cli.config.sections import Model
from rlhf_cli.data.loader import epoch_order
from rlhf_cli.models.heads import load_classifier
from rlhf_cli.models.load import load_vocabulary
from rlhf_cli.models.tokenizer import train_tokenizer
from scripts.bench.flops import Row, Shape

MAX_TOKENS = 510
NEW_TOKENS = 48
NUM_HELD_OUT = 48
TOKENIZER_SIZE = 16384
ANSWER = "\n\nAssistant:"

SHAPES = {
    "small": {
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
    },
    "medium": {
        "hidden_size": 1024,
        "intermediate_size": 2752,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
    },
    "gpu": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
}

Pair = dict[str, str]


def main() -> None:
    """Make the folder; its `world.json` is written last: the model's shape, and the length of every row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-rows", type=int, default=48)
    parser.add_argument("--vocab", type=int, default=TOKENIZER_SIZE)
    parser.add_argument("--size", choices=SHAPES, default="small")
    arguments = parser.parse_args()
    out: Path = arguments.out
    transcripts = [json.loads(line) for line in arguments.rows.read_text(encoding="utf-8").splitlines()]
    tokenizer = train_tokenizer((row["chosen"] for row in transcripts), TOKENIZER_SIZE)
    shape = write_models(out, tokenizer, SHAPES[arguments.size], arguments.vocab)
    usable = [pair for pair in pairs_of(transcripts) if fits(lengths_of(tokenizer, pair))]
    if len(usable) < 2 * max(arguments.num_rows, NUM_HELD_OUT):
        raise SystemExit(f"error: {arguments.rows} has {len(usable)} usable rows; too few")
    train = evenly(usable, arguments.num_rows)
    held_out = evenly([pair for pair in usable if pair not in train], NUM_HELD_OUT)
    prompts = evenly(train, arguments.num_rows * 2 // 3)
    write_rows(out, train, held_out, prompts)
    rows = {
        "sft": [Row(row.prompt, row.answers[:1]) for row in (lengths_of(tokenizer, pair) for pair in train)],
        "train-rm": [lengths_of(tokenizer, pair) for pair in train],
        "dpo": [lengths_of(tokenizer, pair) for pair in train],
        "ppo": [Row(lengths_of(tokenizer, pair).prompt, (NEW_TOKENS,)) for pair in prompts],
    }
    listed = {stage: [[row.prompt, list(row.answers)] for row in column] for stage, column in rows.items()}
    (out / "world.json").write_text(json.dumps({"shape": asdict(shape), "rows": listed}))


def pairs_of(transcripts: Sequence[Pair]) -> Iterator[Pair]:
    """Cut transcripts before their last answer; pairs whose prompts differ are passed over."""
    for row in transcripts:
        border = row["chosen"].rfind(ANSWER) + len(ANSWER)
        prompt, chosen, rejected = row["chosen"][:border], row["chosen"][border:], row["rejected"][border:]
        if (
            row["rejected"].startswith(prompt)
            and chosen.strip()
            and rejected.strip()
            and ANSWER not in rejected
        ):
            yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def lengths_of(tokenizer: PreTrainedTokenizerBase, pair: Pair) -> Row:
    """Count the tokens of a pair, with one EOS behind each answer."""
    prompt, chosen, rejected = (len(ids) for ids in tokenizer([pair[key] for key in pair])["input_ids"])
    return Row(prompt, (chosen + 1, rejected + 1))


def fits(row: Row) -> bool:
    """Say whether both rows, and the prompt with a sampled answer, are short enough."""
    return row.prompt + max(*row.answers, NEW_TOKENS) <= MAX_TOKENS


def evenly(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Take `count` of them, evenly spaced from the first on."""
    return list(pairs[:: len(pairs) // count][:count])


def write_models(
    out: Path, tokenizer: PreTrainedTokenizerBase, sizes: dict[str, int], vocab_size: int
) -> Shape:
    """Write a random Llama and the reward model that `rlhf train-rm` would start from it."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **sizes,  # type: ignore[arg-type]
        vocab_size=vocab_size,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    section = Model(path=str(out / "model"))
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    classifier = load_classifier(section, load_vocabulary(section), new_head_seed=0)
    classifier.core.save_pretrained(out / "classifier")
    tokenizer.save_pretrained(out / "classifier")
    heads = sizes["num_attention_heads"]
    kv_size = sizes["hidden_size"] * sizes.get("num_key_value_heads", heads) // heads
    return Shape(config.hidden_size, config.intermediate_size, config.num_hidden_layers, vocab_size, kv_size)


def write_rows(out: Path, train: Sequence[Pair], held_out: Sequence[Pair], prompts: Sequence[Pair]) -> None:
    """Write the rows of each kind: as given, in the order of the first epoch, and held out."""
    for folder, pairs, asked in (
        (out, train, prompts),
        (out / "ordered", in_first_epoch(train), in_first_epoch(prompts)),
        (out / "held_out", held_out, held_out),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        texts = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in pairs]
        write_jsonl(folder / "sft.jsonl", texts)
        write_jsonl(folder / "pairs.jsonl", pairs)
        write_jsonl(folder / "prompts.jsonl", [{"prompt": pair["prompt"]} for pair in asked])


def in_first_epoch(pairs: Sequence[Pair]) -> list[Pair]:
    """Put rows into the order in which `rlhf` with seed 0 walks them first."""
    return [pairs[k] for k in epoch_order(len(pairs), 0, 0)]


def write_jsonl(path: Path, rows: Sequence[Pair]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
