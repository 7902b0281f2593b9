"""What `--help` promises: every command has a page with an example that fits a screen and is never cut."""

from collections.abc import Iterator

import pytest
import typer

from rlhf_cli.cli import STAGES, TOOLS, app, main


def command_lines() -> Iterator[str]:
    """Name every command, those inside a group too."""
    yield from STAGES
    for name, tool in TOOLS.items():
        yield name
        if isinstance(tool, typer.Typer):
            yield from (f"{name} {command.name}" for command in tool.registered_commands)


@pytest.mark.parametrize("line", list(command_lines()))
def test_each_page_has_an_example_fits_a_screen_and_is_whole(line, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*line.split(), "--help"]) == 0
    page = capsys.readouterr().out
    assert f"rlhf {line}" in page.partition("Example:")[2]
    assert len(page.splitlines()) <= 40
    assert max(map(len, page.splitlines())) <= 80
    assert "..." not in page.replace("[ARGS]...", "").replace("]...", "").replace("}...", "")


def test_a_wrong_option_points_at_the_page_of_its_command(capsys):
    for line in command_lines():
        assert main([*line.split(), "--no-such-option"]) == 2
        assert f"See `rlhf {line} --help`" in capsys.readouterr().err


def test_every_tool_is_registered_once():
    names = [command.name for command in app.registered_commands]
    names += [group.name for group in app.registered_groups]
    assert sorted(map(str, names)) == sorted([*STAGES, *TOOLS])
