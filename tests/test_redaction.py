"""What counts as a secret, and what does not."""

import pytest

from rlhf_cli.redaction import HIDDEN, redact

HF = "hf_" + "aB3" * 11
OPENAI = "sk-proj-" + "x9_Y" * 8


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"token {HF}.", f"token {HIDDEN}."),
        (f"key={OPENAI}&n=1", f"key={HIDDEN}&n=1"),
        ("Authorization: Bearer abc.def-ghi_jkl0123456", f"Authorization: Bearer {HIDDEN}"),
        ("AKIA" + "A1B2C3D4E5F6G7H8", HIDDEN),
        ("ghp_" + "a1" * 18, HIDDEN),
        ("https://me:pass@host/x", f"https://{HIDDEN}@host/x"),
        ("https://host:8000/x?a@b", "https://host:8000/x?a@b"),
        ("hf_hub and sk-learn, the bearer of news", "hf_hub and sk-learn, the bearer of news"),
    ],
)
def test_texts_shaped_like_keys(text: str, shown: str):
    assert redact(text) == shown


def test_values_of_variables_with_telling_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WIKI_PASSWORD", "correct horse")
    monkeypatch.setenv("HF_TOKEN", "unusual-looking-value")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "sometimes")
    monkeypatch.setenv("SHORT_KEY", "true")
    assert redact("a correct horse, unusual-looking-value") == f"a {HIDDEN}, {HIDDEN}"
    assert redact("sometimes true") == "sometimes true"


def test_the_longer_of_two_secrets_goes_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ONE_TOKEN", "abcdefgh")
    monkeypatch.setenv("OTHER_TOKEN", "abcdefgh-and-more")
    assert redact("abcdefgh-and-more abcdefgh") == f"{HIDDEN} {HIDDEN}"
