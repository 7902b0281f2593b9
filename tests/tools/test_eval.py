"""`rlhf eval`: its numbers against plain transformers, and against votes counted by hand."""

import json
import math
from pathlib import Path

import pytest
import torch
from tiny import Tiny, write_rows
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf_cli.algo.metrics import wilson_interval
from rlhf_cli.cli import main
from rlhf_cli.preference.ballots import Vote
from rlhf_cli.preference.store import Response, Store
from rlhf_cli.records import Prompt


@pytest.fixture
def rlhf(capsys, work):
    def call(*arguments: object, code: int = 0) -> str:
        assert main(["eval", *map(str, arguments)]) == code
        streams = capsys.readouterr()
        return streams.out if code == 0 else streams.err

    return call


def rows_of(path: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_perplexity_is_that_of_plain_transformers(tiny: Tiny, runs: Path, rlhf):
    """Row by row, without batches: mean cross-entropy of the completion and its EOS, given the prompt."""
    tokenizer = AutoTokenizer.from_pretrained(runs / "sft/model")
    model = AutoModelForCausalLM.from_pretrained(runs / "sft/model", dtype=torch.float32)
    total, num_tokens = 0.0, 0
    for row in rows_of(tiny.demonstrations):
        prompt = tokenizer(row["prompt"]).input_ids
        ids = torch.tensor([prompt + tokenizer(row["completion"]).input_ids + [tokenizer.eos_token_id]])
        with torch.no_grad():
            logprobs = model(ids).logits.log_softmax(-1)
        for t in range(len(prompt), ids.shape[1]):
            total -= float(logprobs[0, t - 1, ids[0, t]])
            num_tokens += 1
    record = json.loads(rlhf("perplexity", runs / "sft", "--data", tiny.demonstrations, "--json"))
    (found,) = record["sources"]
    assert (found["rows"], found["tokens"]) == (12, num_tokens)
    assert found["loss"]["value"] == pytest.approx(total / num_tokens, rel=1e-5)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(total / num_tokens), rel=1e-5)
    assert found["perplexity"]["low"] < found["perplexity"]["value"] < found["perplexity"]["high"]


def test_sources_are_told_apart_and_together(tiny: Tiny, runs: Path, rlhf):
    arguments = ("perplexity", runs / "sft", "--data", tiny.demonstrations, "--data", tiny.comparisons)
    one, other, together = json.loads(rlhf(*arguments, "--json"))["sources"]
    assert one["loss"]["value"] == pytest.approx(other["loss"]["value"])  # the same answers, as chosen ones
    assert together["tokens"] == one["tokens"] + other["tokens"]
    assert "perplexity" in rlhf(*arguments).splitlines()[0]


def test_reward_accuracy_is_that_of_plain_transformers(tiny: Tiny, runs: Path, rlhf, work):
    tokenizer = AutoTokenizer.from_pretrained(runs / "train-rm/model")
    model = AutoModelForSequenceClassification.from_pretrained(runs / "train-rm/model", dtype=torch.float32)
    rows = rows_of(tiny.comparisons)
    rows = [row if i % 3 else row | {"chosen": row["rejected"], "rejected": row["chosen"]}
            for i, row in enumerate(rows)]  # fmt: skip

    def score(row: dict[str, str], side: str) -> float:
        ids = tokenizer(row["prompt"]).input_ids + tokenizer(row[side]).input_ids + [tokenizer.eos_token_id]
        with torch.no_grad():
            return float(model(torch.tensor([ids])).logits[0, 0])

    margins = [score(row, "chosen") - score(row, "rejected") for row in rows]
    right = sum(margin > 0 for margin in margins)
    ties = [rows[0] | {"p_chosen": 0.5}]
    path = write_rows(work / "pairs.jsonl", rows + ties)
    (found,) = json.loads(rlhf("reward", runs / "train-rm", "--data", path, "--json"))["sources"]
    assert (found["pairs"], found["ties"]) == (12, 1)
    assert found["accuracy"]["value"] == right / 12
    assert [found["accuracy"]["low"], found["accuracy"]["high"]] == pytest.approx(wilson_interval(right, 12))
    assert found["margin"] == pytest.approx(sum(margins) / 12, rel=1e-4)

    def num_tokens(row: dict[str, str], side: str) -> int:
        return len(tokenizer(row[side]).input_ids)

    pairs = zip(margins, rows, strict=True)
    longer = [m > 0 for m, row in pairs if num_tokens(row, "chosen") > num_tokens(row, "rejected")]
    assert found["accuracy_by_length"][0]["value"] == sum(longer) / len(longer)
    # Calibration, bin by bin: how sure the model is of the answer it prefers, and how often that is the chosen one.
    sure = [1 / (1 + math.exp(-abs(margin))) for margin in margins]
    bins: dict[int, list[int]] = {}
    for i, p in enumerate(sure):
        bins.setdefault(min(9, int((p - 0.5) * 20)), []).append(i)
    error = sum(abs(sum((margins[i] > 0) - sure[i] for i in members)) for members in bins.values()) / 12
    assert found["calibration_error"] == pytest.approx(error, abs=1e-5)
    assert sum(it["count"] for it in found["calibration"]) == 12
    page = rlhf("reward", runs / "train-rm", "--data", path, "--data", path)
    assert "2 ties are left out" in page
    assert "calibration on all" in page


def test_kl_is_that_of_whole_distributions(tiny: Tiny, runs: Path, rlhf, work):
    """At temperature 0 the answers are known; the KL at each of their tokens is summed over the vocabulary."""
    greedy = ("--set", "temperature=0", "--set", "max_new_tokens=6")
    found = json.loads(rlhf("kl", runs / "sft", tiny.model, "--prompts", tiny.prompts, *greedy, "--json"))
    tokenizer = AutoTokenizer.from_pretrained(tiny.model)
    mine = AutoModelForCausalLM.from_pretrained(runs / "sft/model", dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(tiny.model, dtype=torch.float32)
    total, num_tokens = 0.0, 0
    for row in rows_of(tiny.prompts):
        prompt = tokenizer(row["prompt"], return_tensors="pt").input_ids
        answer = mine.generate(prompt, do_sample=False, max_new_tokens=6)
        with torch.no_grad():
            p, q = (m(answer).logits[0, prompt.shape[1] - 1 : -1].log_softmax(-1) for m in (mine, theirs))
        total += float((p.exp() * (p - q)).sum())
        num_tokens += len(p)
    assert (found["answers"], found["tokens"]) == (12, num_tokens)
    assert found["kl_per_answer"]["value"] == pytest.approx(total / 12, rel=1e-4)
    assert found["kl_per_token"]["value"] == pytest.approx(total / num_tokens, rel=1e-4)
    same = json.loads(rlhf("kl", runs / "sft", runs / "sft", "--prompts", tiny.prompts, *greedy, "--json"))
    assert same["kl_per_answer"]["value"] == pytest.approx(0.0, abs=1e-6)


def fill(folder: Path, winners: str, *, candidates: tuple[int, int] = (0, 1)) -> Path:
    """Write a collect run: prompt k has answers of lengths 2 and 1; `winners` holds 1, 2, t(ie) or s(kip)."""
    folder.mkdir()
    words = {"1": "1", "2": "2", "t": "tie", "s": "skip"}
    with Store(folder / "collect.db") as store:
        store.add_prompts([Prompt(f"prompt {k}", "p") for k in range(len(winners) + 1)])
        for side, candidate in enumerate(candidates):
            sample = side if candidates[0] == candidates[1] else 0
            store.add_responses(
                Response(k + 1, candidate, sample, f"model-{candidate}", "d", 1.0, 1.0, 0, "stop", text)
                for k, text in enumerate(["ab" if side == 0 else "c"] * len(winners) + ["same"])
            )
        slots = [(c, s if candidates[0] == candidates[1] else 0) for s, c in enumerate(candidates)]
        store.add_pairs(store.unpaired(*slots))
        store.add_labeler("ann", "human", {})
        for pair_id, winner in enumerate(winners, 1):
            vote = Vote(pair_id=pair_id, labeler="ann", winner=words[winner], first=1)
            store.vote(vote, key=str(pair_id))
    return folder


def test_wins_are_the_votes_of_a_collect_run(rlhf, work):
    run = fill(work / "collect", "1112t s".replace(" ", ""))
    found = json.loads(rlhf("wins", run, "--json"))
    # Three wins, a loss, a tie, and the two identical answers as another tie: (3 + 0.5 + 0.5) / 6.
    assert (found["a"], found["b"], found["judges"]) == ("model-0", "model-1", ["ann"])
    assert [found[name] for name in ("comparisons", "wins", "ties", "losses", "left_out")] == [6, 3, 2, 1, 1]
    assert found["win_rate"]["value"] == pytest.approx(4 / 6)
    assert found["win_rate"]["low"] < 4 / 6 < found["win_rate"]["high"]
    assert found["mean_length_difference"] == pytest.approx(5 / 6)
    page = rlhf("wins", run)
    assert "win rate of A        0.667 [" in page
    assert "1 pairs say nothing" in page


def test_wins_of_one_candidate_alone_are_refused(rlhf, work):
    assert "two entries" in rlhf("wins", fill(work / "collect", "1", candidates=(0, 0)), code=65)
    assert "voted" in rlhf("wins", fill(work / "empty", "s"), code=65)
    assert "no collect run" in rlhf("wins", work, code=66)
    assert "--prompts and --by" in rlhf("wins", "a", "b", code=2)


def test_wins_by_a_reward_model(tiny: Tiny, runs: Path, rlhf):
    arguments = ("--prompts", tiny.prompts, "--by", runs / "train-rm", "--set", "max_new_tokens=8")
    ahead = json.loads(rlhf("wins", runs / "sft", tiny.model, *arguments, "--json"))
    behind = json.loads(rlhf("wins", tiny.model, runs / "sft", *arguments, "--json"))
    assert ahead["win_rate"]["value"] == pytest.approx(1 - behind["win_rate"]["value"])
    assert (ahead["wins"], ahead["losses"]) == (behind["losses"], behind["wins"])
    assert ahead["wins"] + ahead["losses"] + ahead["ties"] == 12
    same = json.loads(rlhf("wins", runs / "sft", runs / "sft", *arguments, "--json"))
    assert same["ties"] == 12  # the same model, the same random numbers


def test_rows_that_do_not_fit_are_told(runs: Path, rlhf, work):
    path = write_rows(work / "long.jsonl", [{"prompt": "p" * 90, "completion": "a"}])
    assert "no row of" in rlhf("perplexity", runs / "sft", "--data", path, code=65)
    assert "no trained score head" in rlhf("reward", runs / "sft", "--data", path, code=65)
