"""Every command in README and docs/ parses, and runs: here, or in another test, or is named with why it does not."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from documented import ROOT, Command, commands, faults_in, yaml_blocks_of

from rlhf_cli.cli import STAGES, main
from rlhf_cli.config.load import load_config
from rlhf_cli.quickstart.make import Sizes, write

COMMANDS = [command for command in commands() if not command.is_mention]
RUNNABLE = [command for command in COMMANDS if not command.is_pattern or command.in_block]

# What another test runs: the command's beginning, and the test.
ELSEWHERE = {
    "scripts/quickstart ": "test_quickstart_script.py::test_the_quickstart_ends_with_its_table_and_keeps_its_promises",
    "rlhf sft --config configs/hh/": "test_recipes.py::test_hh_chain",
    "rlhf collect --config configs/hh/": "test_recipes.py::test_hh_chain",
    "rlhf train-rm --config configs/hh/": "test_recipes.py::test_hh_chain",
    "rlhf ppo --config configs/hh/": "test_recipes.py::test_hh_chain",
    "rlhf dpo --config configs/hh/": "test_recipes.py::test_hh_chain",
    "python -m scripts.docs.keys": "test_docs.py::test_the_table_of_keys_is_that_of_the_schema",
    "rlhf calibrate ": "stages/test_calibrate.py::test_a_judge_that_sees_what_people_see_is_a_go",
    "scripts/iterated_dpo ": "test_iterated_dpo_script.py::test_two_rounds_build_on_each_other_and_are_not_repeated",
    "python -m rlhf_cli.quickstart.rounds ": "quickstart/test_rounds.py::"
    "test_figures_are_those_of_the_table_and_rows_follow_the_policies",
    "python -m rlhf_cli.quickstart.table ": "quickstart/test_table.py::"
    "test_piped_output_is_plain_and_100_wide_at_most",
    "rlhf serve-reward ": "reward/test_served.py::test_ppo_gets_from_our_own_server_what_it_computes_itself",
    "torchrun ": "stages/test_processes.py::test_torchrun_stops_within_its_time_and_goes_on",
    "rlhf launch --slurm ": "commands/test_launch.py::test_jobs_wait_for_each_other_and_their_numbers_are_printed",
    "python -m scripts.slurm.write ": "tools/test_slurm.py::test_the_scripts_of_the_repository_are_current",
    "zoo/run.sh": "tools/test_init.py::test_the_quickstart_project_runs_to_its_end",
}
# What no test runs as it stands, and why.
PARSED_ONLY = {
    "scripts/test ": "it is what runs this test",
    "scripts/bench/run ": "hours, a data set that is not part of the repository, and an environment with TRL",
    "rlhf selftest chaos ": "minutes; tests/chaos runs parts of it",
    "scripts/chaos ": "hours; tests/chaos runs parts of it",
    "scripts/fuzz 5000": "minutes; tests/bad_input/test_fuzz.py runs 80 of each kind",
    "scripts/quickstart_constitution DIR": "minutes; tests/quickstart/test_critic.py has its critic",
    "scripts/quickstart_losses ": "half an hour for three finished examples; the figures are in docs/quickstart.md",
    "scripts/vllm_server ": "installs vLLM; tests/rollout/test_real_vllm.py runs it where an environment is named",
    "rlhf ppo --config ppo.yaml --set rollout.engine=vllm ": "needs that server; tests/rollout has a stand-in",
    "pip install ": "needs a network",
}
# Pages whose commands run one after another in a test of their own.
RUN_AS_A_WHOLE = {"docs/tutorial.md": "test_docs.py::test_the_tutorial_runs"}
SMALL = ("train.max_steps=2", "train.batch_size=4")
# What is added to a page's command of a stage, so that it is over in seconds, asks nobody and downloads nothing.
LESS = {
    "sft": ("model={path: qs/base}", *SMALL),
    "collect": (
        "labeler={kind: rule, function: 'rlhf_cli.preference.rules:shorter'}",
        "limit=4",
        "generation.max_new_tokens=8",
    ),
    "train-rm": SMALL,
    "ppo": ("rollout={batch_size: 4, max_new_tokens: 8}", "ppo={iterations: 1}"),
    "dpo": SMALL,
}
# The example's stages, small.
CHAIN = (
    ("sft", "base", ("train.max_steps=3",)),
    ("sft", "sft", ("train.max_steps=3",)),
    ("collect", "collect", ("generation.max_new_tokens=12",)),
    ("train-rm", "train_rm", ("train.max_steps=3",)),
    ("ppo", "ppo", ("ppo.iterations=1", "rollout.batch_size=8", "rollout.max_new_tokens=8")),
    ("dpo", "dpo", ("train.max_steps=3",)),
)


def spaced(text: str) -> str:
    return " ".join(text.split()) + " "


def match_in(table: dict[str, str], command: Command) -> str | None:
    return next((key for key in table if spaced(command.text.removeprefix("time ")).startswith(key)), None)


HERE = [
    command
    for command in RUNNABLE
    if not match_in(ELSEWHERE | PARSED_ONLY, command) and command.page not in RUN_AS_A_WHOLE
]


def name_of(command: Command) -> str:
    return f"{command.page}:{command.line}: {command.text}"


@pytest.mark.parametrize("command", commands(), ids=name_of)
def test_each_command_is_one_that_its_program_accepts(command: Command):
    assert faults_in(command) == []


@pytest.mark.parametrize(
    "text",
    [
        "rlhf sfd --config x.yaml",
        "rlhf sft --confg x.yaml",
        "rlhf sft",
        "rlhf sft --config x.yaml --set optim.rate=1",
        "rlhf eval winz A B",
        "rlhf eval wins A B --nope",
        "scripts/quickstarts",
        "scripts/quickstart --sede 3",
        "python -m rlhf_cli.quickstart.nothing",
        "pip install 'rlhf-cli[tensorbord]'",
        "sbatch x",
    ],
)
def test_a_wrong_command_is_found(text: str):
    assert len(faults_in(Command("a page", 1, text, in_block=True))) == 1


def test_what_runs_elsewhere_does_and_no_entry_is_stale():
    for table in (ELSEWHERE, PARSED_ONLY):
        assert {match_in(table, command) for command in RUNNABLE} >= set(table)
    for path, _, test in (place.partition("::") for place in (*ELSEWHERE.values(), *RUN_AS_A_WHOLE.values())):
        assert f"def {test}(" in (ROOT / "tests" / path).read_text()
    assert len(HERE) > 15


@pytest.mark.parametrize("page", ["sft", "collect", "train-rm", "ppo", "dpo"])
def test_the_yaml_of_a_stage_is_valid(page: str, tmp_path: Path):
    path = tmp_path / "stage.yaml"
    path.write_text(yaml_blocks_of(ROOT / "docs" / f"{page}.md")[0])
    assert load_config(page, path).config.run_dir.startswith("runs/")


def sets(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with `qs`, the example's runs with few rows and steps, and the files that pages speak of."""
    folder = tmp_path_factory.mktemp("finished")
    write(
        folder / "qs/data",
        0,
        Sizes(base=60, demonstrations=24, collect_prompts=24, ppo_prompts=16, eval_prompts=4),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTART", str(folder / "qs"))
        for stage, recipe, settings in CHAIN:
            config = ROOT / "configs" / "quickstart" / f"{recipe}.yaml"
            assert main([stage, "--config", str(config), *sets(settings)]) == 0
    data, votes = folder / "qs/data", folder / "qs/collect/preferences.jsonl"
    shutil.copy(data / "demonstrations.jsonl", folder)
    shutil.copy(data / "ppo_prompts.jsonl", folder / "prompts.jsonl")
    for name in ("more.jsonl", "pairs.jsonl"):
        shutil.copy(votes, folder / name)
    (folder / "pairs.csv").write_text("prompt,chosen,rejected\nWhy?,So.,No.\n")
    return folder


def scene(page: str, finished: Path, folder: Path) -> None:
    """Lay out what a page speaks of: its configurations by the names its commands give them, runs by links."""
    for entry in finished.iterdir():
        (folder / entry.name).symlink_to(entry)
    blocks = [block for block in yaml_blocks_of(ROOT / page) if block.startswith("run_dir: ")]
    named = [
        word for command in HERE if command.page == page for word in command.words if word.endswith(".yaml")
    ]
    for name, block in zip(dict.fromkeys(named), blocks, strict=False):
        (folder / name).write_text(block)
    made = {block.splitlines()[0].removeprefix("run_dir: ") for block in blocks}
    links = {f"runs/{run}": run for run in ("base", "sft", "collect", "rm", "ppo", "dpo")}
    links |= {"runs/ppo-lr2": "ppo", "runs/mine/sft": "sft"}
    for place, run in links.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        if place not in made:
            (folder / place).symlink_to(finished / "qs" / run)


@pytest.mark.slow
@pytest.mark.parametrize("page", dict.fromkeys(command.page for command in HERE))
def test_the_commands_of_a_page_run(page: str, finished: Path, tmp_path: Path, monkeypatch, capsys):
    scene(page, finished, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for command in (command for command in HERE if command.page == page):
        program, *words = command.words
        assert program == "rlhf"
        if words[0] in STAGES:
            words += sets(LESS[words[0]])
        assert main(words) == 0, (name_of(command), capsys.readouterr().err[-2000:])
