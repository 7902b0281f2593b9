"""Count the floating-point operations a stage cannot do without: no padding, no token twice, nothing unread.

A multiply-add is two operations. A forward pass costs, per token, 2 x the weights of the blocks, but for the last MLP
where nothing reads its output; per pair of a query and a key it sees, 4 x hidden size in each block; per logit row,
2 x hidden size x vocabulary. A backward pass costs twice its forward pass. Norms, softmax, the optimizer and
recomputation count as nothing, although they take time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Reads = Literal["logits", "values", "score"]


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Llama-like model. `kv_size` is the width of all key heads together."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    vocab_size: int
    kv_size: int

    @property
    def block_weights(self) -> int:
        """Count the matrix weights of all blocks."""
        attention = 2 * self.hidden_size * (self.hidden_size + self.kv_size)
        return self.num_layers * (attention + self.mlp_weights)

    @property
    def mlp_weights(self) -> int:
        """Count the matrix weights of one MLP."""
        return 3 * self.hidden_size * self.intermediate_size


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens of one example; each answer's count includes its EOS. One answer for sft and ppo, two for pairs."""

    prompt: int
    answers: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Count the prompt once."""
        return self.prompt + sum(self.answers)


def forward(shape: Shape, row: Row, reads: Reads) -> int:
    """Count one forward pass over a row whose answers share its prompt.

    logits    each answer token is predicted by the position before it, and its last token is never an input
    values    at each answer token, which is as many
    score     at the last token of each answer
    """
    logits = reads == "logits"
    answers = [answer - logits for answer in row.answers]
    num_tokens = row.prompt + sum(answers)
    num_read = {"logits": sum(answers) + 1, "values": sum(answers), "score": len(answers)}[reads]
    keys = _causal(row.prompt) + sum(answer * row.prompt + _causal(answer) for answer in answers)
    operations = 2 * (num_tokens * shape.block_weights - (num_tokens - num_read) * shape.mlp_weights)
    operations += 4 * shape.hidden_size * shape.num_layers * keys
    if logits:
        operations += 2 * shape.hidden_size * shape.vocab_size * sum(row.answers)
    return operations


def _causal(length: int) -> int:
    return length * (length + 1) // 2


def useful_flops(stage: str, shape: Shape, rows: Iterable[Row], *, epochs: int = 1) -> int:
    """Count a whole run of a stage over the rows.

    sft, train-rm   forward and backward in each epoch
    dpo             the same, and one forward pass of the reference in all
    ppo             one pass to sample, one each of reference, critic and reward model, then forward and backward of
                    policy and critic in each epoch
    """
    rows = list(rows)

    def passes(reads: Reads) -> int:
        return sum(forward(shape, row, reads) for row in rows)

    logits, values, score = passes("logits"), passes("values"), passes("score")
    return {
        "sft": 3 * epochs * logits,
        "train-rm": 3 * epochs * score,
        "dpo": (3 * epochs + 1) * logits,
        "ppo": 2 * logits + values + score + 3 * epochs * (logits + values),
    }[stage]
