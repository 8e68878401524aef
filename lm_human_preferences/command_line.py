"""The command line: flags become the trials of an experiment, and each trial becomes a run in its own folder.

fire turns words into a call of one of the functions below, with every value as the text that was given; the
trees of hyperparameters parse and check the text.
"""

import contextlib
import os
import re
import sys
import traceback
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import fire
from fire.decorators import SetParseFn

from lm_human_preferences import experiments, mpiexec, rank
from lm_human_preferences.hosts import Host, num_ranks, parse_hosts, read_hostfile, take_gpu
from lm_human_preferences.hyperparameters import TREES, SampleHParams
from lm_human_preferences.utils.errors import UserError, did_you_mean, user_message
from lm_human_preferences.utils.files import write_json
from lm_human_preferences.utils.hyperparams import HParams

TRAIN_USAGE = 'launch.py {command} EXPERIMENT NAME [--save_dir=DIR] [--mpi=N] [--dry_run] [--any.hparam=value ...]'
SAMPLE_USAGE = 'launch.py sample --save_dir=DIR [--savescope=policy] [--temperature=1.0] [--nsamples=0] [--mpi=N]'
_NO_VALUE = '\0'  # the value of a flag given without one; no argument of a process can hold it


@dataclass
class SampleFlags(HParams):
    """Flags of `sample` beside its hyperparameters."""

    mpi: Optional[int] = None  # number of ranks; None: one for each slot of the hosts, or each GPU
    hosts: Optional[str] = None  # host1:8,host2:8; None: this host
    hostfile: Optional[str] = None  # the same, one a line
    traceback: bool = False  # show where an error comes from

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        if self.mpi is not None and self.mpi < 1:
            raise ValueError(f'{prefix}mpi must be 1 or more, not {self.mpi}')
        if self.hosts is not None and self.hostfile is not None:
            raise ValueError(f'{prefix}hosts and {prefix}hostfile are both given: give one')

    def placement(self) -> 'Placement':
        """The ranks that the flags ask for."""
        if self.hostfile is not None:
            hosts = read_hostfile(self.hostfile)
        else:
            hosts = [] if self.hosts is None else parse_hosts(self.hosts)
        return Placement(num_ranks(self.mpi, hosts), hosts)


class Placement(NamedTuple):
    """How many ranks there are, and on which hosts; on this one when there are no hosts."""

    num_ranks: int
    hosts: List[Host]

    def run(self, command: str, hparams: HParams, show_traceback: bool) -> None:
        """Do a command's work in that many processes: this one if it is alone."""
        if self.num_ranks == 1 and not self.hosts:
            take_gpu()
            rank.run(command, hparams)
        else:
            mpiexec.start(command, hparams, self.num_ranks, self.hosts, show_traceback)


@dataclass
class TrainFlags(SampleFlags):
    """Flags of the train commands beside their hyperparameters."""

    save_dir: str = None
    mode: str = 'local'
    dry_run: bool = False

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        if self.mode != 'local':
            raise ValueError(f'{prefix}mode must be local, not {self.mode!r}')
        if not self.save_dir or '://' in self.save_dir:
            raise ValueError(f'{prefix}save_dir must be a local folder, not {self.save_dir!r}')


class Run(NamedTuple):
    """A trial and the folder it owns."""

    folder: str
    hparams: HParams


@SetParseFn(str)
def train_reward(experiment=None, name=None, *extra, **flags):
    """Train a reward model on human labels."""
    _train('train_reward', experiment, name, extra, flags)


@SetParseFn(str)
def train_policy(experiment=None, name=None, *extra, **flags):
    """Fine-tune a policy with PPO, by default against a new reward model."""
    _train('train_policy', experiment, name, extra, flags)


@SetParseFn(str)
def train_lm(experiment=None, name=None, *extra, **flags):
    """Train a language model on text by next-token loss."""
    _train('train_lm', experiment, name, extra, flags)


@SetParseFn(str)
def sample(*extra, **flags):
    """Print queries and continuations of a trained policy."""
    _refuse(extra, SAMPLE_USAGE)
    launch, hparams = SampleFlags(), SampleHParams()
    with _bad_input():
        own, texts = _split(flags, SampleFlags, SampleHParams)
        launch.override_from_str_dict(own)
        hparams.override_from_str_dict(texts)
        launch.validate()
        hparams.validate()
        placement = launch.placement()
    placement.run('sample', hparams, launch.traceback)


COMMANDS = {function.__name__: function for function in (train_reward, train_policy, train_lm, sample)}


def main(argv: Optional[List[str]] = None) -> None:
    """Run the command that `argv` (default: this process's arguments) asks for.

    Bad input ends the process with status 2 and one line on standard error.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        if '--help' in argv or '-h' in argv:
            print(_help(argv[0]))
        else:
            fire.Fire(COMMANDS, command=_explicit(argv), name='launch.py')
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        if '--traceback' in argv:
            traceback.print_exc()
        print(f'error: {message}', file=sys.stderr)
        sys.exit(2)


def _train(command: str, experiment: Optional[str], name: Optional[str], extra: tuple, flags: Dict[str, str]) -> None:
    usage = TRAIN_USAGE.format(command=command)
    if experiment is None or name is None:
        raise UserError(f'{"EXPERIMENT and NAME are" if experiment is None else "NAME is"} missing: {usage}')
    _refuse(extra, usage)
    _check_name(name)
    launch = TrainFlags(save_dir=f'/tmp/save/{command}')
    with _bad_input():
        own, overrides = _split(flags, TrainFlags, TREES[command])
        launch.override_from_str_dict(own)
        launch.validate()
        trials = experiments.load(experiment).trials(command, overrides)
        placement = launch.placement()
        runs = []
        for trial in trials:
            folder = os.path.join(os.path.expanduser(launch.save_dir), name, trial.descriptor).rstrip('/')
            trial.hparams.run.save_dir = folder
            trial.hparams.validate(num_ranks=placement.num_ranks)
            runs.append(Run(folder, trial.hparams))
    for number, run in enumerate(runs, start=1):
        if launch.dry_run:
            print(f'trial {number} of {len(runs)}: {command} in {run.folder} on {placement.num_ranks} rank(s)')
            run.hparams.dump()
        else:
            _run(command, run, placement, launch.traceback)


def _run(command: str, run: Run, placement: Placement, show_traceback: bool) -> None:
    try:
        os.makedirs(run.folder, exist_ok=True)
        write_json(rank.hparams_file(run.folder, command), run.hparams.to_nested_dict())
    except OSError as error:
        raise UserError(f'cannot write to {run.folder}: {error.strerror}; give another --save_dir') from error
    placement.run(command, run.hparams, show_traceback)
    if command == 'train_policy' and run.hparams.task.query_dataset == 'demo':
        # Imported late: it loads TensorFlow.
        from lm_human_preferences.demo import evaluation

        evaluation.report(run.folder)


@contextlib.contextmanager
def _bad_input() -> Iterator[None]:
    """While flags are read, what the trees of hyperparameters raise is the user's mistake."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def _check_name(name: str) -> None:
    parts = name.split('/')
    if not re.match(r'[A-Za-z0-9._/-]+\Z', name) or any(part in ('', '.', '..') for part in parts):
        raise UserError(f'NAME {name!r} should be letters, digits and . _ - with / between groups, inside --save_dir')


def _refuse(extra: Tuple[str, ...], usage: str) -> None:
    if extra:
        raise UserError(f'unexpected argument {extra[0]!r}: {usage}')


def _explicit(argv: List[str]) -> List[str]:
    """Give every flag without a value one that says so; fire reads a bare --normalize_before as a 'no' flag.

    Raises UserError for what fire would answer in its own ways.
    """
    if not argv or argv[0] not in COMMANDS:
        known = ', '.join(COMMANDS)
        if not argv or _is_flag(argv[0]):
            raise UserError(f'give a command first ({known}): {TRAIN_USAGE.format(command="train_policy")}')
        near = did_you_mean(argv[0], COMMANDS)
        raise UserError(f'no command {argv[0]!r}: did you mean {near}? (the commands are {known})')
    words = []
    for word, following in zip(argv, [*argv[1:], None]):
        if word in ('-', '--'):
            raise UserError(f'unexpected argument {word!r}: write --flag={word} where it is a value')
        bare = _is_flag(word) and '=' not in word and (following is None or _is_flag(following))
        words.append(f'{word}={_NO_VALUE}' if bare else word)
    return words


def _is_flag(word: str) -> bool:
    return re.match(r'--|-[A-Za-z]', word) is not None


def _split(flags: Dict[str, str], launch: type, hparams: type) -> Tuple[Dict[str, str], Dict[str, str]]:
    """The flags that belong to the launch, and those that are hyperparameters; UserError for any other."""
    fields = {**hparams.tree(), **launch.tree()}
    for name, text in flags.items():
        if name not in fields:
            raise UserError(f'no flag --{name}: did you mean --{did_you_mean(name, fields)}?')
        if name == 'run.save_dir':
            raise UserError('--run.save_dir is SAVE_DIR/NAME: give --save_dir and NAME')
        if text == _NO_VALUE and fields[name].kind is not bool and not fields[name].is_group:
            raise UserError(f'--{name} needs a value: --{name}=VALUE')
    texts = {name: 'true' if text == _NO_VALUE else text for name, text in flags.items()}
    own = {name: text for name, text in texts.items() if name in launch.tree()}
    return own, {name: text for name, text in texts.items() if name not in own}


def _help(command: str) -> str:
    if command not in COMMANDS:
        usages = [f'  {TRAIN_USAGE.format(command="COMMAND")}', f'  {SAMPLE_USAGE}', '']
        commands = [f'  {name:16} {function.__doc__}' for name, function in COMMANDS.items()]
        known = [f'  {name:16} {experiments.load(name).description}' for name in experiments.names()]
        heading = 'EXPERIMENT, or the path of a .yaml file:'
        more = 'Flags and their defaults: launch.py COMMAND --help'
        return '\n'.join(['Usage:', *usages, 'COMMAND:', *commands, '', heading, *known, '', more])
    hparams = TREES[command]()
    launch = SampleFlags() if command == 'sample' else TrainFlags(save_dir=f'/tmp/save/{command}')
    usage = SAMPLE_USAGE if command == 'sample' else TRAIN_USAGE.format(command=command)
    heading = 'Hyperparameters and their defaults, before the experiment sets some:'
    flags = ['Flags and their defaults:', *_flag_lines(launch), '', heading, *_flag_lines(hparams)]
    return '\n'.join([f'Usage: {usage}', '', COMMANDS[command].__doc__, '', *flags])


def _flag_lines(hparams: HParams) -> List[str]:
    values = hparams.to_nested_dict()
    lines = []
    for name, field in sorted(hparams.tree().items()):
        default: Any = values
        for part in name.split('.'):
            default = default.get(part) if isinstance(default, dict) else None
        if not field.is_group:
            lines.append(f'  --{name}: {field}' + ('' if default is None else f' = {default!r}'))
        elif field.optional:
            lines.append(f'  --{name}: on or off')
    return lines
