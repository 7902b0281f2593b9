"""The OpenAI chat-completions format: a request as JSON, and a reply read with nothing taken on trust."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_cli.preference.judge.chat import ChatRequest

# Parameters that servers lack: what to send instead when a refusal names them, None for leaving them out.
_OPTIONAL: tuple[tuple[str, tuple[str, object] | None], ...] = (
    ("top_logprobs", None),
    ("logprobs", None),
    ("max_tokens", ("max_completion_tokens", None)),
    ("seed", None),
    ("top_p", None),
    ("temperature", None),
)
_NUM_ALTERNATIVES = 20


class MalformedReply(ValueError):
    """The body is not what the format says; the argument says where."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a body holds: the reply's text, the label probabilities if told, tokens used (None: not told)."""

    text: str
    finished: bool
    label_probabilities: Mapping[str, float] | None
    prompt_tokens: int | None
    completion_tokens: int | None


def request_body(model: str, request: ChatRequest) -> dict[str, object]:
    """Return the JSON object to send; sampling is always spelled out, because servers have defaults of their own."""
    body: dict[str, object] = {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed % 2**31,
        "stream": False,
    }
    if request.labels:
        body |= {"logprobs": True, "top_logprobs": _NUM_ALTERNATIVES}
    return body


def adapt(body: Mapping[str, object], refused: frozenset[str]) -> dict[str, object]:
    """Return `body` without the parameters a server has refused, or with their other names."""
    adapted = dict(body)
    for name, other in _OPTIONAL:
        if name in refused and name in adapted:
            value = adapted.pop(name)
            if other:
                adapted[other[0]] = value
    if "logprobs" not in adapted:
        adapted.pop("top_logprobs", None)
    elif "top_logprobs" in refused:
        adapted["top_logprobs"] = 5  # the most that some servers allow
    return adapted


def refused_parameter(answer: str, body: Mapping[str, object], refused: frozenset[str]) -> str | None:
    """Name the optional parameter of `body` that a refusal complains about, unless it is refused already."""
    for name, _ in _OPTIONAL:
        if name in body and name not in refused and re.search(rf"(?<![a-z_]){name}(?![a-z_])", answer):
            return name
    return None


def read_body(text: str, request: ChatRequest) -> Said:
    """Read the first choice of a response body. Raises MalformedReply."""
    try:
        body: Any = json.loads(text)
        choice = body["choices"][0]
        content = choice["message"].get("content")
        logprobs, usage = choice.get("logprobs"), body.get("usage")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedReply(f"no choices.0.message in the body ({type(error).__name__})") from None
    if content is not None and not isinstance(content, str):
        raise MalformedReply("choices.0.message.content is no text")
    prompt_tokens, completion_tokens = _usage(usage)
    return Said(
        # A lone surrogate has no UTF-8 form, and the store keeps UTF-8.
        text=(content or "").encode("utf-8", errors="replace").decode("utf-8"),
        finished=choice.get("finish_reason") != "length",
        label_probabilities=_label_probabilities(logprobs, request),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


def _usage(usage: Any) -> tuple[int | None, int | None]:
    if not isinstance(usage, dict):
        return None, None
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    prompt, completion = (n if isinstance(n, int) and n >= 0 else None for n in counts)
    return prompt, completion


def _label_probabilities(logprobs: Any, request: ChatRequest) -> dict[str, float] | None:
    """Find the token that is the label and read its alternatives; None where that cannot be done."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not request.labels or not isinstance(content, list) or not content:
        return None
    try:
        tokens = [str(entry["token"]) for entry in content]
        place = label_token(tokens, request.label_prefix)
        if place is None:
            return None
        alternatives = [
            (str(other["token"]), float(other["logprob"])) for other in content[place]["top_logprobs"] or ()
        ]
        alternatives = alternatives or [(tokens[place], float(content[place]["logprob"]))]
    except (KeyError, TypeError, ValueError):
        return None
    return label_mass(alternatives, request.labels)


def label_token(tokens: Sequence[str], prefix: str) -> int | None:
    """Return the index of the token that holds what stands behind the last `prefix`.

    White space does not count. None when the prefix does not occur, nothing follows it, or the token also holds
    the end of the prefix, where other labels would not be its alternatives.
    """
    start = 0
    if prefix:
        start = "".join(tokens).rfind(prefix) + len(prefix)
        if start < len(prefix):
            return None
    end = 0
    for index, token in enumerate(tokens):
        begin, end = end, end + len(token)
        if end > start and token.strip() and (begin >= start or not token[: start - begin].strip()):
            return index
        if begin < start < end and token[start - begin :].strip():
            return None
    return None


def label_mass(alternatives: Sequence[tuple[str, float]], labels: Sequence[str]) -> dict[str, float]:
    """Sum the probability of each label over its spellings among the listed (token, log-probability) pairs.

    A label that is not listed has at most the least listed probability, and at most what the list leaves over:
    that bound stands in for it. Without any label in the list, all are 0.
    """
    found = dict.fromkeys(labels, 0.0)
    listed = [(token, math.exp(min(logprob, 0.0))) for token, logprob in alternatives]
    seen = set()
    for token, probability in listed:
        if label := spelled(token, labels):
            found[label] += probability
            seen.add(label)
    if not seen:
        return found
    left_over = max(0.0, 1.0 - sum(probability for _, probability in listed))
    bound = min(left_over, min(probability for _, probability in listed))
    return {label: mass if label in seen else bound for label, mass in found.items()}


def spelled(token: str, labels: Sequence[str]) -> str | None:
    """Name the label that `token` is, or begins and no other label does: long labels are several tokens."""
    word = token.strip()
    begun = [label for label in labels if word and label.startswith(word)]
    return word if word in begun else begun[0] if len(begun) == 1 else None
