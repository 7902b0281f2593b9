"""The pure parts of scripts/bench: the operations counted, the rows chosen, the figures written."""

import json
from pathlib import Path

import pytest
import torch
from tiny import save_tiny_model
from transformers import AutoModelForCausalLM

from scripts.bench.compare import compare, load, save
from scripts.bench.flops import Row, Shape, forward, useful_flops
from scripts.bench.process import Usage, run_measured
from scripts.bench.sides import Case, Sample, our_config, read_run, their_spec
from scripts.bench.table import Comparison, cells_of, comparison_table, markdown, spread
from scripts.bench.vllm import untie

# One block: 4 x 4 for each of q and o, 2 x 4 for each of k and v, 3 x 4 x 6 in the MLP.
TOY = Shape(hidden_size=4, intermediate_size=6, num_layers=1, vocab_size=10, kv_size=2)
# Two prompt tokens, answers of two tokens and of one, EOS included.
PAIR = Row(2, (2, 1))


def sample(seconds: float, mebibytes: int = 100) -> Sample:
    return Sample(seconds, seconds + 5, mebibytes * 2**20, (2.0, 1.0))


def comparison(ours: list[Sample], theirs: list[Sample]) -> Comparison:
    return Comparison(
        "sft", "float32", ours, theirs, 48, 4800, 10**12, 2.5e11, (1.25, 1.5 if theirs else None)
    )


def test_block_weights_by_hand():
    assert TOY.block_weights == 2 * 16 + 2 * 8 + 72


def test_the_forward_pass_of_a_reward_model_by_hand():
    # 5 tokens are read. The prompt's see 1 + 2 keys; the answers' see 3 + 4, and 3. The MLP is read at 2 of them.
    assert forward(TOY, PAIR, "score") == 2 * (5 * 48 + 2 * 72) + 4 * 4 * (3 + 7 + 3)


def test_the_forward_pass_of_a_critic_by_hand():
    assert forward(TOY, PAIR, "values") == 2 * (5 * 48 + 3 * 72) + 4 * 4 * (3 + 7 + 3)


def test_the_forward_pass_of_a_language_model_by_hand():
    # The last token of an answer is predicted, never read: 3 are read, seeing 1 + 2 and 3 keys. 3 logit rows, two
    # of which come from the last token of the prompt.
    assert forward(TOY, PAIR, "logits") == 2 * (3 * 48 + 2 * 72) + 4 * 4 * (3 + 3) + 2 * 4 * 10 * 3


def test_layers_multiply_blocks_and_attention_alone():
    deep = Shape(4, 6, 3, 10, 2)
    per_layer = 2 * 3 * 120 + 4 * 4 * (3 + 3)
    assert forward(deep, PAIR, "logits") == forward(TOY, PAIR, "logits") + 2 * per_layer


def test_a_stage_counts_its_passes():
    logits, values, score = (forward(TOY, PAIR, reads) for reads in ("logits", "values", "score"))
    assert useful_flops("sft", TOY, [PAIR], epochs=2) == 6 * logits
    assert useful_flops("train-rm", TOY, [PAIR, PAIR]) == 6 * score
    assert useful_flops("dpo", TOY, [PAIR], epochs=3) == 10 * logits
    assert useful_flops("ppo", TOY, [PAIR], epochs=4) == 14 * logits + 13 * values + score


def test_speedup_pairs_the_rounds():
    assert comparison([sample(10.0), sample(20.0)], [sample(60.0), sample(90.0)]).speedups == [6.0, 4.5]


def test_fraction_of_peak_takes_the_median_round():
    assert comparison([sample(4.0), sample(8.0), sample(80.0)], []).fraction_of_peak == pytest.approx(0.5)


def test_cells_name_both_sides_and_their_ratio():
    case = comparison([sample(10.0, 200), sample(8.0, 180)], [sample(60.0, 700), sample(64.0, 600)])
    assert cells_of(case) == [
        "sft",
        "float32",
        "9 (8-10) / 62 (60-64)",
        "7 (6-8)x",
        "5.33 / 0.77",
        "533 / 77",
        "44%",
        "200 / 700",
        "1/3.5",
        "14 / 67",
        "1.2500 / 1.5000",
    ]


def test_our_side_alone_has_no_ratios():
    cells = cells_of(comparison([sample(10.0)], []))
    assert cells[2:5] == ["10", "", "4.80"]
    assert cells[8:] == ["", "15", "1.2500"]


def test_spread_shows_a_range_only_where_there_is_one():
    assert spread([6.125]) == "6.12"
    assert spread([6.4, 5.9, 6.1]) == "6.1 (5.9-6.4)"


def test_a_table_lines_up():
    assert markdown(["a", "long"], [["wide cell", "x"]]) == (
        "| a         | long |\n|-----------|------|\n| wide cell | x    |\n"
    )
    table = comparison_table([comparison([sample(1.0)], [])])
    assert len({len(line) for line in table.splitlines()}) == 1


def test_a_saved_case_reads_back(tmp_path: Path):
    case = comparison([sample(1.0)], [sample(2.0)])
    save(tmp_path, case)
    assert load(tmp_path / "sft-float32.json") == case


def test_the_process_is_measured_and_its_output_kept(tmp_path: Path):
    usage = run_measured(["sh", "-c", "echo said; echo $HF_HUB_OFFLINE >&2"], tmp_path / "log")
    assert (tmp_path / "log").read_text() == "said\n1\n"
    assert usage.wall_seconds > 0
    assert usage.peak_bytes > 2**16


def test_a_failing_process_ends_the_benchmark_with_its_words(tmp_path: Path):
    with pytest.raises(SystemExit, match=r"no such luck(?s:.)*ended with 3"):
        run_measured(["sh", "-c", "echo no such luck; exit 3"], tmp_path / "log")


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_training_lasts_from_the_reference_to_the_last_step(tmp_path: Path):
    events = [("started", 100.0), ("reference", 103.5), ("training", 105.0), ("checkpointed", 120.0)]
    write_lines(tmp_path / "events.jsonl", [{"kind": kind, "time": time} for kind, time in events])
    steps = [(1, 107.0, 0.75), (2, 110.0, 0.5)]
    write_lines(
        tmp_path / "metrics.jsonl",
        [{"step": step, "time": time, "loss": loss} for step, time, loss in steps]
        + [{"step": 2, "time": 115.0}],
    )
    assert read_run(tmp_path, Usage(30.0, 5)) == Sample(6.5, 30.0, 5, (0.75, 0.5))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A world of two rows without its models."""
    shape = {"hidden_size": 4, "intermediate_size": 6, "num_layers": 1, "vocab_size": 10, "kv_size": 2}
    rows = {stage: [[2, [2, 1]], [3, [1, 1]]] for stage in ("dpo", "ppo")}
    (tmp_path / "world.json").write_text(json.dumps({"shape": shape, "rows": rows}))
    for name in ("pairs", "prompts"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n{}\n")
    return tmp_path


def test_both_sides_are_told_the_same(world: Path):
    case = Case("dpo", "bfloat16", world, world / "out", epochs=3)
    ours, theirs = our_config(case), their_spec(case)
    assert ours["optim"]["lr"] == theirs["lr"]
    assert ours["loss"]["beta"] == theirs["beta"]
    assert ours["data"]["max_length"] == theirs["max_length"]
    assert ours["train"] == {"epochs": 3, "precision": "bfloat16", "batch_size": theirs["batch_size"]}
    assert (theirs["epochs"], theirs["precision"]) == (3, "bfloat16")


def test_ppo_answers_all_prompts_in_one_iteration(world: Path):
    case = Case("ppo", "float32", world, world / "out", settings={"train.micro_tokens": 64})
    ours, theirs = our_config(case), their_spec(case)
    assert ours["rollout"]["batch_size"] == theirs["rollout_batch_size"] == 2
    assert ours["ppo"] == {"epochs": theirs["ppo_epochs"], "iterations": 1}
    assert ours["train"]["micro_tokens"] == 64
    assert ours["reward"] == [{"kind": "model", "path": str(world / "classifier")}]


def test_work_is_counted_over_all_passes(world: Path):
    case = Case("ppo", "float32", world, world / "out")
    told = compare(case, ([sample(1.0)], []), peak_flops=1e9)
    rows = [Row(2, (2, 1)), Row(3, (1, 1))]
    assert (told.num_examples, told.num_tokens) == (2, 10)
    assert told.useful_flops == useful_flops("ppo", TOY, rows, epochs=4)
    assert told.held_out == (None, None)


def test_untied_embeddings_compute_the_same(tmp_path: Path):
    save_tiny_model(tmp_path / "tied")
    untie(tmp_path / "tied", tmp_path / "untied")
    tied, untied = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("tied", "untied"))
    ids = torch.arange(40)[None]
    assert torch.equal(tied(ids).logits, untied(ids).logits)
    assert not untied.config.tie_word_embeddings
    assert untied.lm_head.weight.data_ptr() != untied.model.embed_tokens.weight.data_ptr()
