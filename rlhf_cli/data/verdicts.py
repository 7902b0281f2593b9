"""Rows of two answers that other projects publish: verdicts on a scale, arena battles, rankings, chosen beside asked.

Every function is pure: one row in, a Pair out.
"""

import re

from rlhf_cli.data.fields import (
    SHAREGPT_ROLES,
    BadRow,
    Row,
    SetAside,
    as_dialog,
    check_turns,
    dialog,
    mapping,
    objects,
    optional_number,
    required,
    string,
    text,
)
from rlhf_cli.data.formats import instruction, question
from rlhf_cli.data.preferences import Pair, cut_shared_turns, preference
from rlhf_cli.records import Dialog, Message


def helpsteer3(row: Row) -> Pair:
    """Read HelpSteer3: `overall_preference` is -3 (response1 is much better) to 3; 0 is a tie."""
    context = _context(row)
    scale = optional_number(row, "overall_preference")
    if scale is None or not -3 <= scale <= 3:
        raise BadRow(f"field 'overall_preference' is {scale}, expected -3 to 3")
    p_first = 0.5 if scale == 0 else float(scale < 0)
    return Pair(context, string(row, "response1"), string(row, "response2"), p_first, abs(scale))


def arena(row: Row) -> Pair:
    """Read a battle of Chatbot Arena; `tie (bothbad)` says of neither answer that it is good, and is set aside."""
    winner = string(row, "winner").strip().lower()
    if winner in ("tie (bothbad)", "tie (both bad)", "bothbad", "both_bad"):
        raise SetAside("arena: both answers are bad")
    shares = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5}
    if winner not in shares:
        raise BadRow(f"field 'winner' is {winner!r:.40}, expected model_a, model_b or tie")
    one, two = (dialog(required(row, f"conversation_{side}"), f"conversation_{side}") for side in "ab")
    prompt, first, second = cut_shared_turns(one, two)
    return Pair(prompt, first, second, shares[winner])


def webgpt(row: Row) -> Pair:
    """Read WebGPT comparisons: the higher of `score_0` and `score_1` wins, equal ones are a tie."""
    scores = [optional_number(row, f"score_{side}") for side in (0, 1)]
    if scores[0] is None or scores[1] is None:
        raise SetAside("webgpt: an answer without a score")
    asked = mapping(row, "question") if isinstance(row.get("question"), dict) else row
    prompt = (Message("user", string(asked, "full_text" if asked is not row else "question")),)
    margin = scores[0] - scores[1]
    p_first = 0.5 if margin == 0 else float(margin > 0)
    return Pair(prompt, string(row, "answer_0"), string(row, "answer_1"), p_first, abs(margin))


def ranked_completions(row: Row) -> Pair:
    """Read {"context", "completions": [{"rank", "completion"}]} of NeMo-RL: the best rank, 0, against the worst."""
    ranked = [
        (optional_number(item, "rank"), text(item, "completion")) for item in objects(row, "completions")
    ]
    known = [(rank, answer) for rank, answer in ranked if rank is not None]
    if len(known) < 2:
        raise SetAside("fewer than two ranked completions")
    best, worst = min(known, key=lambda item: item[0]), max(reversed(known), key=lambda item: item[0])
    p_first = 0.5 if best[0] == worst[0] else 1.0
    return Pair(_context(row), best[1], worst[1], p_first)


def asked_preference(row: Row) -> Pair:
    """Read chosen and rejected beside {"instruction", "input"} or {"system", "question"}: a chat of one turn."""
    asked = instruction(row) if row.get("instruction") is not None else question(row)
    system: Dialog = (Message("system", string(row, "system")),) if row.get("system") else ()
    names = ("chosen_response", "rejected_response") if "chosen_response" in row else ("chosen", "rejected")
    return preference(
        {
            **row,
            "prompt": _as_rows(system + asked),
            "chosen": row.get(names[0]),
            "rejected": row.get(names[1]),
        }
    )


def sharegpt_preference(row: Row) -> Pair:
    """Read {"conversations": [{"from", "value"}], "chosen": {"from", "value"}, "rejected"}."""
    keys = ("from", "value")
    turns = dialog(required(row, "conversations"), "conversations", roles=SHAREGPT_ROLES, keys=keys)
    check_turns(turns, "conversations", last="user")
    chosen, rejected = (
        dialog([required(row, name)], name, roles=SHAREGPT_ROLES, keys=keys)
        for name in ("chosen", "rejected")
    )
    return Pair(turns, chosen, rejected, 1.0)


def shared_prefix(row: Row) -> Pair:
    """Read {"chosen", "rejected"}: two whole strings, of which the prompt is the words that both begin with.

    Words with which both answers begin count as the prompt's too. That is a guess, which is why only
    `format: shared_prefix` makes it.
    """
    chosen, rejected = (_WORD.findall(string(row, name)) for name in ("chosen", "rejected"))
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise SetAside("shared_prefix: the texts share no words")
    return Pair("".join(chosen[:shared]), "".join(chosen[shared:]), "".join(rejected[shared:]), 1.0)


_WORD = re.compile(r"\s*\S+|\s+$")


def _context(row: Row) -> Dialog:
    context = as_dialog(text(row, "context"), "user")
    check_turns(context, "context", last="user")
    return context


def _as_rows(messages: Dialog) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
