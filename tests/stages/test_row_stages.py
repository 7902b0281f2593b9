"""sft, train-rm and dpo: what each of them learns, and numbers it leaves for later stages."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tiny import ANSWERS, PROMPTS, WRONG, Tiny, column, metrics_of, run_stage, write_rows
from transformers import AutoModelForSequenceClassification

from rlhf_cli.config.sections import Model
from rlhf_cli.data.batches import collate
from rlhf_cli.data.encode import EncodedText
from rlhf_cli.models import heads
from rlhf_cli.models.heads import last_token_scores, load_reward_model, read_score_scale
from rlhf_cli.models.load import LoadedModel, load_policy_for_sampling, load_vocabulary
from rlhf_cli.models.scoring import labelled_logprobs, row_of_label
from rlhf_cli.rollout.engine import Sampling
from rlhf_cli.rollout.transformers_engine import TransformersEngine
from rlhf_cli.stages import dpo

# peft asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

PROMPT_ROWS = list(zip(PROMPTS, ANSWERS, WRONG, strict=True))


def rows_of(tiny: Tiny, texts: list[tuple[str, str]]) -> list[EncodedText]:
    """Encode prompts and completions the slow and obvious way."""
    tokenizer = load_vocabulary(Model(path=tiny.model)).tokenizer
    rows = []
    for prompt, completion in texts:
        head = tokenizer(prompt)["input_ids"]
        tail = [*tokenizer(completion)["input_ids"], tokenizer.eos_token_id]
        rows.append(
            EncodedText([*head, *tail], [False] * len(head) + [True] * len(tail), len(head), completion)
        )
    return rows


def sum_logprobs(loaded: LoadedModel, rows: list[EncodedText]) -> torch.Tensor:
    batch = collate(rows, loaded.vocabulary.pad_id)
    with torch.no_grad():
        flat = labelled_logprobs(loaded.model, batch.input_ids, batch.attention_mask, batch.loss_mask)
    return torch.zeros(len(rows)).index_add(0, row_of_label(batch.loss_mask), flat)


def test_sft_learns_rows_by_heart(tiny: Tiny, work: Path):
    changes = {"train__max_steps": 60, "optim__lr": 0.01, "log__every_steps": 10, "train__batch_size": 12}
    run = run_stage("sft", tiny.settings("sft", **changes), work)
    losses = column(run.dir, "loss")
    assert losses[-1] < 0.1 < 3 < losses[0]
    loaded = load_policy_for_sampling("sft")
    rows = rows_of(tiny, [(prompt, answer) for prompt, answer, _ in PROMPT_ROWS])
    engine = TransformersEngine(loaded.model, loaded.vocabulary.pad_id, chunk_size=12, autocast=torch.no_grad)
    sampling = Sampling(0.0, 1.0, 8, loaded.vocabulary.stop_ids)
    answers = engine.generate([row.input_ids[: row.num_prompt] for row in rows], sampling, range(len(rows)))
    assert [list(answer.token_ids) for answer in answers] == [row.input_ids[row.num_prompt :] for row in rows]
    assert all(answer.finished for answer in answers)


def test_sft_loss_is_the_token_mean_of_the_whole_step(tiny: Tiny, work: Path):
    changes = {"train__batch_size": 12, "train__max_steps": 1, "train__micro_tokens": 30}
    run = run_stage("sft", tiny.settings("sft", **changes), work)
    rows = rows_of(tiny, [(prompt, answer) for prompt, answer, _ in PROMPT_ROWS])
    logprobs = sum_logprobs(load_policy_for_sampling(tiny.model), rows)
    num_tokens = sum(len(row.input_ids) - row.num_prompt for row in rows)
    assert column(run.dir, "loss") == pytest.approx([float(-logprobs.sum() / num_tokens)], abs=1e-5)


def test_sft_from_scratch_makes_model_and_tokenizer(tiny: Tiny, work: Path):
    text = write_rows(work / "text.jsonl", [{"text": f"{p}{a}"} for p, a, _ in PROMPT_ROWS])
    shape = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 280, "max_positions": 64}
    changes = {"model": {"from_scratch": shape}, "data__train": [{"path": text}], "loss__on": "all"}
    run = run_stage("sft", tiny.settings("sft", **changes), work)
    assert column(run.dir, "loss")[-1] < column(run.dir, "loss")[0]
    loaded = load_policy_for_sampling("sft")
    assert loaded.model.config.hidden_size == 16
    assert len(loaded.vocabulary.tokenizer) == 280


def test_train_rm_ranks_the_pairs(tiny: Tiny, work: Path):
    run = run_stage("train-rm", tiny.settings("train-rm", train__max_steps=12, train__batch_size=12), work)
    losses = column(run.dir, "loss")
    assert losses[-1] < 0.05 < 0.4 < losses[0]
    assert column(run.dir, "accuracy")[-1] == 1.0
    chosen, rejected = (scores_of(tiny, side) for side in (1, 2))
    assert (chosen > rejected).all()


def scores_of(tiny: Tiny, side: int, path: str = "train-rm") -> torch.Tensor:
    """Score one side of the pairs with plain transformers, one row at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(f"{path}/model")
    assert model.config.num_labels == 1
    rows = rows_of(tiny, [(pair[0], pair[side]) for pair in PROMPT_ROWS])
    with torch.no_grad():
        return torch.cat([model(input_ids=torch.tensor([row.input_ids])).logits[:, 0] for row in rows])


@pytest.mark.parametrize("lora", [None, {"rank": 4, "dropout": 0.5}], ids=["full", "lora"])
def test_train_rm_stores_the_scale_of_its_scores(lora: object, tiny: Tiny, work: Path):
    run_stage("train-rm", tiny.settings("train-rm", model__lora=lora), work)
    scores = torch.cat([scores_of(tiny, 1), scores_of(tiny, 2)])
    scale = read_score_scale("train-rm")
    assert scale is not None
    assert scale.mean == pytest.approx(float(scores.mean()), abs=1e-5)
    assert scale.std == pytest.approx(float(scores.std()), abs=1e-5)
    reward_model = load_reward_model("train-rm")
    loaded = reward_model.loaded
    assert reward_model.scale == scale
    batch = collate(rows_of(tiny, [(p, a) for p, a, _ in PROMPT_ROWS]), loaded.vocabulary.pad_id)
    with torch.no_grad():
        inside = last_token_scores(loaded.model, batch.input_ids, batch.attention_mask)
    assert torch.allclose(inside, scores[: len(PROMPTS)], atol=1e-5)


def test_the_first_reward_loss_is_that_of_the_new_head(tiny: Tiny, work: Path):
    """Bradley-Terry by hand: mean of -log sigmoid(chosen - rejected)."""
    changes = {"train__batch_size": 12, "train__max_steps": 1}
    run = run_stage("train-rm", tiny.settings("train-rm", **changes), work)
    section = Model(path=tiny.model)
    loaded = heads.load_classifier(section, load_vocabulary(section), new_head_seed=0)
    loaded.model.eval()
    sides = []
    for side in (1, 2):
        rows = rows_of(tiny, [(pair[0], pair[side]) for pair in PROMPT_ROWS])
        batch = collate(rows, loaded.vocabulary.pad_id)
        with torch.no_grad():
            sides.append(last_token_scores(loaded.model, batch.input_ids, batch.attention_mask))
    expected = -(sides[0] - sides[1]).sigmoid().log().mean()
    assert column(run.dir, "loss") == pytest.approx([float(expected)], abs=1e-5)


def test_ties_are_left_out_or_pull_towards_zero(tiny: Tiny, work: Path):
    rows = [
        {"prompt": p, "chosen": a, "rejected": w, "p_chosen": 0.5 if i % 2 else 1.0}
        for i, (p, a, w) in enumerate(PROMPT_ROWS)
    ]
    path = write_rows(work / "ties.jsonl", rows)
    kept = {}
    for ties in ("drop", "soft"):
        changes = {"run_dir": ties, "data__train": [{"path": path}], "loss__ties": ties}
        run = run_stage("train-rm", tiny.settings("train-rm", **changes), work)
        [report] = json.loads(run.dir.data_report.read_text())
        kept[ties] = report["rows_kept"]
    assert kept == {"drop": 6, "soft": 12}


def test_dpo_prefers_the_chosen_and_keeps_the_reference(tiny: Tiny, work: Path):
    run = run_stage("dpo", tiny.settings("dpo", train__max_steps=10, train__batch_size=12), work)
    losses = column(run.dir, "loss")
    assert losses[0] == pytest.approx(0.693147, abs=1e-4)  # policy and reference are still the same
    assert column(run.dir, "margin")[0] == pytest.approx(0.0, abs=1e-4)
    assert losses[-1] < 0.3
    assert column(run.dir, "accuracy")[-1] == 1.0
    margins = torch.zeros(len(PROMPTS))
    for sign, side in ((1, 1), (-1, 2)):
        rows = rows_of(tiny, [(pair[0], pair[side]) for pair in PROMPT_ROWS])
        gain = sum_logprobs(load_policy_for_sampling("dpo"), rows)
        margins += sign * 0.1 * (gain - sum_logprobs(load_policy_for_sampling(tiny.model), rows))
    assert (margins > 0).all()
    assert float(margins.mean()) > column(run.dir, "margin")[-1] * 0.9


@pytest.mark.parametrize("lora", [None, {"rank": 4}], ids=["full", "lora"])
def test_dpo_resumed_still_holds_to_the_model_it_began_with(
    lora: object, tiny: Tiny, work: Path, monkeypatch
):
    settings = tiny.settings("dpo", model__lora=lora, train__max_steps=6)
    run_stage("dpo", settings | {"run_dir": "straight"}, work)
    objective, calls = dpo.Learner.objective, []

    def break_down(self: dpo.Learner, batch: object) -> object:
        calls.append(batch)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return objective(self, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(dpo.Learner, "objective", break_down)
        with pytest.raises(KeyboardInterrupt):
            run_stage("dpo", settings, work)
    for cached in (work / "dpo" / "cache").iterdir():
        cached.unlink()  # it can be computed again
    run = run_stage("dpo", settings, work)
    assert run.manifest.attempts[-1].resumed_from_step is not None
    one, other = ((work / name / "model" / "model.safetensors").read_bytes() for name in ("dpo", "straight"))
    assert one == other
    assert metrics_of(run.dir) == metrics_of(dataclasses.replace(run.dir, root=work / "straight"))


def test_dpo_with_another_reference(tiny: Tiny, work: Path):
    run_stage("sft", tiny.settings("sft"), work)
    run = run_stage("dpo", tiny.settings("dpo", reference="sft"), work)
    assert {parent.role for parent in run.manifest.parents} == {"model", "reference"}
    assert column(run.dir, "margin")[0] != pytest.approx(0.0, abs=1e-3)


def test_dpo_losses_over_a_whole_batch_see_the_whole_batch(tiny: Tiny, work: Path):
    seen = []
    for micro_tokens in (16, 4096):
        changes = {"run_dir": f"run{micro_tokens}", "train__micro_tokens": micro_tokens, "loss__type": "aot"}
        run = run_stage("dpo", tiny.settings("dpo", **changes), work)
        seen.append((run.dir.model / "model.safetensors").read_bytes())
    assert seen[0] == seen[1]
