"""Rows of two answers: the formats of published preference data. Every function is pure: one row in, a Pair out."""

import re
from dataclasses import dataclass

from rlhf_cli.data.fields import (
    BadRow,
    Row,
    SetAside,
    as_dialog,
    integer,
    is_blank,
    mapping,
    objects,
    optional_number,
    string,
    text,
)
from rlhf_cli.data.formats import join_turns
from rlhf_cli.records import Comparison, Dialog, Message, Text

TIES = "ties (kept with p_chosen 0.5)"
STRIPPED = "responses that began with their prompt (cut off)"
SWAPPED = "p_chosen below 0.5 (sides swapped)"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt in the file's order; `p_first` is P(the first is better).

    `notes` name what was done to the row, for the counts.
    """

    prompt: Text
    first: Text
    second: Text
    p_first: float
    margin: float = 0.0
    notes: tuple[str, ...] = ()


def comparison(pair: Pair, origin: str) -> tuple[Comparison, tuple[str, ...]]:
    """Put the better answer first, and give the record with what there is to count about it.

    Raises SetAside when the answers are equal or one is empty.
    """
    prompt, first, second = _join(pair)
    if first == second:
        raise SetAside("identical answers")
    if is_blank(first) or is_blank(second):
        raise SetAside("empty answer")
    if pair.p_first >= 0.5:
        record = Comparison(prompt, first, second, origin, pair.p_first, pair.margin)
    else:
        record = Comparison(prompt, second, first, origin, 1.0 - pair.p_first, pair.margin)
    return record, (*pair.notes, TIES) if pair.p_first == 0.5 else pair.notes


def _join(pair: Pair) -> tuple[Text, Text, Text]:
    """Make all three parts strings, or all three messages whose turns alternate."""
    parts = (pair.prompt, pair.first, pair.second)
    if all(isinstance(part, str) for part in parts):
        return parts
    prompt = as_dialog(pair.prompt, "user")
    _, first = join_turns(prompt, pair.first, "first answer")
    _, second = join_turns(prompt, pair.second, "second answer")
    return prompt, first, second


def preference(row: Row) -> Pair:
    """Read {"prompt", "chosen", "rejected"} with optional p_chosen, score_chosen and score_rejected, margin.

    Without a prompt, message lists are cut where they stop being equal; plain strings are refused, because a cut
    by characters can split a word both answers begin with.
    """
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    if row.get("prompt") is not None:
        prompt = text(row, "prompt")
        if not isinstance(prompt, str):
            chosen, rejected = _without_prompt(chosen, prompt), _without_prompt(rejected, prompt)
    elif isinstance(chosen, str) or isinstance(rejected, str):
        raise BadRow("field 'prompt' is missing, and where the prompt ends in plain strings cannot be known")
    else:
        prompt, chosen, rejected = cut_shared_turns(chosen, rejected)
    p_chosen, margin = _strength(row)
    return Pair(prompt, chosen, rejected, p_chosen, margin, (SWAPPED,) if p_chosen < 0.5 else ())


def _without_prompt(answer: Text, prompt: Dialog) -> Text:
    if not isinstance(answer, str) and len(answer) > len(prompt) and answer[: len(prompt)] == prompt:
        return answer[len(prompt) :]
    return answer


def cut_shared_turns(chosen: Dialog, rejected: Dialog) -> tuple[Dialog, Dialog, Dialog]:
    """Split two conversations into the turns they share, which end with the user, and one answer each."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == 0 or chosen[shared - 1].role != "user":
        raise SetAside("chosen and rejected answer different prompts", f"they part at message {shared}")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _strength(row: Row) -> tuple[float, float]:
    """Give P(chosen is better) and the margin; equal scores are a tie, and without a margin their distance is it."""
    p_chosen = optional_number(row, "p_chosen")
    margin = optional_number(row, "margin")
    chosen, rejected = optional_number(row, "score_chosen"), optional_number(row, "score_rejected")
    if p_chosen is not None and not 0.0 <= p_chosen <= 1.0:
        raise BadRow(f"field 'p_chosen' is {p_chosen:g}, expected a probability")
    if chosen is None or rejected is None:
        return 1.0 if p_chosen is None else p_chosen, margin or 0.0
    if p_chosen is None and chosen < rejected:
        raise SetAside("the rejected answer has the higher score", f"{chosen:g} against {rejected:g}")
    if p_chosen is None:
        p_chosen = 0.5 if chosen == rejected else 1.0
    return p_chosen, abs(chosen - rejected) if margin is None else margin


def response_pair(row: Row) -> Pair:
    """Read {"prompt", "response_a", "response_b", "preferred": "a" | "b" | "tie"}.

    Tools that decode prompt and answer together leave the prompt in front of each response; it is cut off.
    """
    prompt = text(row, "prompt")
    first, second = text(row, "response_a"), text(row, "response_b")
    notes: list[str] = []
    if isinstance(prompt, str) and prompt:
        first, second = _unprefixed(first, prompt, notes), _unprefixed(second, prompt, notes)
    verdict = string(row, "preferred").strip().lower()
    if verdict not in ("a", "b", "tie"):
        raise BadRow(f"field 'preferred' is {verdict!r:.40}, expected a, b or tie")
    return Pair(prompt, first, second, {"a": 1.0, "b": 0.0, "tie": 0.5}[verdict], notes=tuple(notes))


def _unprefixed(answer: Text, prompt: str, notes: list[str]) -> Text:
    if isinstance(answer, str) and answer.startswith(prompt):
        notes.append(STRIPPED)
        return answer[len(prompt) :]
    return answer


def ultrafeedback(row: Row) -> Pair:
    """Read UltraFeedback, binarised (message lists that hold the user's turn) or raw (`completions` with ratings)."""
    if row.get("chosen") is not None:
        return preference({name: value for name, value in row.items() if name != "prompt"})
    prompt: Dialog = (Message("user", string(row, "instruction")),)
    answers = [(_rating(item), string(item, "response")) for item in objects(row, "completions")]
    if len(answers) < 2:
        raise SetAside("fewer than two completions")
    best, worst = max(answers, key=lambda a: a[0]), min(reversed(answers), key=lambda a: a[0])
    margin = best[0] - worst[0]
    return Pair(prompt, best[1], worst[1], 1.0 if margin else 0.5, margin)


def _rating(completion: Row) -> float:
    """Average the ratings per aspect: `overall_score` is wrong in rows where a 1 was stored as a 10."""
    aspects = completion.get("annotations")
    if isinstance(aspects, dict) and aspects and all(isinstance(a, dict) for a in aspects.values()):
        ratings = [optional_number({"Rating": _rating_text(a)}, "Rating") for a in aspects.values()]
        known = [rating for rating in ratings if rating is not None]
        if known:
            return sum(known) / len(known)
    score = optional_number(completion, "overall_score")
    if score is None:
        raise SetAside("a completion without a rating")
    return score


def _rating_text(aspect: Row) -> object:
    rating = aspect.get("Rating")
    return None if rating == "N/A" else rating


def shp(row: Row) -> Pair:
    """Read Stanford Human Preferences: `labels` 1 says that `human_ref_A` is better, 0 that `human_ref_B` is."""
    prompt: Dialog = (Message("user", string(row, "history")),)
    p_first = float(integer(row, "labels", (0, 1)))
    return Pair(prompt, string(row, "human_ref_A"), string(row, "human_ref_B"), p_first)


def pku_saferlhf(row: Row) -> Pair:
    """Read PKU-SafeRLHF by helpfulness: `better_response_id`. Map that name to safer_response_id for safety."""
    prompt: Dialog = (Message("user", string(row, "prompt")),)
    better = integer(row, "better_response_id", (0, 1))
    return Pair(prompt, string(row, "response_0"), string(row, "response_1"), 1.0 - better)


def openai_summaries(row: Row) -> Pair:
    """Read the comparisons of summarize-from-feedback; the prompt is the post, closed by "TL;DR:"."""
    summaries = objects(row, "summaries")
    if len(summaries) != 2:
        raise BadRow(f"field 'summaries' holds {len(summaries)} entries, expected 2")
    choice = integer(row, "choice", (0, 1))
    first, second = (string(summary, "text") for summary in summaries)
    return Pair(summary_prompt(mapping(row, "info")), first, second, 1.0 - choice)


def summary_prompt(info: Row) -> str:
    """Lay out a Reddit post or a news article the way the paper does (Stiennon et al. 2020, appendix)."""
    if info.get("post") is None:
        return f"Article: {string(info, 'article')}\n\nTL;DR:"
    title = f"TITLE: {info['title']}\n\n" if info.get("title") else ""
    subreddit = f"SUBREDDIT: r/{info['subreddit']}\n\n" if info.get("subreddit") else ""
    return f"{subreddit}{title}POST: {string(info, 'post')}\n\nTL;DR:"


_TURN = re.compile(r"\n\n(Human|Assistant):")


def hh(row: Row) -> Pair:
    """Read two whole transcripts and cut them before the last answer (Bai et al. 2022, the hh-rlhf files).

    Only a speaker's name after an empty line opens a turn: people write "Human:" inside sentences too.
    """
    chosen, rejected = _turns(string(row, "chosen"), "chosen"), _turns(string(row, "rejected"), "rejected")
    if len(chosen) != len(rejected):
        raise SetAside("hh: different numbers of turns", f"{len(chosen)} and {len(rejected)}")
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        _check_transcript(turns, name)
    if chosen[:-1] != rejected[:-1]:
        raise SetAside("hh: the turns before the last answer differ")
    return Pair(chosen[:-1], chosen[-1:], rejected[-1:], 1.0)


def _turns(transcript: str, name: str) -> Dialog:
    before, *rest = _TURN.split(transcript)
    if before.strip() or not rest:
        raise SetAside("hh: no transcript", rf"{name} does not start with '\n\nHuman:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(Message(roles[who], words.strip()) for who, words in zip(rest[::2], rest[1::2], strict=True))


def _check_transcript(turns: Dialog, name: str) -> None:
    for i, turn in enumerate(turns):
        if turn.role != ("user", "assistant")[i % 2]:
            raise SetAside("hh: speakers do not alternate", f"{name}, turn {i + 1}")
    if turns[-1].role != "assistant":
        raise SetAside("hh: the last turn is not the assistant's", name)
