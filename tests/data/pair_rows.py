"""Literal rows of published preference formats; each says that "yes" is a better answer to "q" than "no"."""

from rlhf_cli.data.fields import Row
from rlhf_cli.records import Comparison, Message


def user(words: str) -> Message:
    return Message("user", words)


def assistant(words: str) -> Message:
    return Message("assistant", words)


def asked(role: str, words: str) -> dict[str, object]:
    return {"role": role, "content": words}


def rated(honesty: str, truth: str) -> dict[str, object]:
    return {"honesty": {"Rating": honesty}, "truth": {"Rating": truth}}


PROMPT, YES, NO = (user("q"),), (assistant("yes"),), (assistant("no"),)
DIALOG = Comparison(PROMPT, YES, NO, "f:1")

SHP: Row = {"history": "q", "human_ref_A": "yes", "human_ref_B": "no", "labels": 1, "score_A": 9}
PKU: Row = {
    "prompt": "q",
    "response_0": "no",
    "response_1": "yes",
    "better_response_id": 1,
    "safer_response_id": 0,
}
SUMMARIES: Row = {
    "info": {"post": "I fell.", "title": "Help", "subreddit": "advice"},
    "summaries": [{"text": " Ouch.", "policy": "a"}, {"text": " Fell.", "policy": "b"}],
    "choice": 1,
}  # fmt: skip
LABEL_STUDIO: Row = {
    "id": 1,
    "data": {"prompt": "q", "answer1": "yes", "answer2": "no"},
    "annotations": [
        {"was_cancelled": False, "result": [{"type": "pairwise", "to_name": "answer1", "value": {"selected": "left"}}]},
        {"was_cancelled": True, "result": [{"type": "pairwise", "to_name": "answer1", "value": {"selected": "right"}}]},
    ],
}  # fmt: skip
ARGILLA_NESTED: Row = {
    "id": "1",
    "fields": {"prompt": "q", "response-1": "no", "response-2": "yes"},
    "responses": {"better": [{"value": "response-2", "user_id": "u"}]},
    "status": "completed",
}
ARGILLA_FLAT: Row = {
    "id": "1",
    "status": "pending",
    "prompt": "q",
    "response-1": "no",
    "response-2": "yes",
    "better.responses": ["response-1", "2", "response-1"],
    "better.responses.users": ["u", "v", "w"],
    "better.responses.status": ["draft", "submitted", "discarded"],
    "better.suggestion": "response-1",
}
ULTRA: Row = {
    "prompt": "q",
    "prompt_id": "77",
    "chosen": [asked("user", "q"), asked("assistant", "yes")],
    "rejected": [asked("user", "q"), asked("assistant", "no")],
    "messages": [asked("user", "q"), asked("assistant", "yes")],
    "score_chosen": 8.5,
    "score_rejected": 6.0,
}
ULTRA_RAW: Row = {
    "instruction": "q",
    "completions": [
        {"response": "so", "overall_score": 10, "annotations": rated("3", "N/A")},
        {"response": "yes", "overall_score": 7, "annotations": rated("5", "4")},
        {"response": "no", "overall_score": 7, "annotations": rated("1", "2")},
    ],
}  # fmt: skip
