"""The texts of --help: the commands and experiments, or the flags of one command."""

from typing import Any, List, Sequence

from lm_human_preferences import experiments
from lm_human_preferences.hyperparameters import TREES
from lm_human_preferences.launcher.flags import COMMANDS, TRAIN_USAGE, launch_flags, usage
from lm_human_preferences.utils.hyperparams import HParams


def help_text(argv: Sequence[str]) -> str:
    """Return the help that a command line asks for: that of the command in it, or the general help."""
    command = next((word for word in argv[:2] if word in COMMANDS), None)
    return _general_help() if command is None else _command_help(command)


def default_of(hparams: HParams, name: str) -> Any:
    """Return the value of a field in a tree of defaults; a field of a group that is off has its class's default."""
    value: Any = hparams.to_nested_dict()
    for part in name.split('.'):
        value = value.get(part) if isinstance(value, dict) else None
    return hparams.tree()[name].default if value is None else value


def _general_help() -> str:
    tools = [usage(name) for name, command in COMMANDS.items() if not command.trains]
    usages = [f'  {line}' for line in ('launch.py ' + TRAIN_USAGE.format(command='COMMAND'), *tools)]
    commands = [f'  {name:16} {command.description}' for name, command in COMMANDS.items()]
    known = [f'  {name:16} {experiments.load(name).description}' for name in experiments.names()]
    heading = 'EXPERIMENT, or the path of a .yaml file:'
    more = 'Flags and their defaults: launch.py COMMAND --help'
    return '\n'.join(['Usage:', *usages, '', 'COMMAND:', *commands, '', heading, *known, '', more])


def _command_help(command: str) -> str:
    title = [f'Usage: {usage(command)}', '', COMMANDS[command].description, '']
    flags = ['Flags and their defaults:', *_flag_lines(launch_flags(command)), '']
    changed = ', which the experiment may change' if COMMANDS[command].trains else ''
    hparams = [f'Hyperparameters and their defaults{changed}:', *_flag_lines(TREES[command]())]
    return '\n'.join([*title, *flags, *hparams])


def _flag_lines(hparams: HParams) -> List[str]:
    """Return two lines for each flag: name, type and default, then the description."""
    lines = []
    for name, field in sorted(hparams.tree().items()):
        if field.is_group and not field.optional:
            continue
        default = default_of(hparams, name)
        if field.is_group:
            lines.append(f'  --{name}: on or off')
        else:
            lines.append(f'  --{name}: {field}' + ('' if default is None else f' = {default!r}'))
        lines.append(f'      {field.description}')
    return lines
