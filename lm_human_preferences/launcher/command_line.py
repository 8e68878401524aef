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
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import fire
from fire.decorators import SetParseFn

from lm_human_preferences import experiments
from lm_human_preferences.hyperparameters import TREES, EvaluateHParams
from lm_human_preferences.launcher import mpiexec, rank
from lm_human_preferences.launcher.hosts import Host, num_ranks, parse_hosts, read_hostfile, take_gpu
from lm_human_preferences.launcher.save_dirs import DEFAULT_SAVE_DIR, check_run_folder, forbid_world_writable_files
from lm_human_preferences.mpi.ranks import THREADS_VARIABLE
from lm_human_preferences.remote.mirror import mirrored
from lm_human_preferences.runs import resuming
from lm_human_preferences.runs.results import RESULTS_FILE
from lm_human_preferences.utils.errors import UserError, did_you_mean, user_message
from lm_human_preferences.utils.hyperparams import LIST_SEPARATOR, HParams, hparam
from lm_human_preferences.utils.progress import say

TRAIN_USAGE = 'launch.py {command} EXPERIMENT NAME [--save_dir=DIR] [--mpi=N] [--dry_run] [--any.hparam=value ...]'
USAGES = {  # of the commands without an experiment
    'sample': 'launch.py sample --save_dir=DIR [--prompt=TEXT] [--temperature=1.0] [--nsamples=0] [--mpi=N]',
    'evaluate': 'launch.py evaluate [RUN] [--labels=FILE] [--policies RUN MODEL initial]',
    'report': 'launch.py report RUN [RUN ...] [--out=FILE]',
    'convert': 'launch.py convert SOURCE TARGET [--savescope=policy]',
    'label': 'launch.py label RUN_OR_MODEL --out=FILE [--experiment=NAME] [--type=best_of_4] [--num_questions=1000]',
}
# What their words without a flag set: each word a hyperparameter, or all of them a list.
POSITIONAL = {
    'sample': [],
    'evaluate': ['run'],
    'report': ['runs'],
    'convert': ['source', 'target'],
    'label': ['policy'],
}
_NO_VALUE = '\0'  # the value of a flag given without one; no argument of a process can hold it


@dataclass
class Flags(HParams):
    """Flags of every command beside its hyperparameters."""

    traceback: bool = hparam(False, 'Show the traceback of an error, too.')


@dataclass
class RankFlags(Flags):
    """Flags of the commands that run on several ranks."""

    mpi: Optional[int] = hparam(None, 'Number of ranks. None: one per slot of the hosts, else one per GPU, else 1.')
    hosts: Optional[str] = hparam(None, 'Hosts of the ranks with their slots, as host1:8,host2:8. None: this host.')
    hostfile: Optional[str] = hparam(None, 'File with these hosts, one on each line, as host1:8 or host1 slots=8.')

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
class TrainFlags(RankFlags):
    """Flags of the train commands beside their hyperparameters."""

    save_dir: str = hparam(None, 'Folder for runs, local or gs://BUCKET/PATH. The run is saved in SAVE_DIR/NAME.')
    mode: str = hparam('local', 'Where the run executes; only local.')
    dry_run: bool = hparam(False, 'Print the trials with their hyperparameters and run nothing.')
    labeler: Optional[str] = hparam(
        None, 'Short for --rewards.train_new_model.labels.schedule.labeler of train_policy: page or MODULE:FUNCTION.'
    )
    resume: str = hparam(
        'on',
        'on: resume the run in the folder. off: start in a new folder (NAME-2, …). overwrite: remove it, start anew.',
    )
    threads: Optional[int] = hparam(
        None, 'CPU threads of each rank. With 1, two equal runs have bit-identical parameters. None: all cores.'
    )

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        if self.mode != 'local':
            raise ValueError(f'{prefix}mode must be local, not {self.mode!r}')
        if self.resume not in resuming.RESUME:
            raise ValueError(f'{prefix}resume must be on, off or overwrite, not {self.resume!r}')
        if self.threads is not None and self.threads < 1:
            raise ValueError(f'{prefix}threads must be 1 or more, not {self.threads}')
        if not self.save_dir or ('://' in self.save_dir and not re.match(r'gs://[^/]+', self.save_dir)):
            raise ValueError(f'{prefix}save_dir must be a local folder or gs://BUCKET/PATH, not {self.save_dir!r}')


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
def sample(*words, **flags):
    """Print what trained policies make of queries or of your own prompts."""
    _run_tool('sample', words, flags)


@SetParseFn(str)
def evaluate(*words, **flags):
    """Measure policies on held-out queries, and a reward model on labels."""
    _run_tool('evaluate', words, flags)


@SetParseFn(str)
def report(*words, **flags):
    """Write one HTML page of learning curves, figures and samples of one or more runs."""
    _run_tool('report', words, flags)


@SetParseFn(str)
def convert(*words, **flags):
    """Exchange models with Hugging Face folders, and labels with prompt/chosen/rejected files."""
    _run_tool('convert', words, flags)


@SetParseFn(str)
def label(*words, **flags):
    """Ask people to judge a policy's continuations, on a local web page."""
    _run_tool('label', words, flags)


COMMANDS = {
    function.__name__: function
    for function in (train_reward, train_policy, train_lm, sample, evaluate, report, convert, label)
}


def main(argv: Optional[List[str]] = None) -> None:
    """Run the command that `argv` (default: this process's arguments) asks for.

    Bad input ends the process with status 2 and one line on standard error.
    """
    argv = sys.argv[1:] if argv is None else argv
    forbid_world_writable_files()
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
    launch = _launch_flags(command)
    with _bad_input():
        own, overrides = _split(flags, TrainFlags, TREES[command])
        launch.override_from_str_dict(own)
        launch.validate()
        if launch.labeler is not None:
            if command != 'train_policy':
                raise ValueError(f'--labeler is for train_policy, which collects labels, not for {command}')
            overrides['rewards.train_new_model.labels.schedule.labeler'] = launch.labeler
        definition = experiments.load(experiment)
        trials = definition.trials(command, overrides)
        placement = launch.placement()
        save_dir = os.path.expanduser(launch.save_dir)
        if launch.resume == 'off':
            name = resuming.unused_name(save_dir, name)
        runs = []
        for trial in trials:
            folder = os.path.join(save_dir, name, trial.descriptor).rstrip('/')
            trial.hparams.run.save_dir = folder
            try:
                trial.hparams.validate(num_ranks=placement.num_ranks)
            except (TypeError, ValueError) as error:
                by_flags = overrides or placement.num_ranks > 1
                raise UserError(str(error) if by_flags else f'{definition.name}: {error}') from error
            runs.append(Run(folder, trial.hparams))
    for number, run in enumerate(runs, start=1):
        if launch.dry_run:
            print(f'trial {number} of {len(runs)}: {command} in {run.folder} on {placement.num_ranks} rank(s)')
            run.hparams.dump()
        else:
            with mirrored(run.folder) as folder:
                run.hparams.run.save_dir = folder
                check_run_folder(folder, save_dir)
                evaluation = definition.evaluation(folder) if command == 'train_policy' else None
                _run(command, Run(folder, run.hparams), placement, launch, evaluation)


def _run_tool(command: str, words: Tuple[str, ...], flags: Dict[str, str]) -> None:
    """A command without an experiment; `words` are its arguments without a flag."""
    launch, hparams = _launch_flags(command), TREES[command]()
    with _bad_input():
        texts = {**_name_words(command, words, hparams), **flags}
        own, texts = _split(texts, type(launch), type(hparams))
        launch.override_from_str_dict(own)
        hparams.override_from_str_dict(texts)
        launch.validate()
        hparams.validate()
        placement = launch.placement() if isinstance(launch, RankFlags) else Placement(1, [])
    if command == 'sample' and hparams.prompt == '-':
        try:
            hparams.prompt = sys.stdin.buffer.read().decode('utf-8').rstrip('\n')
        except UnicodeDecodeError as error:
            raise UserError(f'standard input: not UTF-8 text: byte {error.start}') from None
    placement.run(command, hparams, launch.traceback)


def _launch_flags(command: str) -> Flags:
    """The flags of a command beside its hyperparameters, at their defaults."""
    if command not in USAGES:
        return TrainFlags(save_dir=f'{DEFAULT_SAVE_DIR}/{command}')
    return RankFlags() if command == 'sample' else Flags()


def _name_words(command: str, words: Tuple[str, ...], hparams: HParams) -> Dict[str, str]:
    """The words without a flag as values of hyperparameters."""
    names = POSITIONAL[command]
    if len(names) == 1 and hparams.tree()[names[0]].many:
        return {names[0]: _joined(words)} if words else {}
    _refuse(words[len(names) :], USAGES[command])
    return dict(zip(names, words))


def _run(
    command: str, run: Run, placement: Placement, launch: TrainFlags, evaluation: Optional[EvaluateHParams]
) -> None:
    if launch.threads:
        os.environ[THREADS_VARIABLE] = str(launch.threads)
    resuming.check_owner(command, run.folder)
    with resuming.claimed(run.folder):
        check_run_folder(run.folder, os.path.expanduser(launch.save_dir))  # again: now nobody can put another there
        if launch.resume == 'overwrite':
            resuming.clear(run.folder)
        finished = resuming.is_finished(command, run.hparams, placement.num_ranks)
        if finished:
            print(f'{run.folder}: this run is finished')
        else:
            if launch.resume == 'off':
                print(f'{command} in {run.folder}', flush=True)
            # Before the first stage, whose checkpoints do not hold all of them.
            resuming.save_hparams(run.folder, run.hparams)
            placement.run(command, run.hparams, launch.traceback)
        if evaluation is not None and not (finished and os.path.exists(os.path.join(run.folder, RESULTS_FILE))):
            _evaluate(evaluation)
        if not finished or not os.path.exists(os.path.join(run.folder, resuming.REPORT_FILE)):
            _write_report(run.folder)


def _evaluate(hparams: EvaluateHParams) -> None:
    """Measure a finished run as its experiment asks. The run stands whether or not that works."""
    try:
        from lm_human_preferences.evaluate import evaluate as measure  # loads TensorFlow

        measure(hparams)
    except Exception as error:
        print(f'note: the run is complete, but it could not be evaluated: {error}', file=sys.stderr)


def _write_report(folder: str) -> None:
    """Leave a report in a finished run's folder. The run stands whether or not there can be one."""
    try:
        from lm_human_preferences import report  # loads TensorFlow, to read event files

        say(f'report: {report.write_report([folder])}')
    except Exception as error:
        print(f'note: the run is complete, but there is no report of it: {error}', file=sys.stderr)


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
    argv = _join_lists(argv)
    words = []
    for word, following in zip(argv, [*argv[1:], None]):
        if word == '-' and words and _is_flag(words[-1]) and '=' not in words[-1]:
            words[-1] += '=-'  # fire would end the command there
            continue
        if word in ('-', '--'):
            raise UserError(f'unexpected argument {word!r}: write --flag={word} where it is a value')
        bare = _is_flag(word) and '=' not in word and (following is None or _is_flag(following))
        words.append(f'{word}={_NO_VALUE}' if bare else word)
    return words


def _join_lists(argv: List[str]) -> List[str]:
    """Write `--policies A B` as one word with `=`: of a flag that takes a list, all words up to the next flag."""
    lists = {f'--{name}' for name, field in TREES[argv[0]].tree().items() if field.many}
    words, items = [], None  # items: of the list in hand
    for word in argv:
        if items is not None and not _is_flag(word):
            items.append(word)
            words[-1] = f'{words[-1].partition("=")[0]}={_joined(items)}'
        else:
            items = [] if word in lists else None
            words.append(word)
    return words


def _joined(words: Sequence[str]) -> str:
    """Words as the value of a list. A path may hold a comma."""
    return ''.join(LIST_SEPARATOR + word for word in words)


def _is_flag(word: str) -> bool:
    return re.match(r'--|-[A-Za-z]', word) is not None


def _split(flags: Dict[str, str], launch: type, hparams: type) -> Tuple[Dict[str, str], Dict[str, str]]:
    """The flags that belong to the launch, and those that are hyperparameters; UserError for any other."""
    flags = hparams.renamed(flags)
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
        usages = [f'  {usage}' for usage in (TRAIN_USAGE.format(command='COMMAND'), *USAGES.values())]
        commands = [f'  {name:16} {function.__doc__}' for name, function in COMMANDS.items()]
        known = [f'  {name:16} {experiments.load(name).description}' for name in experiments.names()]
        heading = 'EXPERIMENT, or the path of a .yaml file:'
        more = 'Flags and their defaults: launch.py COMMAND --help'
        return '\n'.join(['Usage:', *usages, '', 'COMMAND:', *commands, '', heading, *known, '', more])
    usage = USAGES.get(command) or TRAIN_USAGE.format(command=command)
    experiment = '' if command in USAGES else ', before the experiment sets some'
    heading = f'Hyperparameters and their defaults{experiment}:'
    flags = ['Flags and their defaults:', *_flag_lines(_launch_flags(command))]
    lines = [f'Usage: {usage}', '', COMMANDS[command].__doc__, '', *flags, '', heading]
    return '\n'.join([*lines, *_flag_lines(TREES[command]())])


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
        if field.optional or not field.is_group:
            lines.append(f'      {field.description}')
    return lines
