"""Time sampling alone: our engine, and `generate` of transformers on the same prompts, tokens in one padded batch.

scripts/bench/run rollout --rows FILE [--device gpu] prints a Markdown table. The model is random, so answers are given
a geometric length: about one token in `MEAN_LENGTH` stops, whatever the model says.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from rlhf_cli.models.device import autocast_for, num_parameters, pick_device
from rlhf_cli.models.packing import allow_packing
from rlhf_cli.rollout.engine import Sampling
from rlhf_cli.rollout.transformers_engine import TransformersEngine
from scripts.bench.compare import ensure_world
from scripts.bench.process import run_measured
from scripts.bench.sides import ROOT, read_jsonl
from scripts.bench.table import MEBIBYTE, markdown

MEAN_LENGTH = 48
MAX_NEW_TOKENS = 192
"""Few answers are that long; a batch lasts as long as its longest."""


def main() -> None:
    """Run both ways, each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(prog="scripts/bench/run rollout", description=__doc__)
    parser.add_argument("--rows", type=Path, help="HH-RLHF JSON lines: chosen, rejected")
    parser.add_argument("--work", type=Path, default=ROOT / ".bench", help="where everything is written")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="gpu takes a 0.5B model")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--num-rows", type=int, default=96)
    parser.add_argument("--rows-at-once", type=int, default=16)
    parser.add_argument("--child", nargs=2, metavar=("WAY", "WORLD"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        sample(*arguments.child, arguments.precision, arguments.rows_at_once)
        return
    work: Path = arguments.work.resolve()
    size = "gpu" if arguments.device == "gpu" else "small"
    world = ensure_world(work, arguments.rows, num_rows=arguments.num_rows, size=size)
    lines = []
    for way in ("ours", "generate"):
        options = ["--precision", arguments.precision, "--rows-at-once", str(arguments.rows_at_once)]
        command = [sys.executable, "-m", "scripts.bench.rollout", "--child", way, str(world), *options]
        log = work / f"rollout-{way}.log"
        run_measured(command, log)
        told = json.loads(log.read_text().splitlines()[-1])
        rate = told["tokens"] / told["seconds"]
        lines.append(
            [way, f"{told['tokens']}", f"{told['seconds']:.1f}", f"{rate:.0f}", f"{told['mebibytes']}"]
        )
    print(markdown(["engine", "tokens", "seconds", "tokens/s", "peak MiB"], lines))


def sample(way: str, world: str, precision: str, rows_at_once: int) -> None:
    """Answer all prompts once and print what it took."""
    device = pick_device()
    tokenizer = AutoTokenizer.from_pretrained(f"{world}/model")
    # Ours casts its weights once for all; `generate` would at each token, so it gets them cast.
    dtype = torch.bfloat16 if way == "generate" and precision == "bfloat16" else torch.float32
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(f"{world}/model", dtype=dtype)
    model.to(device).eval()  # type: ignore[arg-type]
    if way == "ours":
        allow_packing(model)  # as the stages do
    texts = [str(row["prompt"]) for row in read_jsonl(Path(world) / "prompts.jsonl")]
    prompts: list[list[int]] = [tokenizer(text)["input_ids"] for text in texts]
    stop_ids = tuple(range(3, len(tokenizer), MEAN_LENGTH))
    began = time.perf_counter()
    if way == "ours":
        autocast = autocast_for(precision, device, num_parameters(model))
        engine = TransformersEngine(model, tokenizer.pad_token_id, chunk_size=rows_at_once, autocast=autocast)
        sampling = Sampling(1.0, 1.0, MAX_NEW_TOKENS, stop_ids)
        num_tokens = sum(len(c.token_ids) for c in engine.generate(prompts, sampling, range(len(prompts))))
    else:
        with torch.no_grad():
            num_tokens = sum(
                generate(model, prompts[start : start + rows_at_once], stop_ids, tokenizer.pad_token_id)
                for start in range(0, len(prompts), rows_at_once)
            )
    seconds = time.perf_counter() - began
    on_gpu = device.type == "cuda"
    peak = (
        torch.cuda.max_memory_allocated()
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    print(json.dumps({"tokens": num_tokens, "seconds": seconds, "mebibytes": peak // MEBIBYTE}))


def generate(model: PreTrainedModel, prompts: list[list[int]], stop_ids: tuple[int, ...], pad_id: int) -> int:
    """Sample one padded batch with transformers' own loop; count the tokens up to each stop."""
    width = max(map(len, prompts))
    padded = torch.tensor([[pad_id] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    output = model.generate(  # type: ignore[operator]
        input_ids=padded.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=True,
        top_k=0,
        eos_token_id=list(stop_ids),
        pad_token_id=pad_id,
    )
    return int((output[:, width:] != pad_id).sum())


if __name__ == "__main__":
    main()
