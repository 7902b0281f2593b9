"""Write the outcomes as `preferences.jsonl`, the rows train-rm and dpo read, and no preference by accident."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rlhf_cli.errors import DataError
from rlhf_cli.preference.consensus import Outcome
from rlhf_cli.preference.other_formats import Exchange, argilla, hh, label_studio, parquet, trl
from rlhf_cli.preference.ranking import scores_of
from rlhf_cli.preference.store import Pair, Response, Store, text_to_json
from rlhf_cli.records import Message, Text
from rlhf_cli.run.chance import fraction
from rlhf_cli.run.directory import write_atomic

Row = dict[str, object]
Format = Literal["parquet", "trl", "hh", "argilla", "label_studio"]

_FORMATS: Mapping[Format, tuple[str, Callable[[Exchange], tuple[bytes, int]]]] = {
    "parquet": ("preferences.parquet", parquet),
    "trl": ("trl.jsonl", trl),
    "hh": ("hh.jsonl", hh),
    "argilla": ("argilla.jsonl", argilla),
    "label_studio": ("label_studio.json", label_studio),
}


@dataclass(frozen=True, slots=True)
class ExportPolicy:
    """What becomes a row, see the section `export` of the configuration.

    `seed` draws the prompts for evaluation; `round` is written into each row.
    """

    ties: Literal["drop", "half", "both-ways", "error"] = "drop"
    labels: Literal["hard", "soft"] = "hard"
    cut: Literal["keep", "drop"] = "keep"
    eval_fraction: float = 0.0
    seed: int = 0
    round: int | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """The main file, its rows with those held out, and what there is to say about the other files."""

    path: Path
    num_rows: int
    notes: tuple[str, ...]


def export_preferences(
    store: Store,
    decided: Sequence[Outcome],
    folder: Path,
    policy: ExportPolicy,
    formats: Sequence[Format] = (),
) -> Exported:
    """Replace `preferences.jsonl` in `folder`, and in its folder `export` a file for each format and a manifest.

    Both bad, skipped, failed and identical pairs are never written: none of them says that one answer is better.
    Raises DataError for a tie where `policy.ties` is "error".
    """
    path = folder / "preferences.jsonl"
    held_out = folder / "preferences.eval.jsonl"
    kept, left_out = _choose(store, decided, policy)
    scores = scores_of(store)
    rows = [
        (row | _told_besides(row, pair, scores.get(pair.id), policy), _is_held_out(pair, policy))
        for pair, outcome in kept
        for row in preference_rows(pair, outcome, policy)
    ]
    train, evaluation = ([row for row, out in rows if out is wanted] for wanted in (False, True))
    exchange = Exchange(train, [both for both in kept if not _is_held_out(both[0], policy)])
    files, notes = _write_formats(exchange, folder / "export", formats)
    if policy.eval_fraction:
        write_atomic(held_out, json_lines(evaluation))
    manifest = {
        "schema": "rlhf.export/1",
        "policy": asdict(policy),
        "rows": {
            "preferences.jsonl": len(train),
            **({held_out.name: len(evaluation)} if policy.eval_fraction else {}),
        },
        "pairs_left_out": dict(left_out),
        "surplus_votes": len(store.votes(surplus=True)),
        "identical_pairs": store.num_pairs(identical=True),
        "files": files,
        "labelers": {name: {"kind": kind, **detail} for name, (kind, detail) in store.labelers().items()},
    }
    write_atomic(
        folder / "export" / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    )
    write_atomic(path, json_lines(train))
    return Exported(path, len(rows), notes)


def _told_besides(row: Row, pair: Pair, scores: tuple[float, float] | None, policy: ExportPolicy) -> Row:
    """Return the round of the collection and a reward model's raw scores, where there are such."""
    told: Row = {} if policy.round is None else {"round": policy.round}
    if scores is None:
        return told
    is_first = row["chosen"] == _completion(pair.prompt, pair.responses[0].text)
    chosen, rejected = scores if is_first else scores[::-1]
    return told | {"score_chosen": chosen, "score_rejected": rejected}


def _choose(
    store: Store, decided: Sequence[Outcome], policy: ExportPolicy
) -> tuple[list[tuple[Pair, Outcome]], Counter[str]]:
    """Choose the pairs that become rows, and count the others by the reason."""
    by_pair = {outcome.pair_id: outcome for outcome in decided}
    kept, left_out = [], Counter[str]()
    for pair in store.pairs():
        if (outcome := by_pair.get(pair.id)) is None:
            continue
        if (reason := _reason_against(pair, outcome, policy)) is None:
            kept.append((pair, outcome))
        else:
            left_out[reason] += 1
    if policy.ties == "error" and (num_ties := left_out["tie"]):
        raise DataError(
            f"{num_ties} of the pairs are tied",
            where="export.ties",
            fix="set export.ties to drop, half or both-ways; the votes are kept",
        )
    return kept, left_out


def _reason_against(pair: Pair, outcome: Outcome, policy: ExportPolicy) -> str | None:
    if outcome.winner in ("both_bad", "skip", "error"):
        return outcome.winner
    if policy.cut == "drop" and any(response.finish_reason == "length" for response in pair.responses):
        return "cut"
    is_tie = _p_first(outcome, policy) == 0.5
    return "tie" if is_tie and policy.ties in ("drop", "error") else None


def _p_first(outcome: Outcome, policy: ExportPolicy) -> float:
    """Return P(response 1 is better) as the policy has it."""
    if policy.labels == "soft" and outcome.p_first_response is not None:
        return outcome.p_first_response
    return {"1": 1.0, "2": 0.0}.get(outcome.winner, 0.5)


def _is_held_out(pair: Pair, policy: ExportPolicy) -> bool:
    """Hold out whole prompts: equal prompts stay together, however many pairs and rows they have."""
    prompt = json.dumps(text_to_json(pair.prompt))
    return fraction(policy.seed, "held out", prompt) < policy.eval_fraction


def preference_rows(pair: Pair, outcome: Outcome, policy: ExportPolicy) -> list[Row]:
    """Return the rows of a decided or tied pair: one, or two for a tie that is written both ways."""
    p_first = _p_first(outcome, policy)
    one, two = pair.responses
    if p_first == 0.5 and policy.ties == "both-ways":
        return [_row(pair, outcome, one, two), _row(pair, outcome, two, one)]
    row = _row(pair, outcome, one, two) if p_first >= 0.5 else _row(pair, outcome, two, one)
    if policy.labels == "soft" or p_first == 0.5:
        row["p_chosen"] = max(p_first, 1 - p_first)
    return [row]


def _row(pair: Pair, outcome: Outcome, chosen: Response, rejected: Response) -> Row:
    """Return one row; `chosen` and `rejected` have the shape of the prompt, strings or lists of messages."""
    row: Row = {
        "prompt": text_to_json(pair.prompt),
        "chosen": _completion(pair.prompt, chosen.text),
        "rejected": _completion(pair.prompt, rejected.text),
        "pair_id": pair.id,
        "labelers": [vote.labeler for vote in outcome.votes],
        "votes": _count_votes(pair, outcome, chosen),
        "source": {"chosen": _source(chosen), "rejected": _source(rejected)},
    }
    if strengths := [vote.strength for vote in outcome.votes if vote.strength]:
        row["strength"] = sum(strengths) / len(strengths)
    if tags := list(dict.fromkeys(tag for vote in outcome.votes for tag in vote.tags)):
        row["tags"] = tags
    if reasons := [vote.reason for vote in outcome.votes if vote.reason]:
        row["reasons"] = reasons
    return row


def _count_votes(pair: Pair, outcome: Outcome, chosen: Response) -> Row:
    winners = Counter(vote.winner for vote in outcome.votes)
    sides = (winners["1"], winners["2"])
    for_chosen, for_rejected = sides if chosen is pair.responses[0] else sides[::-1]
    return {"chosen": for_chosen, "rejected": for_rejected, "of": winners.total()}


def _completion(prompt: Text, text: str) -> object:
    return text_to_json(text if isinstance(prompt, str) else (Message("assistant", text),))


def _source(response: Response) -> Row:
    names = ("model", "model_digest", "temperature", "top_p", "seed", "finish_reason")
    values = asdict(response)
    return {name: values[name] for name in names}


def _write_formats(
    exchange: Exchange, folder: Path, formats: Sequence[Format]
) -> tuple[dict[str, dict[str, int]], tuple[str, ...]]:
    """Write each format; return what each file lacks, and the same in words."""
    folder.mkdir(exist_ok=True)
    files, notes = {}, []
    for name in dict.fromkeys(formats):
        file_name, write = _FORMATS[name]
        content, num_left_out = write(exchange)
        write_atomic(folder / file_name, content)
        files[file_name] = {"left_out": num_left_out}
        if num_left_out:
            notes.append(f"export/{file_name} leaves out {num_left_out} rows that its format cannot say")
    return files, tuple(notes)


def json_lines(rows: Sequence[Mapping[str, object]]) -> bytes:
    """Return rows as JSON Lines."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    # A lone surrogate has no UTF-8 form; backslashed it is what JSON itself writes.
    return text.encode("utf-8", errors="backslashreplace")
