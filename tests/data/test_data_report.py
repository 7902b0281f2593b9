"""The data report: its arithmetic, its lines, and rows shown with what is trained between brackets."""

from tiny_tokenizers import byte_tokenizer, spelled

from rlhf_cli.data.encode import EncodedText, Encoder
from rlhf_cli.data.files import Reading, Rejected
from rlhf_cli.data.report import data_report, render_sample, report_text, samples_text
from rlhf_cli.records import Demonstration

TOKENIZER = byte_tokenizer()
T, F = True, False


def report() -> dict[str, object]:
    rows = [Demonstration("2+2=", " 4", "f:1"), Demonstration("hi", " hello there", "f:2")]
    rows.append(Demonstration("a prompt of 24 characters", "x", "f:4"))
    reading = Reading(
        rows, 4, ["f: prompt + completion, 4 rows"], [Rejected("f:3", "no prompt")], {"repaired": 1}
    )
    encoder = Encoder(TOKENIZER, stop_ids=(), max_length=14)
    kept = encoder.demonstrations(rows)
    return data_report("train", reading, encoder, num_kept=len(kept))


def test_the_facts() -> None:
    assert report() == {
        "name": "train",
        "formats": ["f: prompt + completion, 4 rows"],
        "rows_read": 4,
        "rows_rejected": 1,
        "rejected": ["f:3: no prompt"],
        "counts": {
            "repaired": 1,
            "special tokens in the text, read as plain characters": 0,
            "cut to the limit": 1,
            "dropped: the prompt fills the limit": 1,
            "trained tokens": 3 + 12,
            "rows that end in a trained EOS": 1,
        },
        "rows_kept": 2,
        "tokens": {"total": 7 + 14, "median": 10.5, "longest": 14, "limit": 14},
    }


def test_the_lines() -> None:
    assert report_text(report()).splitlines() == [
        "data (train): 4 rows read, 2 kept",
        "  format   f: prompt + completion, 4 rows",
        "  tokens   21 in all, median 10.5, longest 14, limit 14",
        "        1  cut to the limit",
        "        1  dropped: the prompt fills the limit",
        "        1  repaired",
        "        1  rows that end in a trained EOS",
        "       15  trained tokens",
        "        1  rejected, the first of them:",
        "           f:3: no prompt",
    ]


def test_a_report_about_nothing() -> None:
    empty = data_report("eval", Reading([], 0, [], [], {}), Encoder(TOKENIZER, stop_ids=()), num_kept=0)
    assert empty["tokens"] == {"total": 0, "median": 0, "longest": 0, "limit": 1024}


def test_trained_tokens_stand_between_brackets() -> None:
    def shown(*mask: bool) -> str:
        return render_sample(EncodedText([*spelled("ab"), 0], list(mask), 0, "f:1"), TOKENIZER)

    assert shown(F, T, T) == "a⟦b<|end|>⟧"
    assert shown(T, F, T) == "⟦a⟧b⟦<|end|>⟧"
    assert shown(T, T, F) == "⟦ab⟧<|end|>"
    assert shown(F, F, F) == "ab<|end|>"


def test_samples_are_the_first_rows_under_their_origins() -> None:
    rows = [EncodedText(spelled("ab"), [F, T], 1, f"f:{i}") for i in range(1, 5)]
    assert (
        samples_text(rows, TOKENIZER, num_rows=2) == "--- f:1 (2 tokens)\na⟦b⟧\n\n--- f:2 (2 tokens)\na⟦b⟧\n"
    )
