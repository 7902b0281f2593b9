"""Builds small stores for the tests of this folder."""

from collections.abc import Callable

from rlhf_cli.preference.store import Response, Store
from rlhf_cli.records import Message, Prompt, Text

NAMES = ("ana", "ben", "child", "script", "r")

MakeStore = Callable[..., Store]


def response(prompt_id: int, sample: int, text: str, *, digest: str = "d0") -> Response:
    return Response(
        prompt_id=prompt_id,
        candidate=0,
        sample=sample,
        model="runs/sft",
        model_digest=digest,
        temperature=0.7,
        top_p=1.0,
        seed=2**63 - 1,
        finish_reason="stop",
        text=text,
    )


def fill(store: Store, answers: list[tuple[str, str]], *, dialog: bool = False) -> None:
    prompts = [f"ask {i}" for i in range(1, len(answers) + 1)]
    texts: list[Text] = [(Message("user", p),) if dialog else p for p in prompts]
    store.add_prompts([Prompt(t, f"p.jsonl:{i}", {"key": i}) for i, t in enumerate(texts, 1)])
    for sample in (0, 1):
        store.add_responses(response(i, sample, pair[sample]) for i, pair in enumerate(answers, 1))
    store.add_pairs(store.unpaired((0, 0), (0, 1)))
    for name in NAMES:
        store.add_labeler(name, "human", {})
