"""`rlhf eval`: measure models on held-out data."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from rlhf_cli.commands.options import Json, tool_group
from rlhf_cli.errors import UsageError

app = tool_group(
    "Measure models on held-out data, with 95 % intervals.", "rlhf eval reward runs/rm --data test.jsonl"
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A run, a model directory or a Hub name.")]
DataPaths = Annotated[
    list[str], typer.Option("--data", metavar="DATA", help="Held-out rows of any format. Repeatable.")
]
Prompts = Annotated[str, typer.Option("--prompts", metavar="DATA", help="Rows whose prompts are asked.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Use the first N rows of each source.")]
MaxLength = Annotated[
    int | None, typer.Option(min=2, metavar="N", help="Cut rows to N tokens; else to what the model reads.")
]
LossOn = Annotated[Literal["completion", "assistant", "all"], typer.Option(help="Which tokens count.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="How to answer: temperature, max_new_tokens, seed, template. Repeatable.",
    ),
]


@app.command("perplexity")
def perplexity(
    ctx: typer.Context,
    model: Model,
    data: DataPaths,
    loss_on: LossOn = "completion",
    max_length: MaxLength = None,
    limit: Limit = None,
    json_output: Json = False,
) -> None:
    """Tell how likely a model finds demonstrations or texts.

    \b
    Example:
      rlhf eval perplexity runs/sft --data test.jsonl
    """
    from rlhf_cli.tools import eval_language, eval_words

    found = eval_language.perplexity(model, data, loss_on=loss_on, max_length=max_length, limit=limit)
    record = {"model": model, "sources": [asdict(it) for it in found]}
    ctx.obj.show("eval-perplexity", record, eval_words.likelihoods(found))


@app.command("reward")
def reward(
    ctx: typer.Context,
    model: Model,
    data: DataPaths,
    max_length: MaxLength = None,
    limit: Limit = None,
    json_output: Json = False,
) -> None:
    """Tell how often a reward model agrees with comparisons.

    Accuracy with its interval, also where the chosen answer is the longer or the shorter one, calibration (ECE),
    and the correlation of score and length. Ties are left out.

    \b
    Example:
      rlhf eval reward runs/rm --data test.jsonl --data other.jsonl
    """
    from rlhf_cli.tools import eval_reward, eval_words

    found = eval_reward.reward(model, data, max_length=max_length, limit=limit)
    record = {"model": model, "sources": [asdict(it) for it in found]}
    ctx.obj.show("eval-reward", record, eval_words.agreements(found))


@app.command("wins")
def wins(
    ctx: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(metavar="RUN | A B", help="A collect run with two candidates, or two models."),
    ],
    prompts: Annotated[
        str | None,
        typer.Option("--prompts", metavar="DATA", help="With A and B: rows whose prompts they answer."),
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="RM", help="With A and B: the reward model that chooses.")
    ] = None,
    limit: Limit = None,
    settings: Settings = None,
    json_output: Json = False,
) -> None:
    """Tell how often the answers of A beat those of B.

    The votes of a collect run are those of people, of a judge or of a rule. With two models, answers are sampled
    and a reward model chooses. Ties count half; the rate at equal length takes out that longer answers win more.

    \b
    Example:
      rlhf eval wins runs/collect
      rlhf eval wins runs/ppo runs/sft --prompts test.jsonl --by runs/rm
    """
    from rlhf_cli.tools.manner import read_manner

    manner = read_manner(settings or ())
    direct = len(models) == 2 and prompts is not None and by is not None
    if not direct and (len(models) > 1 or prompts or by):
        raise UsageError(
            "two models need --prompts and --by, a collect run neither", fix="See `rlhf eval wins --help`."
        )
    from rlhf_cli.tools import eval_words
    from rlhf_cli.tools.eval_wins import wins_by_reward, wins_in_run

    if direct and prompts and by:
        found = wins_by_reward((models[0], models[1]), by, prompts, manner=manner, limit=limit)
    else:
        found = wins_in_run(Path(models[0]))
    ctx.obj.show("eval-wins", asdict(found), eval_words.wins(found))


@app.command("kl")
def kl(
    ctx: typer.Context,
    one: Annotated[str, typer.Argument(metavar="A", help="The model whose answers are read.")],
    other: Annotated[str, typer.Argument(metavar="B", help="The model it is held against.")],
    prompts: Prompts,
    limit: Limit = None,
    settings: Settings = None,
    json_output: Json = False,
) -> None:
    """Tell how far a model has moved from another.

    KL(A || B) in nats: A answers the prompts, and at each token of its answers both distributions over the whole
    vocabulary are compared.

    \b
    Example:
      rlhf eval kl runs/ppo runs/sft --prompts test.jsonl
    """
    from rlhf_cli.tools.manner import read_manner

    manner = read_manner(settings or ())
    from rlhf_cli.tools import eval_language, eval_words

    found = eval_language.kl(one, other, prompts, manner=manner, limit=limit)
    ctx.obj.show("eval-kl", {"a": one, "b": other, **asdict(found)}, eval_words.distance(found, one, other))
