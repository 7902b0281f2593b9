"""Loading as a whole: defaults, origins, round trip, digest, no heavy imports, nothing but named errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_cli.config.load import LoadedConfig, differing_keys, load_config, render_resolved
from rlhf_cli.config.stages import STAGES
from rlhf_cli.errors import ConfigError, MissingInputError

SHARED = "run_dir: runs/a\nmodel: {path: gpt2}\ndata: {train: [{path: a.jsonl}]}\n"
SMALLEST = {
    "sft": SHARED,
    "train-rm": SHARED,
    "dpo": SHARED,
    "ppo": SHARED + "reward: [{kind: model, path: runs/rm}]\n",
    "collect": "run_dir: runs/a\nprompts: [{path: p.jsonl}]\ncandidates: [{path: runs/sft}]\n",
}
RICH = """\
run_dir: "runs/\\u00e9\\U0001f600: #1"
seed: 7
model:
  path: "$${HOME}/x"
  revision: "0123456"
  lora: {rank: 4, target: [q_proj, "null", "1e5"]}
data:
  train:
    - {path: a b.jsonl, columns: {prompt: question, "true": "- x"}, weight: 2}
    - {path: "b\\n\\t\\"\\\\\\e.jsonl", format: hh, limit: 5}
  eval: [{path: "${env:HELD_OUT:-c.jsonl}"}]
reward:
  - {kind: model, path: runs/rm}
  - {kind: regex, pattern: "^(no|yes)$", weight: -0.5}
  - {kind: function, function: "rewards.py:short"}
optim: {betas: [0.8, 0.99], lr: 3e-7}
ppo: {kl: {target: 6.0}}
"""


def load(tmp_path: Path, stage: str, text: str, *overrides: str, run_dir: str | None = None) -> LoadedConfig:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(stage, path, overrides, run_dir)


@pytest.mark.parametrize("stage", STAGES)
def test_smallest_file(tmp_path, stage):
    loaded = load(tmp_path, stage, SMALLEST[stage])
    assert type(loaded.config) is STAGES[stage]
    assert loaded.config.run_dir == "runs/a"
    assert loaded.config.seed == 0
    assert loaded.source_text == SMALLEST[stage]


def test_defaults(tmp_path):
    sft = load(tmp_path, "sft", SHARED).config
    assert (sft.optim.lr, sft.optim.betas, sft.optim.eps) == (1e-5, (0.9, 0.95), 1e-8)
    assert (sft.train.batch_size, sft.train.micro_tokens, sft.loss.on) == (64, "auto", "completion")
    ppo = load(tmp_path, "ppo", SMALLEST["ppo"], "optim.weight_decay=0.1").config
    assert (ppo.optim.lr, ppo.optim.eps, ppo.optim.weight_decay) == (3e-6, 1e-5, 0.1)
    assert (ppo.ppo.kl.coef, ppo.ppo.lam, ppo.critic.init) == (0.05, 0.95, "reward")
    assert load(tmp_path, "collect", SMALLEST["collect"]).config.labeler.kind == "terminal"


def test_configurations_cannot_be_changed(tmp_path):
    config = load(tmp_path, "sft", SHARED).config
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_origins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("optim:\n  betas: [0.9,\n    0.99]\n  lr: 1\nseed: 1\n")
    Path("a.yaml").write_text("extends: base.yaml\n" + SHARED + "seed: 2\n")
    loaded = load_config("sft", Path("a.yaml"), ["optim.eps=1", "data.train.1.path=b"], "runs/b")
    origins = loaded.origins
    assert origins["optim.betas"] == "base.yaml:2"
    assert origins["optim.lr"] == "base.yaml:4"
    assert origins["seed"] == "a.yaml:5"
    assert origins["optim.eps"] == "--set"
    assert origins["data.train.0.path"] == "a.yaml:4"
    assert origins["data.train.1.path"] == "--set"
    assert origins["data.train.1.weight"] == "default"
    assert origins["data.train.0.columns"] == "default"
    assert origins["run_dir"] == "--run-dir"
    assert origins["model.lora"] == "default"


@pytest.mark.parametrize("stage", STAGES)
def test_round_trip_of_defaults(tmp_path, stage):
    loaded = load(tmp_path, stage, SMALLEST[stage])
    again = load(tmp_path, stage, render_resolved(loaded))
    assert again.tree == loaded.tree
    assert again.digest == loaded.digest
    assert "default" not in again.origins.values()


def test_round_trip_of_awkward_text(tmp_path):
    loaded = load(tmp_path, "ppo", RICH)
    assert loaded.tree["model"]["path"] == "${HOME}/x"
    assert loaded.tree["data"]["train"][1]["path"] == 'b\n\t"\\\x1b.jsonl'
    again = load(tmp_path, "ppo", render_resolved(loaded))
    assert again.tree == loaded.tree
    assert again.config == loaded.config


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(run_dir=TEXT, columns=st.dictionaries(TEXT, TEXT, max_size=3), lr=st.floats(1e-300, 1e300))
def test_round_trip_of_any_text(tmp_path, run_dir, columns, lr):
    path = tmp_path / "a.yaml"
    tree = {
        "run_dir": run_dir.replace("${", "$${"),
        "model": {"path": "m"},
        "data": {
            "train": [{"path": "p", "columns": {k: v.replace("${", "$${") for k, v in columns.items()}}]
        },
        "optim": {"lr": lr},
    }
    path.write_text(json.dumps(tree), encoding="utf-8")
    loaded = load_config("sft", path)
    assert loaded.tree["run_dir"] == run_dir
    assert loaded.tree["data"]["train"][0]["columns"] == columns
    path.write_text(render_resolved(loaded), encoding="utf-8")
    assert load_config("sft", path).tree == loaded.tree


def test_render_layout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(SHARED)
    lines = render_resolved(load_config("sft", Path("a.yaml"), ["data.train.0.columns={prompt: q}"])).split(
        "\n"
    )
    assert lines[0] == "# rlhf sft, resolved from a.yaml"
    assert lines[1] == "run_dir: runs/a".ljust(44) + "  # a.yaml:1"
    start = lines.index("data:")
    assert lines[start : start + 5] == [
        "data:",
        "  train:",
        "    - path: a.jsonl".ljust(44) + "  # a.yaml:3",
        "      format: auto".ljust(44) + "  # default",
        "      columns:",
    ]
    assert lines[start + 5] == "        prompt: q".ljust(44) + "  # --set"


def test_digest_ignores_what_cannot_change_the_result(tmp_path):
    digest = load(tmp_path, "sft", SHARED).digest
    assert (
        load(tmp_path, "sft", SHARED, "log.every_steps=3", "checkpoint.keep=9", run_dir="b").digest == digest
    )
    assert load(tmp_path, "sft", SHARED, "optim.lr=1.0e-5").digest == digest
    assert load(tmp_path, "sft", SHARED, "checkpoint.every_steps=3").digest != digest
    assert load(tmp_path, "sft", SHARED, "seed=1").digest != digest
    assert len(digest) == 64


def test_a_run_may_go_on_with_a_rollout_server_elsewhere(tmp_path):
    server = ["rollout.engine=vllm", "rollout.url=http://a:1"]
    digest = load(tmp_path, "ppo", SMALLEST["ppo"], *server).digest
    moved = ["rollout.engine=vllm", "rollout.url=http://b:2", "rollout.timeout_seconds=9"]
    assert load(tmp_path, "ppo", SMALLEST["ppo"], *moved).digest == digest
    assert load(tmp_path, "ppo", SMALLEST["ppo"], *server, "rollout.tolerance=0.1").digest != digest
    assert load(tmp_path, "ppo", SMALLEST["ppo"]).digest != digest


def test_whole_number_for_a_float_is_the_same_configuration(tmp_path):
    one = load(tmp_path, "sft", SHARED, "optim.clip_norm=2")
    assert one.digest == load(tmp_path, "sft", SHARED, "optim.clip_norm=2.0").digest
    assert type(one.config.optim.clip_norm) is float


def test_differing_keys(tmp_path):
    old = load(tmp_path, "sft", SHARED).tree
    new = load(
        tmp_path,
        "sft",
        SHARED,
        "optim.lr=3e-5",
        "model.lora={}",
        "data.train.0.path=b",
        "optim.betas=[0.9, 0.99]",
    ).tree
    assert differing_keys(old, old) == []
    assert differing_keys(old, new) == [
        "model.lora: null -> {rank: 16, alpha: 32.0, dropout: 0.0, target: all-linear}",
        "data.train.0.path: a.jsonl -> b",
        "optim.lr: 1e-05 -> 3e-05",
        "optim.betas: [0.9, 0.95] -> [0.9, 0.99]",
    ]
    assert differing_keys({"a": 1}, {"b": True}) == ["a: 1 -> (absent)", "b: (absent) -> true"]
    assert differing_keys({"a": 1}, {"a": True}) == ["a: 1 -> true"]


WORDS = "&a ,*a,<<: *a,!!x ,${env:,null,1e999,012,true,---,: ,- ,  ".split(",")
FRAGMENTS = st.sampled_from([*WORDS, *"\t\n[]{}'\"#|>?\0\ud7ff\\%@,\r\x85\ufeff"])


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from([*SMALLEST.values(), RICH]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        stop = draw(st.integers(start, min(len(text), start + 8)))
        text = text[:start] + draw(FRAGMENTS | st.text(max_size=4)) + text[stop:]
    return text


def outcome(stage: str, path: Path, overrides: list[str]) -> str:
    try:
        return load_config(stage, path, overrides).digest
    except (ConfigError, MissingInputError) as error:
        return str(error)


OVERRIDES = st.lists(
    st.tuples(st.sampled_from(["", "a", "seed", "data.train.0", "optim.lr", "x.0.y"]), st.text())
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stage=st.sampled_from(list(STAGES)), text=mutated(), overrides=OVERRIDES)
def test_mutated_files_give_only_named_errors(tmp_path, stage, text, overrides):
    path = tmp_path / "a.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    sets = [f"{key}={value}" for key, value in overrides]
    first = outcome(stage, path, sets)
    assert first
    assert first == outcome(stage, path, sets)


def test_loading_imports_nothing_heavy(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(SMALLEST["ppo"])
    code = (
        "import sys; from pathlib import Path; from rlhf_cli.config.load import load_config, render_resolved;"
        "from rlhf_cli.config.schema import json_schema; json_schema('ppo');"
        "render_resolved(load_config('ppo', Path(sys.argv[1])));"
        "print(sorted({'torch', 'transformers', 'datasets', 'pandas', 'numpy', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
