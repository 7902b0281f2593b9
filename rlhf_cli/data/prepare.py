"""From configured sources to encoded rows for training and evaluation, with a report of all that happened."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from transformers import PreTrainedTokenizerBase

from rlhf_cli.config.sections import Data, Source
from rlhf_cli.data.encode import EncodedPair, EncodedPrompt, EncodedText, Encoder
from rlhf_cli.data.files import Reading, Rejected
from rlhf_cli.data.fingerprint import Row, fingerprint, template_fingerprint, tokenizer_fingerprint
from rlhf_cli.data.labelled import beside_strangers
from rlhf_cli.data.readers import read_comparisons, read_demonstrations, read_labelled, read_prompts
from rlhf_cli.data.report import data_report, report_text, samples_text
from rlhf_cli.data.split import HasPrompt, prompt_key, split_by_prompt
from rlhf_cli.data.token_cache import TokenCache
from rlhf_cli.errors import DataError
from rlhf_cli.records import Comparison, Demonstration, Labelled, Prompt, Text
from rlhf_cli.run.directory import write_atomic
from rlhf_cli.run.session import Run

R = TypeVar("R", bound=HasPrompt)
E = TypeVar("E", bound=Row)

_OVERLAP = "warning: evaluation rows whose prompt is trained on"


@dataclass(frozen=True, slots=True)
class Records(Generic[R]):
    """Rows as read, split: nothing of `eval` shares a prompt with `train` when they come from one source."""

    train: list[R]
    eval: list[R]
    train_reading: Reading[R]
    eval_reading: Reading[R] | None

    def keep(self, wanted: Callable[[R], bool], reason: str) -> "Records[R]":
        """Leave out the rows that are not wanted, counted under a reason in the reading they come from."""
        train, evaluation = ([r for r in rows if wanted(r)] for rows in (self.train, self.eval))
        num_train, num_eval = len(self.train) - len(train), len(self.eval) - len(evaluation)
        if self.eval_reading is None:
            read_train, read_eval = _counted(self.train_reading, reason, num_train + num_eval), None
        else:
            read_train = _counted(self.train_reading, reason, num_train)
            read_eval = _counted(self.eval_reading, reason, num_eval)
        return Records(train, evaluation, read_train, read_eval)


def _counted(reading: Reading[R], reason: str, count: int) -> Reading[R]:
    return replace(reading, counts=reading.counts | {reason: reading.counts.get(reason, 0) + count})


@dataclass(frozen=True, slots=True)
class Prepared(Generic[E]):
    """Encoded rows, the report about them as JSON objects, text and rendered samples, and every row left out.

    `identity` has what a resumed run must find as it was, by the name of the configuration key or the thing.
    """

    train: list[E]
    eval: list[E]
    reports: list[dict[str, object]]
    samples: str
    rejected: Sequence[Rejected] = ()
    identity: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Render the report for people."""
        return "\n".join(report_text(report) for report in self.reports)

    def publish(self, run: Run) -> None:
        """Write the report and samples into the run, and both to stderr.

        Raises RunConflictError where the run has been trained on other rows before.
        """
        run.identify(self.identity)
        run.dir.data_report.parent.mkdir(exist_ok=True)
        write_atomic(run.dir.data_report, json.dumps(self.reports, indent=1, ensure_ascii=False))
        write_atomic(run.dir.samples, self.samples)
        if self.rejected:
            lines = [json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in self.rejected]
            write_atomic(run.dir.rejects, "".join(lines))
        run.say(self.text)
        run.say("first row, trained tokens between ⟦ ⟧:\n" + self.samples.split("\n\n---")[0].strip())


def demonstrations_of(section: Data, seed: int) -> Records[Demonstration]:
    """Read the demonstrations of a data section."""
    return _records(
        section, seed, lambda sources: read_demonstrations(sources, on_bad_row=section.on_bad_row, seed=seed)
    )


def comparisons_of(section: Data, seed: int) -> Records[Comparison]:
    """Read the comparisons of a data section."""
    return _records(
        section, seed, lambda sources: read_comparisons(sources, on_bad_row=section.on_bad_row, seed=seed)
    )


def without_ties(records: Records[Comparison]) -> Records[Comparison]:
    """Leave out pairs in which neither answer is better."""
    return records.keep(lambda record: record.p_chosen != 0.5, "dropped: tie")


def labelled_of(section: Data, seed: int) -> Records[Comparison]:
    """Read answers with labels of their own, each laid beside a stranger from its own split."""
    records = _records(
        section, seed, lambda sources: read_labelled(sources, on_bad_row=section.on_bad_row, seed=seed)
    )
    return Records(
        beside_strangers(records.train),
        beside_strangers(records.eval),
        _as_pairs(records.train_reading),
        None if records.eval_reading is None else _as_pairs(records.eval_reading),
    )


def _as_pairs(reading: Reading[Labelled]) -> Reading[Comparison]:
    pairs = beside_strangers(reading.records)
    return Reading(pairs, reading.num_rows, reading.formats, reading.rejected, reading.counts)


def prompts_of(section: Data, seed: int) -> Records[Prompt]:
    """Read the prompts of a data section, each prompt once."""
    return _records(
        section,
        seed,
        lambda sources: read_prompts(sources, on_bad_row=section.on_bad_row, seed=seed, deduplicate=True),
    )


def _records(section: Data, seed: int, read: Callable[[list[Source]], Reading[R]]) -> Records[R]:
    reading = read(list(section.train))
    if section.eval is not None:
        held_out = read(list(section.eval))
        known = {prompt_key(record) for record in reading.records}
        num_known = sum(prompt_key(record) in known for record in held_out.records)
        held_out = _counted(held_out, _OVERLAP, num_known)
        return Records(reading.records, held_out.records, reading, held_out)
    train, held_out_rows = split_by_prompt(reading.records, section.eval_fraction, seed)
    return Records(train, held_out_rows, reading, None)


def encode_demonstrations(
    records: Records[Demonstration], make_encoder: Callable[[], Encoder], *, loss_on: str
) -> Prepared[EncodedText]:
    """Encode both splits. Raises DataError when nothing is left, or when no row teaches the model to stop."""
    train, evaluation = make_encoder(), make_encoder()
    train_rows = train.demonstrations(records.train, loss_on=loss_on)
    eval_rows = evaluation.demonstrations(records.eval, loss_on=loss_on)
    _require_stops(train, train_rows)
    samples = samples_text(train_rows, train.tokenizer)
    return _prepared(records, (train, train_rows), (evaluation, eval_rows), samples)


def encode_comparisons(
    records: Records[Comparison], make_encoder: Callable[[], Encoder]
) -> Prepared[EncodedPair]:
    """Encode both splits of preference data. Raises as `encode_demonstrations` does."""
    train, evaluation = make_encoder(), make_encoder()
    train_pairs, eval_pairs = train.comparisons(records.train), evaluation.comparisons(records.eval)
    _require_stops(train, train_pairs)
    sides = [side for pair in train_pairs[:3] for side in (pair.chosen, pair.rejected)]
    samples = samples_text(sides, train.tokenizer, num_rows=6)
    return _prepared(records, (train, train_pairs), (evaluation, eval_pairs), samples)


def encode_prompts(
    records: Records[Prompt], make_encoder: Callable[[], Encoder], *, room_for_answer: int
) -> Prepared[EncodedPrompt]:
    """Encode both splits of prompts. Raises DataError when nothing is left."""
    train, evaluation = make_encoder(), make_encoder()
    max_prompt_length = train.max_length - room_for_answer
    train_prompts = train.prompts(records.train, max_prompt_length=max_prompt_length)
    eval_prompts = evaluation.prompts(records.eval, max_prompt_length=max_prompt_length)
    if not train_prompts:
        raise DataError(
            f"no prompt is left: the limit is {max_prompt_length} tokens",
            where="data.max_length",
            fix="data.max_length (and what the model reads) counts the prompt and rollout.max_new_tokens together",
        )
    rows = [
        EncodedText(p.input_ids, [False] * len(p.input_ids), len(p.input_ids), p.record.origin)
        for p in train_prompts[:5]
    ]
    return _prepared(
        records, (train, train_prompts), (evaluation, eval_prompts), samples_text(rows, train.tokenizer)
    )


def _prepared(
    records: Records[R], train: tuple[Encoder, list[E]], held_out: tuple[Encoder, list[E]], samples: str
) -> Prepared[E]:
    reading = records.train_reading
    if records.eval and records.eval_reading is None:
        reading = _counted(reading, "held out for evaluation", len(records.eval))
    reports = [data_report("train", reading, train[0], num_kept=len(train[1]))]
    if records.eval:
        split = Reading(records.eval, len(records.eval), ["split from the training rows by prompt"], [], {})
        reports.append(
            data_report("eval", records.eval_reading or split, held_out[0], num_kept=len(held_out[1]))
        )
    rejected = [*reading.rejected, *(records.eval_reading.rejected if records.eval_reading else [])]
    tokenizer = train[0].tokenizer
    identity = {
        "data.train": fingerprint(train[1]),
        "data.eval": fingerprint(held_out[1]),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "chat_template": template_fingerprint(tokenizer),
    }
    return Prepared(train[1], held_out[1], reports, samples, rejected, identity)


def _require_stops(encoder: Encoder, rows: Sequence[object]) -> None:
    if not rows:
        reasons = "; ".join(f"{count} {reason}" for reason, count in encoder.tally.counts.items() if count)
        raise DataError(
            f"no row is left to train on ({reasons or 'none was read'})",
            where="data.train",
            fix="often data.max_length is too small or the format is not the intended one",
        )
    if not encoder.tally.counts["rows that end in a trained EOS"]:
        raise DataError(
            "no row ends in a trained EOS, so the model would never learn to stop",
            where="data.max_length",
            fix="raise data.max_length (every row is cut), or choose a chat template that closes assistant turns",
        )


def texts_of(records: Sequence[Demonstration]) -> list[str]:
    """List all text of demonstrations, for training a tokenizer."""
    return [_plain(part) for record in records for part in (record.prompt, record.completion)]


def _plain(text: Text) -> str:
    return text if isinstance(text, str) else "\n".join(message.content for message in text)


def make_encoder_of(
    section: Data,
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: Sequence[int],
    max_positions: int | None,
    *,
    cache: Path | None = None,
) -> Callable[[], Encoder]:
    """Give a factory of encoders with a tally of their own; no row is longer than the model reads.

    Large data are encoded once for all attempts of a run if there is a folder `cache` to keep them in.
    """
    settings = (section.template, sorted(stop_ids))
    kept = None if cache is None else TokenCache(cache, tokenizer, settings)
    return lambda: Encoder(
        tokenizer,
        stop_ids=stop_ids,
        template=section.template,
        max_length=min(section.max_length, max_positions or section.max_length),
        over_length=section.over_length,
        cache=kept,
    )
