"""The options of every command, as the parser has them: none can be abbreviated, and a value that is none is refused in
one line that says what would be right."""

from __future__ import annotations

import argparse

import pytest

from caffe_tools.check import compare
from caffe_tools.command_line.cli import main, make_parser
from caffe_tools.command_line.shared import output
from caffe_tools.graph.builder import OPSET
from caffe_tools.training.training import ENGINES

(SUBPARSERS,) = (action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction))
COMMANDS = SUBPARSERS.choices
VALUES = [
    (command, action)
    for command, parser in COMMANDS.items()
    for action in parser._actions
    if action.option_strings and action.nargs is None
]
NO_NUMBERS = ("x", "nan", "inf", "-inf", "1e400", "4 5", "½")


def named(command, action):
    return f"{command} {action.option_strings[-1]}"


def required(command):
    """What ``command`` cannot go without, as words."""
    words = []
    for action in COMMANDS[command]._actions:
        if action.required:
            words += [*action.option_strings[-1:], "4"]
    return words


def refusal(capsys, *words):
    """The line with which the parser refuses the words."""
    with pytest.raises(SystemExit) as end:
        make_parser().parse_args(words)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_is_for(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert COMMANDS[command].description in " ".join(capsys.readouterr().out.split())
    assert COMMANDS[command].description.endswith(".")


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_can_be_abbreviated(command, capsys):
    options = {option for action in COMMANDS[command]._actions for option in action.option_strings}
    for option in options:
        shorter = option[:-1]
        if shorter.startswith("--") and len(shorter) > 2 and shorter not in options:
            assert f"unrecognized arguments: {shorter}" in refusal(capsys, command, *required(command), f"{shorter}=4")


@pytest.mark.parametrize(("command", "action"), VALUES, ids=[named(*value) for value in VALUES])
def test_a_value_that_is_none_is_refused_in_one_line_that_says_what_would_be_right(command, action, capsys):
    option = action.option_strings[-1]
    takes_numbers = action.type not in (None, str, output)
    assert takes_numbers or not isinstance(action.default, (int, float)), "give it a type of shared.py"
    assert action.type not in (int, float), "give it a type of shared.py"
    bad = [] if action.type is str else [""]
    for text in bad + list(NO_NUMBERS if takes_numbers else ()):
        line = refusal(capsys, command, *required(command), f"{option}={text}")
        assert option in line and ("give " in line or "choose from" in line)


@pytest.mark.parametrize(("command", "action"), VALUES, ids=[named(*value) for value in VALUES])
def test_a_number_however_large_or_negative_is_taken_or_refused_in_one_line(command, action, capsys):
    if action.type in (None, str, output):
        return
    for text in ("0", "-1", "1e30", "-" + "9" * 40, "9" * 40, "9" * 5000):
        try:
            make_parser().parse_args([command, *required(command), f"{action.option_strings[-1]}={text}"])
        except SystemExit:
            (line,) = capsys.readouterr().err.splitlines()
            assert action.option_strings[-1] in line


def test_what_the_parser_repeats_is_what_the_tools_say():
    """Their modules import too much for --help."""
    check, export = (make_parser().parse_args([name, *required(name)]) for name in ("check", "export"))
    assert (check.rtol, check.atol, export.opset) == (compare.RTOL, compare.ATOL, OPSET)
    (engine,) = (action for action in COMMANDS["train"]._actions if action.dest == "engine")
    assert engine.choices == tuple(ENGINES)
