"""What all training stages promise: whole run directories, models that load anywhere, exact micro-batches."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny import PROMPTS, Tiny, column, metrics_of, run_stage
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from rlhf_cli.config.sections import Model
from rlhf_cli.models.heads import last_token_scores, load_reward_model
from rlhf_cli.models.load import load_policy_for_sampling, load_vocabulary
from rlhf_cli.models.scoring import labelled_logprobs
from rlhf_cli.run.directory import RunDir
from rlhf_cli.run.session import Run

# peft asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

STAGES = ["sft", "train-rm", "dpo", "ppo"]
LORA = {"rank": 4, "alpha": 16.0}

every_stage = pytest.mark.parametrize("stage", STAGES)


@pytest.fixture(scope="module", params=STAGES)
def finished(request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short run of each stage, by itself."""
    stage: str = request.param
    return run_stage(stage, tiny.settings(stage, eval__every_steps=2), tmp_path_factory.mktemp(stage))


@pytest.fixture(scope="module", params=STAGES)
def adapted(request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same with adapters."""
    stage: str = request.param
    settings = tiny.settings(stage, model__lora=LORA, optim__lr=0.02)
    return run_stage(stage, settings, tmp_path_factory.mktemp(f"{stage}-lora"))


def some_ids() -> tuple[torch.Tensor, torch.Tensor]:
    """Give rows of token ids of two lengths, padded with id 1, and their attention mask."""
    ids = torch.randint(2, 290, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    ids[2, 9:], mask[2, 9:] = 1, 0
    return ids, mask


def outputs(model: PreTrainedModel, *, is_reward: bool) -> torch.Tensor:
    """Give the scores of the rows above, or the log-probs of all their tokens."""
    ids, mask = some_ids()
    model.eval()
    with torch.no_grad():
        if is_reward:
            return last_token_scores(model, ids, mask)
        return labelled_logprobs(model, ids, mask, mask.bool())


def load_final(run: Run) -> PreTrainedModel:
    if run.stage == "train-rm":
        return load_reward_model(str(run.dir.root)).loaded.model
    return load_policy_for_sampling(str(run.dir.root)).model


def test_the_run_directory_is_whole(finished: Run, tiny: Tiny):
    run_dir = finished.dir
    manifest = json.loads(run_dir.manifest.read_text())
    assert (manifest["status"], manifest["exit_code"]) == ("completed", 0)
    assert manifest["stage"] == finished.stage
    assert manifest["result"]["artifact"] == "model"
    assert manifest["result"]["steps"] == 4
    assert {parent["role"]: parent["path"] for parent in manifest["parents"]}["model"] == tiny.model
    assert [row["step"] for row in metrics_of(run_dir)] == [1, 2, 3, 4]
    kinds = [json.loads(line)["kind"] for line in run_dir.events.read_text().splitlines()]
    scored = ["reference"] if finished.stage == "dpo" else []
    assert kinds == ["started", *scored, "training", "checkpointed", "checkpointed", "ended"]
    assert sorted(path.name for path in run_dir.checkpoints.iterdir()) == ["step-000002", "step-000004"]
    [report] = json.loads(run_dir.data_report.read_text())
    assert (report["rows_read"], report["rows_kept"]) == (12, 12)
    assert PROMPTS[0] in run_dir.samples.read_text()
    for path in (run_dir.config, run_dir.resolved, run_dir.log, run_dir.report):
        assert path.stat().st_size > 0
    files = {path.name for path in run_dir.model.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= files
    assert ("generation_config.json" in files) == (finished.stage != "train-rm")
    assert not run_dir.adapter.exists()
    leftovers = [path.name for path in run_dir.root.iterdir() if path.name.startswith(".")]
    assert leftovers in ([], [".lock"])


def test_the_final_model_is_the_newest_checkpoint(finished: Run):
    saved = load_file(finished.dir.model / "model.safetensors")
    role = "reward" if finished.stage == "train-rm" else "policy"
    newest = load_file(finished.dir.checkpoints / "step-000004" / "model.safetensors")
    trained = {
        name.removeprefix(f"{role}."): value for name, value in newest.items() if name.startswith(role)
    }
    assert trained.keys() == saved.keys()
    assert all(torch.equal(saved[name], value) for name, value in trained.items())


def test_training_moved_every_weight(finished: Run, tiny: Tiny):
    before = load_file(Path(tiny.model) / "model.safetensors")
    after = load_file(finished.dir.model / "model.safetensors")
    assert all(not torch.equal(after[name], value) for name, value in before.items())


PLAIN = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

answers = {}
for kind, path in (argument.split("=") for argument in sys.argv[2:]):
    request = json.load(open(sys.argv[1]))
    ids, mask = torch.tensor(request["ids"]), torch.tensor(request["mask"])
    auto = AutoModelForSequenceClassification if kind == "train-rm" else AutoModelForCausalLM
    model, tokenizer = auto.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id and tokenizer.chat_template
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits
    if kind == "train-rm":
        assert model.config.num_labels == 1
        answers[kind] = logits[:, 0].tolist()
    else:
        assert model.generation_config.eos_token_id == [tokenizer.eos_token_id]
        logprobs = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        answers[kind] = logprobs[mask[:, 1:].bool()].tolist()
print(json.dumps(answers))
"""


def test_plain_transformers_in_another_process_gives_the_same(tiny: Tiny, work: Path):
    runs = {stage: run_stage(stage, tiny.settings(stage), work) for stage in STAGES}
    ids, mask = some_ids()
    (work / "request.json").write_text(json.dumps({"ids": ids.tolist(), "mask": mask.tolist()}))
    models = [f"{stage}={run.dir.model}" for stage, run in runs.items()]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, "request.json", *models], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    for stage, run in runs.items():
        expected = outputs(load_final(run), is_reward=stage == "train-rm")
        assert torch.allclose(torch.tensor(answers[stage]), expected, atol=1e-5)


def test_base_and_adapter_give_what_the_merged_model_gives(adapted: Run, tiny: Tiny):
    assert adapted.dir.adapter.exists()
    is_reward = adapted.stage == "train-rm"
    auto = AutoModelForSequenceClassification if is_reward else AutoModelForCausalLM
    settings = {"num_labels": 1, "pad_token_id": 1} if is_reward else {}
    base = auto.from_pretrained(tiny.model, **settings)
    plain = outputs(base, is_reward=is_reward)
    wrapped = PeftModel.from_pretrained(base, str(adapted.dir.adapter))
    merged = outputs(load_final(adapted), is_reward=is_reward)
    assert torch.allclose(outputs(wrapped, is_reward=is_reward), merged, atol=1e-5)
    assert not torch.allclose(plain, merged, atol=1e-3)


def test_adapters_alone_are_in_the_checkpoint(adapted: Run):
    names = load_file(adapted.dir.checkpoints / "step-000004" / "model.safetensors")
    assert names
    assert all("lora_" in name or "score" in name for name in names)


def test_the_merged_model_has_the_shape_of_the_base(adapted: Run, tiny: Tiny):
    before = load_file(Path(tiny.model) / "model.safetensors")
    after = load_file(adapted.dir.model / "model.safetensors")
    assert {name for name in after if name != "score.weight"} == set(before)


@every_stage
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_micro_batches_do_not_change_the_weights(stage: str, lora: object, tiny: Tiny, work: Path):
    # A large eps: where a gradient is only rounding, Adam would follow the rounding.
    common = {"optim__eps": 1e-3, "model__lora": lora, "train__precision": "float32"}
    small = run_stage(stage, tiny.settings(stage, run_dir="small", train__micro_tokens=16, **common), work)
    large = run_stage(stage, tiny.settings(stage, run_dir="large", train__micro_tokens=4096, **common), work)
    one, other = (load_file(run.dir.model / "model.safetensors") for run in (small, large))
    worst = max(float((one[name] - other[name]).abs().max()) for name in one)
    assert worst < 1e-5
    for row, expected in zip(metrics_of(small.dir), metrics_of(large.dir), strict=True):
        # Of several answers to one prompt, small micro-batches read the prompt again.
        row["tokens"] = expected["tokens"] = 0
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-4)


@every_stage
def test_recomputed_activations_do_not_change_the_weights(stage: str, tiny: Tiny, work: Path):
    kept = run_stage(stage, tiny.settings(stage, run_dir="kept"), work)
    again = tiny.settings(stage, run_dir="again", train__gradient_checkpointing=True)
    one, other = (
        load_file(run.dir.model / "model.safetensors") for run in (kept, run_stage(stage, again, work))
    )
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


@every_stage
def test_the_same_seed_gives_the_same_bytes(stage: str, tiny: Tiny, work: Path):
    dropout = {} if stage in ("dpo", "ppo") else {"dropout": 0.1}
    changes = {"model__lora": LORA | dropout}
    runs = []
    for number, seed in enumerate((3, 3, 4)):
        torch.manual_seed(number)  # whatever happened before in this process
        settings = tiny.settings(stage, run_dir=f"run{number}", seed=seed, **changes)
        runs.append((run_stage(stage, settings, work).dir.model / "model.safetensors").read_bytes())
    assert runs[0] == runs[1] != runs[2]


@every_stage
def test_bfloat16_trains_weights_kept_in_float32(stage: str, tiny: Tiny, work: Path):
    run = run_stage(stage, tiny.settings(stage, train__precision="bfloat16"), work)
    assert all(abs(value) < 100 for value in column(run.dir, "loss"))
    saved = load_file(run.dir.model / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}


@every_stage
def test_held_out_rows_are_measured(stage: str, tiny: Tiny, work: Path):
    settings = tiny.settings(stage, data__eval_fraction=0.3, eval__every_steps=2)
    run = run_stage(stage, settings, work)
    table = metrics_of(run.dir)
    name = {"sft": "eval/loss", "train-rm": "eval/accuracy", "dpo": "eval/loss", "ppo": "eval/reward"}[stage]
    assert [row["step"] for row in table if name in row] == [0, 2, 4]
    names = [report["name"] for report in json.loads(run.dir.data_report.read_text())]
    assert names == ["train", "eval"]
    plain = run_stage(stage, settings | {"run_dir": "plain", "eval": {"every_steps": 1000}}, work)
    weights = [load_file(r.dir.model / "model.safetensors") for r in (run, plain)]
    assert all(torch.equal(weights[0][key], value) for key, value in weights[1].items())


@every_stage
def test_an_upstream_run_stands_for_its_model(stage: str, tiny: Tiny, work: Path):
    run_stage("sft", tiny.settings("sft", run_dir="first"), work)
    run = run_stage(stage, tiny.settings(stage, run_dir="second", model__path="first"), work)
    [parent] = [parent for parent in run.manifest.parents if parent.role == "model"]
    assert parent.path == "first"
    assert parent.digest == load_policy_for_sampling("first").digest
    vocabularies = [load_vocabulary(Model(path=path)) for path in ("first", "second", tiny.model)]
    assert len({json.dumps(v.tokenizer.get_vocab(), sort_keys=True) for v in vocabularies}) == 1
    assert RunDir(work / "second").model.exists()
