"""`rlhf check` and `rlhf schema`: configurations without running them."""

import json
import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from rlhf_cli.commands.options import ConfigFile, Overrides
from rlhf_cli.commands.stages import StageName, import_stage


def check(
    config: ConfigFile,
    overrides: Overrides = None,
    stage: Annotated[StageName | None, typer.Option(help="The stage that the file is for.")] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read the data too; estimate steps and memory. Loads no weights.")
    ] = False,
) -> None:
    """Validate a configuration without running it.

    Without --stage, the stage is the one that line 1 names, as in `# rlhf: sft` or a $schema modeline;
    else the one stage that has such keys.

    \b
    Example:
      rlhf check --config sft.yaml
    """
    from rlhf_cli.config.guess import guess_stage
    from rlhf_cli.config.load import load_config

    name = stage or guess_stage(config, overrides or ())
    loaded = load_config(name, config, overrides or ())
    if deep:
        with redirect_stdout(sys.stderr):
            plan = import_stage(name).plan(loaded.config)
        sys.stderr.write(f"{plan}\n")
    sys.stdout.write(f"ok: {config} is a valid {name} config\n")


def schema(stage: Annotated[StageName, typer.Argument(help="The stage to describe.")]) -> None:
    """Print the JSON Schema of a stage's configuration.

    \b
    Example:
      rlhf schema sft > sft.schema.json
    """
    from rlhf_cli.config.schema import json_schema

    sys.stdout.write(json.dumps(json_schema(stage), indent=2) + "\n")
