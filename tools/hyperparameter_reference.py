"""Write docs/hyperparameters.md: a table for each command with its flags, their types, defaults and descriptions.

    python tools/hyperparameter_reference.py

The data are the trees of hyperparameters and flags. A test compares the page with them.
"""

import os
import sys
from typing import List

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from lm_human_preferences.hyperparameters import TREES  # noqa: E402
from lm_human_preferences.launcher.flags import COMMANDS, launch_flags, usage  # noqa: E402
from lm_human_preferences.launcher.help import default_of  # noqa: E402
from lm_human_preferences.utils.hyperparams import Field, HParams  # noqa: E402

PAGE = os.path.join(ROOT, 'docs', 'hyperparameters.md')
NEW_MODEL = 'rewards.train_new_model'  # its fields are those of train_reward
INTRODUCTION = """# Hyperparameters

<!-- Written by tools/hyperparameter_reference.py. Change the descriptions in lm_human_preferences/hyperparameters. -->

Every value is a flag by its dotted name: `--ppo.lr 1e-5` or `--ppo.lr=1e-5`. An experiment file sets the same names,
nested: `ppo: {lr: 1e-5}`. `launch.py COMMAND --help` prints the tables below.

- A *required* value has no default. An experiment or a flag must set it.
- The flag of a group takes `on` or `off`. A flag inside the group switches it on.
- A list takes several words: `--policies RUN MODEL initial`.
- Sections are those of the paper, [Fine-Tuning Language Models from Human Preferences](https://arxiv.org/abs/1909.08593).
"""


def page() -> str:
    """Return the reference page, in Markdown."""
    return '\n'.join([INTRODUCTION, *(_command_section(command) for command in COMMANDS)])


def _command_section(command: str) -> str:
    lines = [f'## {command}', '', COMMANDS[command].description, '', f'    ./{usage(command)}', '']
    if command == 'train_policy':
        lines += [f'`--{NEW_MODEL}.NAME` sets the hyperparameter NAME of `train_reward` for the new reward model.', '']
    lines += ['| Flag | Type | Default | What it does |', '|---|---|---|---|']
    lines += [*_rows(launch_flags(command)), *_rows(TREES[command]())]
    return '\n'.join([*lines, ''])


def _rows(hparams: HParams) -> List[str]:
    rows = []
    for name, field in hparams.tree().items():
        if name.startswith(NEW_MODEL + '.') or (field.is_group and not field.optional):
            continue
        about = field.description
        if field.aliases:
            group = name.rpartition('.')[0]
            older = [f'`--{group}.{alias}`' if group else f'`--{alias}`' for alias in field.aliases]
            about += f' Older name: {", ".join(older)}.'
        rows.append(f'| `--{name}` | {field} | {_default(hparams, name, field)} | {about} |')
    return rows


def _default(hparams: HParams, name: str, field: Field) -> str:
    value = default_of(hparams, name)
    if field.is_group:
        return 'off'
    if value is None:
        return 'None' if field.optional else '*required*'
    return f'`{value!r}`' if value != [] else 'empty'


def main() -> None:
    os.makedirs(os.path.dirname(PAGE), exist_ok=True)
    with open(PAGE, 'w', encoding='utf-8') as file:
        file.write(page())
    print(PAGE)


if __name__ == '__main__':
    main()
