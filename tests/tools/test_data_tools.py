"""`rlhf data` on rows whose numbers are counted by hand."""

import json
from pathlib import Path

import pytest
from tiny import Tiny, write_rows

from rlhf_cli.cli import main


@pytest.fixture
def rlhf(capsys):
    def call(*arguments: object, code: int = 0) -> str:
        assert main(["data", *map(str, arguments)]) == code
        streams = capsys.readouterr()
        return streams.out if code == 0 else streams.err

    return call


@pytest.fixture
def pairs(work: Path) -> str:
    """Four pairs over three prompts: one row twice, one tie, the chosen answer longer in one of three."""
    rows = [
        {"prompt": "ab", "chosen": "x", "rejected": "yyy"},
        {"prompt": "ab", "chosen": "x", "rejected": "yyy"},
        {"prompt": "AB ", "chosen": "long answer", "rejected": "z"},
        {"prompt": "cd", "chosen": "one", "rejected": "two two", "p_chosen": 0.5},
    ]
    return write_rows(work / "pairs.jsonl", rows)


def test_stats_of_pairs(pairs, rlhf, work):
    held_out = write_rows(
        work / "eval.jsonl",
        [{"prompt": "cd", "chosen": "1", "rejected": "2"}, {"prompt": "e", "chosen": "1", "rejected": "2"}],
    )
    report = json.loads(rlhf("stats", pairs, "--eval", held_out, "--json"))
    train, evaluation = report["splits"]
    assert report["schema"] == "rlhf.data-stats/1"
    assert (report["num_overlap"], report["num_eval_prompts"]) == (1, 2)
    assert (train["kind"], train["rows_read"], train["ties"], train["identical"]) == ("comparisons", 4, 1, 0)
    assert train["repeats"] == {"rows": 1, "prompts": 2}  # case and spaces make no other prompt
    assert train["chosen_longer_rate"] == pytest.approx(1 / 3)
    # Prompt and answer together: 3 5 3 5 14 4 5 9.
    lengths = train["lengths"]
    assert (lengths["unit"], lengths["median"], lengths["longest"]) == ("characters", 5, 14)
    assert lengths["bars"] == [[3, 4, 3], [5, 6, 3], [7, 8, 0], [9, 10, 1], [11, 12, 0], [13, 14, 1]]
    assert evaluation["chosen_longer_rate"] is None
    text = rlhf("stats", pairs, "--eval", held_out)
    assert "1 of 2 evaluation prompts are in train too" in text
    assert "the longer one in 33% of the pairs" in text


def test_stats_with_a_model_say_what_a_stage_would_drop(tiny: Tiny, rlhf, work):
    rows = [{"prompt": "p" * 30, "completion": "a"}, {"prompt": "Color", "completion": "it is red " * 9}]
    rows.append({"prompt": "Color", "completion": "it is red"})
    path = write_rows(work / "rows.jsonl", rows)
    report = json.loads(rlhf("stats", path, "--model", tiny.model, "--max-length", 20, "--json"))
    encoded = report["splits"][0]["encoded"]
    assert encoded["dropped"] == {"dropped: the prompt fills the limit": 1}
    assert (encoded["kept"], encoded["cut"], encoded["with_eos"], encoded["texts"]) == (2, 1, 1, 2)
    assert report["splits"][0]["lengths"]["longest"] == 20
    alone = write_rows(work / "cut.jsonl", rows[1:2])
    assert "NO row teaches the model to stop" in rlhf(
        "stats", alone, "--model", tiny.model, "--max-length", 20
    )


def test_show_marks_what_is_trained_and_says_why_the_format(tiny: Tiny, rlhf, work):
    text = rlhf("show", tiny.demonstrations, "--model", tiny.model, "-n", 1)
    assert "prompt_completion (columns prompt, completion)" in text
    assert "Color of the fox number 0: ⟦it is red<|end|>⟧" in text
    assert "ends in EOS" in text
    plain = rlhf("show", tiny.comparisons, "-n", 2)
    assert plain.count("[chosen]") == 2
    assert "⟦" not in plain


def test_show_makes_control_characters_harmless(tiny: Tiny, rlhf, work):
    path = write_rows(work / "rows.jsonl", [{"prompt": "a\x1b[2J", "completion": "b\x07"}])
    for arguments in ((), ("--model", tiny.model)):
        text = rlhf("show", path, *arguments)
        assert "\x1b" not in text
        assert "␛[2J" in text


def test_show_says_why_a_row_is_dropped(tiny: Tiny, rlhf, work):
    path = write_rows(work / "rows.jsonl", [{"prompt": "p" * 60, "completion": "a"}])
    text = rlhf("show", path, "--model", tiny.model, "--max-length", 20)
    assert "dropped: the prompt fills the limit" in text


def test_a_yaml_file_brings_its_model_and_settings(tiny: Tiny, rlhf, work):
    settings = tiny.settings("sft", loss__on="all", data__eval_fraction=0.5)
    (work / "sft.yaml").write_text(json.dumps(settings))
    assert "Color⟦ of the" in rlhf("show", "sft.yaml", "-n", 1)  # nothing predicts a first token
    train, evaluation = json.loads(rlhf("stats", "sft.yaml", "--json"))["splits"]
    assert train["rows_kept"] + evaluation["rows_kept"] == 12
    assert train["encoded"]["limit"] == 64
    (work / "ppo.yaml").write_text(json.dumps(tiny.settings("ppo")))
    assert "[asked: " in rlhf("show", "ppo.yaml", "-n", 1)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.parquet"])
def test_convert_and_back_keeps_the_pairs(pairs, rlhf, work, name):
    folder = work / "out"
    rlhf("convert", pairs, folder / name, "--to", "preference")
    rlhf("convert", folder / name, folder / "back.jsonl", "--to", "preference")
    rows = [json.loads(line) for line in (folder / "back.jsonl").read_text().splitlines()]
    assert rows[0] == {"prompt": "ab", "chosen": "x", "rejected": "yyy"}
    assert [row.get("p_chosen") for row in rows] == [None, None, None, 0.5]


def test_convert_to_what_others_read(pairs, rlhf, work, capsys):
    record = json.loads(rlhf("convert", pairs, "hh.jsonl", "--to", "hh", "--json"))
    assert (record["rows"], record["left_out"]) == (3, 1)  # a transcript cannot say a tie
    first = json.loads(Path("hh.jsonl").read_text().splitlines()[0])
    assert first["chosen"] == "\n\nHuman: ab\n\nAssistant: x"
    rlhf("convert", pairs, "chat.jsonl", "--to", "messages")
    row = json.loads(Path("chat.jsonl").read_text().splitlines()[2])
    assert [message["content"] for message in row["messages"]] == ["AB ", "long answer"]


def test_wrong_use_is_refused(pairs, tiny: Tiny, rlhf, work):
    assert "exists" in rlhf("convert", pairs, pairs, "--to", "trl", code=73)
    assert "cannot be written as hh" in rlhf("convert", tiny.prompts, "x.jsonl", "--to", "hh", code=2)
    assert "OURS=THEIRS" in rlhf("stats", pairs, "--column", "prompt", code=2)
    assert "format" in rlhf("stats", pairs, "--format", "hhh", code=2)
    assert "nothing says whose" in rlhf("stats", pairs, "--format", "lm_human_preferences", code=2)
    assert "rlhf data show --help" in rlhf("show", code=2)
    assert "Did you mean" in rlhf("stats", "pair.jsonl", code=66)
    strange = write_rows(work / "strange.jsonl", [{"colour": "red"}])
    assert "colour" in rlhf("show", strange, code=65)
