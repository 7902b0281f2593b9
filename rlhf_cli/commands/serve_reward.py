"""`rlhf serve-reward`: the reward of a ppo configuration behind HTTP."""

import sys
from typing import Annotated

import typer

from rlhf_cli.commands.options import ConfigFile, Overrides


def serve_reward(
    config: ConfigFile,
    overrides: Overrides = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every network.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8660,
) -> None:
    """Serve the rewards of a ppo configuration to runs elsewhere.

    Those runs name it as a reward: {kind: http, url: "http://host:8660/score"}. Whoever reaches the port can ask;
    keep it on loopback or a private network.

    \b
    Example:
      rlhf serve-reward --config ppo.yaml
    """
    from rlhf_cli.config.load import load_config
    from rlhf_cli.run.signals import StopFlag
    from rlhf_cli.tools.serve_reward import serve

    loaded = load_config("ppo", config, overrides or (), None)
    with StopFlag().installed() as stop:
        serve(loaded.config, host, port, should_stop=lambda: stop.requested, say=_say)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
