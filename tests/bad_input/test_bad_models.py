"""Model directories that are damaged, incomplete, of another kind, or not to be trusted."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from shell import Shell, json_lines
from tiny import Tiny

CHAT = json_lines(
    [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}] * 5
)
WEIGHTS = "model.safetensors"


def spoilt(tiny: Tiny, shell: Shell, spoil: Callable[[Path], object]) -> str:
    """Copy the tiny model and spoil the copy."""
    folder = shell.folder / "model"
    shutil.copytree(tiny.model, folder)
    spoil(folder)
    return "model"


def put(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(
        content.encode() if isinstance(content, str) else content
    )


def edit(name: str, **changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        kept = {key: value for key, value in (values | changes).items() if value is not None}
        (folder / name).write_text(json.dumps(kept))

    return change


def lose(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).unlink() for name in names]


def reweigh(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def rewrite(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return rewrite


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (put("config.json", "{"), 65, "config.json"),
        (put("config.json", "[]"), 65, "config.json"),
        (edit("config.json", model_type="blarg"), 65, "blarg"),
        (edit("config.json", model_type=None), 65, "model_type"),
        (edit("config.json", hidden_size="big"), 65, "hidden_size"),
        (edit("config.json", num_attention_heads=7), 65, "number of attention heads"),
        (put("tokenizer.json", "{"), 65, "tokenizer"),
        (put("tokenizer.json", '{"added_tokens": [], "model": {"type": "BPE"}}'), 65, "tokenizer"),
        (put("tokenizer_config.json", "{"), 65, "tokenizer"),
        (lose("tokenizer.json", "tokenizer_config.json"), 65, "tokenizer"),
        (edit("tokenizer_config.json", eos_token=None), 65, "no EOS token"),
        (put("generation_config.json", "{"), 65, "generation_config.json"),
        (edit("generation_config.json", eos_token_id="x"), 65, "'x' as an eos_token_id"),
        (lose("config.json"), 66, "neither a run"),
        (lose(WEIGHTS), 66, "no file named"),
        (put(WEIGHTS, b""), 65, "weights"),
        (put(WEIGHTS, "<html>" * 100), 65, "weights"),
        (put(WEIGHTS, "version https://git-lfs.github.com/spec/v1\nsize 3\n"), 65, "weights"),
        (lambda f: (lose(WEIGHTS)(f), put("pytorch_model.bin", b"\x80\x02cos\nsystem\n.")(f)), 65, "weights"),
        (reweigh(lambda w: w.pop("model.norm.weight")), 65, "lack 1 tensors"),
        (reweigh(lambda w: w["model.norm.weight"].fill_(torch.nan)), 65, "hold NaN or infinity: model.norm"),
        (reweigh(lambda w: w.update({"model.norm.weight": torch.ones(5)})), 65, "weights"),
        (put("manifest.json", "{"), 65, "is not the manifest of a run"),
        (put("manifest.json", '{"name": "mine"}'), 65, "is not the manifest of a run"),
        (put("model.safetensors.index.json", "[]"), 65, "is not an index of weights"),
        (put("model.safetensors.index.json", '{"weight_map": {"a": "../b"}}'), 65, "outside its folder"),
        (edit("config.json", architectures=["LlamaForSequenceClassification"]), 65, "is a reward model"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_used(
    spoil: Callable[[Path], object], code: int, says: str, shell: Shell, tiny: Tiny
):
    got, said = shell.run("sft", model__path=spoilt(tiny, shell, spoil))
    assert got == code, said
    assert says in said
    assert not Path("sft/model").exists()


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in %}",
        "{{ messages.foo.bar }}",
        "{{ raise_exception('no') }}",
        "{{ messages + 5 }}",
        "{{ 1 / 0 }}",
        "{% for a in range(99999999) %}{% endfor %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch pwned') }}",
        "{{ messages.append(1) }}",
        "",
    ],
)
def test_a_chat_template_that_fails_or_wants_out_of_its_sandbox(template: str, shell: Shell, tiny: Tiny):
    path = spoilt(tiny, shell, put("chat_template.jinja", template))
    code, _ = shell.read("sft", CHAT, model__path=path)
    assert code == 65
    assert not Path("pwned").exists()


@pytest.mark.parametrize(("template", "code"), [(None, 66), (b"\xff\xfe\x00", 65)])
def test_a_template_file_that_cannot_be_read(template: bytes | None, code: int, shell: Shell):
    if template is not None:
        (shell.folder / "chat.jinja").write_bytes(template)
    got, said = shell.read("sft", CHAT, model__chat_template="chat.jinja")
    assert got == code
    assert "chat.jinja" in said


def test_code_that_comes_with_a_model_is_not_run_unasked(shell: Shell, tiny: Tiny):
    own = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}

    def bring_code(folder: Path) -> None:
        edit("config.json", auto_map=own, model_type="mine")(folder)
        (folder / "code.py").write_text("open('pwned', 'w')\n")

    code, said = shell.run("sft", model__path=spoilt(tiny, shell, bring_code))
    assert code == 78
    assert "model.trust_remote_code" in said
    assert not Path("pwned").exists()


def test_no_template_and_pad_equal_to_eos_are_settled(shell: Shell, tiny: Tiny):
    def change(folder: Path) -> None:
        edit("tokenizer_config.json", pad_token="<|end|>", chat_template=None)(folder)
        (folder / "chat_template.jinja").unlink()

    (shell.folder / "chat.jsonl").write_text(CHAT)
    path = spoilt(tiny, shell, change)
    code, said = shell.run("sft", model__path=path, train__max_steps=1, data__train=[{"path": "chat.jsonl"}])
    assert code == 0, said
    saved = json.loads(Path("sft/model/generation_config.json").read_text())
    assert saved["pad_token_id"] not in saved["eos_token_id"]


def test_runs_of_another_kind_and_adapters(shell: Shell):
    assert shell.run("train-rm", run_dir="rm", train__max_steps=1)[0] == 0
    assert shell.run("sft", run_dir="lora", train__max_steps=1, model__lora={"rank": 2})[0] == 0
    for stage in ("sft", "dpo", "ppo"):
        code, said = shell.run(stage, model__path="rm")
        assert (code, "is a reward model" in said) == (65, True)
    code, said = shell.run("ppo", run_dir="ppo2", reward=[{"kind": "model", "path": "lora"}])
    assert (code, "no trained score head" in said) == (65, True)
    assert shell.run("sft", run_dir="from-adapter", model__path="lora/adapter")[0] == 66
    code, said = shell.run("sft", run_dir="nope", model__lora={"target": ["no_such_layer"]})
    assert (code, "model.lora.target" in said) == (78, True)


def test_a_base_that_changed_under_its_adapter_is_not_shared(shell: Shell, tiny: Tiny):
    """The adapter names its base by digest; another base of the same shape gets the merged weights instead."""
    base = spoilt(tiny, shell, lambda folder: None)
    assert (
        shell.run("train-rm", run_dir="rm", model__path=base, model__lora={"rank": 2}, train__max_steps=1)[0]
        == 0
    )
    reward = {"reward": [{"kind": "model", "path": "rm"}], "model__path": base, "model__lora": {"rank": 2}}
    _, said = shell.run("ppo", run_dir="same", ppo__iterations=1, **reward)
    assert "an adapter on the policy's base" in said
    reweigh(lambda w: w["model.norm.weight"].mul_(1.5))(shell.folder / base)
    _, said = shell.run("ppo", run_dir="changed", ppo__iterations=1, **reward)
    assert "weights of its own" in said


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ("def f(:", 65, "is not Python"),
        ("x = 1", 66, "defines no `f`"),
        ("f = 3", 65, "not a function"),
        ("import no_such_module", 65, "no_such_module"),
        ("raise SystemExit(0)", 65, "raised SystemExit"),
        ("def f(prompt, completion, extra): raise ValueError('mine')", 65, "raised ValueError: mine"),
        ("def f(prompt): return 1.0", 65, "raised TypeError"),
        ("def f(prompt, completion, extra): return float('nan')", 65, "returned nan"),
        ("def f(prompt, completion, extra): return 'x'", 65, "returned 'x'"),
        ("def f(prompt, completion, extra): return None", 65, "returned None"),
    ],
)  # fmt: skip
def test_a_reward_function_that_fails(body: str, code: int, says: str, shell: Shell):
    (shell.folder / "reward.py").write_text(body + "\n")
    got, said = shell.run("ppo", reward=[{"kind": "function", "function": "reward.py:f"}])
    assert got == code, said
    assert says in said
