"""The program `rlhf`, also as `python -m rlhf_cli`: it listens to signals before anything slow is imported."""

import sys
from contextlib import ExitStack

from rlhf_cli.run.ranks import find_place, leave
from rlhf_cli.run.signals import StopFlag

# As in commands/stages.py, whose imports take a moment: a scheduler may stop a run before they are through.
STAGES = ("sft", "collect", "train-rm", "ppo", "dpo")


def main() -> int:
    """Run the command line; return the exit code."""
    with ExitStack() as stack:
        # Tools stop at once and have nothing to save.
        stop = (
            stack.enter_context(StopFlag().installed()) if sys.argv[1:2] and sys.argv[1] in STAGES else None
        )
        from rlhf_cli.cli import main as run_command_line

        exit_code = run_command_line(stop=stop)
        if stop:
            stop.deafen()
            if find_place().size > 1:
                leave(exit_code)
        return exit_code


if __name__ == "__main__":
    sys.exit(main())
