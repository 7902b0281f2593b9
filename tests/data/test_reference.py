"""Reference log-probs: computed once per model and data, in the order of the pairs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from rlhf_cli.data.encode import EncodedPair, EncodedText
from rlhf_cli.data.reference import with_reference


def pair(first: int) -> EncodedPair:
    chosen, rejected = (EncodedText([first, i], [False, True], 1, "f:1") for i in (1, 2))
    return EncodedPair(chosen, rejected, 1.0, 0.0)


PAIRS = [pair(7), pair(8)]


class Scores:
    """Answer with the prompt's token, half of it for rejected; count the calls."""

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self, pairs: Sequence[EncodedPair]) -> Tensor:
        self.num_calls += 1
        return torch.tensor([[-p.chosen.input_ids[0], -p.chosen.input_ids[0] / 2] for p in pairs])


def test_values_reach_their_pairs_and_nothing_else_changes(tmp_path: Path) -> None:
    attached = with_reference(PAIRS, Scores(), folder=tmp_path / "new", model_digest="m")
    assert [p.reference_logprobs for p in attached] == [(-7.0, -3.5), (-8.0, -4.0)]
    assert [replace(p, reference_logprobs=(0.0, 0.0)) for p in attached] == PAIRS


def test_the_same_question_is_asked_once(tmp_path: Path) -> None:
    scores = Scores()
    first, second = (with_reference(PAIRS, scores, folder=tmp_path, model_digest="m") for _ in range(2))
    assert first == second
    assert scores.num_calls == 1


def test_another_model_or_row_or_mask_or_order_is_another_question(tmp_path: Path) -> None:
    scores = Scores()
    masked = replace(PAIRS[0], chosen=replace(PAIRS[0].chosen, loss_mask=[True, True]))
    swapped = replace(PAIRS[0], chosen=PAIRS[0].rejected, rejected=PAIRS[0].chosen)
    questions = [
        (PAIRS, "m"),
        (PAIRS, "n"),
        (PAIRS[::-1], "m"),
        (PAIRS[:1], "m"),
        ([masked], "m"),
        ([swapped], "m"),
    ]
    for pairs, digest in questions:
        with_reference(pairs, scores, folder=tmp_path, model_digest=digest)
    assert scores.num_calls == len(questions)


def test_labels_that_are_no_tokens_do_not_matter(tmp_path: Path) -> None:
    scores = Scores()
    with_reference(PAIRS, scores, folder=tmp_path, model_digest="m")
    relabelled = [replace(p, p_chosen=0.5, margin=3.0) for p in PAIRS]
    (one, _) = with_reference(relabelled, scores, folder=tmp_path, model_digest="m")
    assert (scores.num_calls, one.p_chosen, one.reference_logprobs) == (1, 0.5, (-7.0, -3.5))
