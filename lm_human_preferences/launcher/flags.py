"""The commands, their flags, and the parsing of the words that a user gives.

fire turns the words into a call with every value as text. The trees of hyperparameters and the trees of flags below
parse and check the text.
"""

import re
from dataclasses import dataclass
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Type

from lm_human_preferences.hyperparameters import TREES
from lm_human_preferences.launcher import given_ranks
from lm_human_preferences.launcher.hosts import Host, num_ranks, parse_hosts, read_hostfile
from lm_human_preferences.launcher.save_dirs import DEFAULT_SAVE_DIR
from lm_human_preferences.runs.resuming import RESUME
from lm_human_preferences.runs.trackers import check_tracker
from lm_human_preferences.utils.errors import UserError, did_you_mean
from lm_human_preferences.utils.hyperparams import LIST_SEPARATOR, HParams, hparam

_NO_VALUE = '\0'  # the value of a flag that was given without one; no argument of a process can hold it


class Placement(NamedTuple):
    """The number of ranks and their hosts; without hosts, all ranks are on this one, or where they are given."""

    num_ranks: int
    hosts: List[Host]
    are_given: bool = False  # whether another launcher has started the ranks

    @property
    def is_this_process(self) -> bool:
        """Whether this process is the only rank."""
        return not self.are_given and self.num_ranks == 1 and not self.hosts


@dataclass
class Flags(HParams):
    """Flags of every command."""

    traceback: bool = hparam(False, 'Show the traceback of an error, too.')


@dataclass
class RankFlags(Flags):
    """Flags of the commands that can run on several ranks."""

    mpi: Optional[int] = hparam(None, 'Number of ranks. None: one per slot of the hosts, else one per GPU, else 1.')
    hosts: Optional[str] = hparam(None, 'Hosts of the ranks with their slots, as host1:8,host2:8. None: this host.')
    hostfile: Optional[str] = hparam(None, 'File with these hosts, one on each line, as host1:8 or host1 slots=8.')

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        if self.mpi is not None and self.mpi < 1:
            raise ValueError(f'{prefix}mpi must be 1 or more, not {self.mpi}')
        if self.hosts is not None and self.hostfile is not None:
            raise ValueError(f'{prefix}hosts and {prefix}hostfile are both given: give one')

    def placement(self) -> Placement:
        """Return the ranks that the flags ask for, or those that another launcher has started."""
        started = given_ranks.num_ranks(self.mpi, self.hosts is not None or self.hostfile is not None)
        if started is not None:
            return Placement(started, [], are_given=True)
        if self.hostfile is not None:
            hosts = read_hostfile(self.hostfile)
        else:
            hosts = [] if self.hosts is None else parse_hosts(self.hosts)
        return Placement(num_ranks(self.mpi, hosts), hosts)


@dataclass
class TrainFlags(RankFlags):
    """Flags of the training commands."""

    save_dir: str = hparam(None, 'Folder for runs, local or gs://BUCKET/PATH. The run is saved in SAVE_DIR/NAME.')
    mode: str = hparam('local', 'Where the run executes; only local.')
    dry_run: bool = hparam(False, 'Print the trials with their hyperparameters and run nothing.')
    labeler: Optional[str] = hparam(
        None, 'Short for --rewards.train_new_model.labels.schedule.labeler of train_policy: page or MODULE:FUNCTION.'
    )
    resume: str = hparam(
        'on',
        'on: resume the run in the folder. off: start in a new folder, NAME-2 …. overwrite: remove it and start anew.',
    )
    threads: Optional[int] = hparam(
        None, 'CPU threads of each rank. With 1, two equal runs have bit-identical parameters. None: all cores.'
    )
    track: Optional[str] = hparam(None, 'Send the statistics of every step to a tracker, too: wandb or trackio.')

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        if self.mode != 'local':
            raise ValueError(f'{prefix}mode must be local, not {self.mode!r}')
        if self.resume not in RESUME:
            raise ValueError(f'{prefix}resume must be on, off or overwrite, not {self.resume!r}')
        if self.threads is not None and self.threads < 1:
            raise ValueError(f'{prefix}threads must be 1 or more, not {self.threads}')
        check_tracker(self.track)
        if not self.save_dir or ('://' in self.save_dir and not re.match(r'gs://[^/]+', self.save_dir)):
            raise ValueError(f'{prefix}save_dir must be a local folder or gs://BUCKET/PATH, not {self.save_dir!r}')


class Command(NamedTuple):
    """The command line of a command."""

    description: str
    usage: str  # without launch.py
    flags: Type[Flags]
    words: Sequence[str] = ()  # the hyperparameters that words without a flag set; a single list takes all words

    @property
    def trains(self) -> bool:
        return self.flags is TrainFlags


TRAIN_USAGE = '{command} EXPERIMENT NAME [--save_dir=DIR] [--mpi=N] [--dry_run] [--any.hparam=value ...]'
COMMANDS = {
    'train_reward': Command(
        'Train a reward model on human labels.', TRAIN_USAGE.format(command='train_reward'), TrainFlags
    ),
    'train_policy': Command(
        'Fine-tune a policy with PPO, by default against a new reward model.',
        TRAIN_USAGE.format(command='train_policy'),
        TrainFlags,
    ),
    'train_lm': Command(
        'Train a language model on text with the next-token loss.', TRAIN_USAGE.format(command='train_lm'), TrainFlags
    ),
    'sample': Command(
        'Print responses of trained policies to queries or to your own prompts.',
        'sample --save_dir=DIR [--prompt=TEXT] [--temperature=1.0] [--nsamples=0] [--mpi=N]',
        RankFlags,
    ),
    'evaluate': Command(
        'Measure policies on held-out queries, and a reward model on labels.',
        'evaluate [RUN] [--labels=FILE] [--policies RUN MODEL initial] [--mpi=N]',
        RankFlags,
        words=['run'],
    ),
    'report': Command(
        'Write one HTML page with learning curves, figures and samples of one or more runs.',
        'report RUN [RUN ...] [--out=FILE]',
        Flags,
        words=['runs'],
    ),
    'convert': Command(
        'Exchange models with Hugging Face folders, and labels with prompt/chosen/rejected files.',
        'convert SOURCE TARGET [--savescope=policy] [--push=hf://OWNER/NAME]',
        Flags,
        words=['source', 'target'],
    ),
    'label': Command(
        "Ask people to judge a policy's responses, on a local web page.",
        'label RUN_OR_MODEL --out=FILE [--experiment=NAME] [--type=best_of_4] [--num_questions=1000] [--mpi=N]',
        RankFlags,
        words=['policy'],
    ),
}


def usage(command: str) -> str:
    """Return a command line that shows how to use a command."""
    return f'launch.py {COMMANDS[command].usage}'


def launch_flags(command: str) -> Flags:
    """Return the flags of a command that are no hyperparameters, at their defaults."""
    flags = COMMANDS[command].flags()
    if isinstance(flags, TrainFlags):
        flags.save_dir = f'{DEFAULT_SAVE_DIR}/{command}'
    return flags


def split_flags(flags: Dict[str, str], launch: Type[Flags], hparams: Type[HParams]) -> Tuple[Dict, Dict]:
    """Divide flags (name → text) into those of the launch and the hyperparameters; UserError for an unknown flag.

    Aliases become the current names. ValueError for a flag that is given by two names.
    """
    fields = {**hparams.tree(), **launch.tree()}
    flags = hparams.renamed(flags)
    for name, text in flags.items():
        if name not in fields:
            near = did_you_mean(name, fields, {other: field.description for other, field in fields.items()})
            raise UserError(f'no flag --{name}: did you mean --{near}?')
        if name == 'run.save_dir':
            raise UserError('--run.save_dir is SAVE_DIR/NAME: give --save_dir and NAME')
        if text == _NO_VALUE and fields[name].kind is not bool and not fields[name].is_group:
            raise UserError(f'--{name} needs a value: --{name}=VALUE')
    texts = {name: 'true' if text == _NO_VALUE else text for name, text in flags.items()}
    own = {name: text for name, text in texts.items() if name in launch.tree()}
    return own, {name: text for name, text in texts.items() if name not in own}


def words_as_flags(command: str, words: Tuple[str, ...]) -> Dict[str, str]:
    """Return the words without a flag as values of hyperparameters; UserError if there are too many."""
    names = COMMANDS[command].words
    if len(names) == 1 and TREES[command].tree()[names[0]].many:
        return {names[0]: _joined(words)} if words else {}
    refuse_words(words[len(names) :], command)
    return dict(zip(names, words))


def refuse_words(words: Tuple[str, ...], command: str) -> None:
    """Raise UserError if there are words that the command does not expect."""
    if words:
        raise UserError(f'unexpected argument {words[0]!r}: {usage(command)}')


def check_name(name: str) -> None:
    """Raise UserError for the NAME of a run that is not a path inside SAVE_DIR."""
    parts = name.split('/')
    if not re.match(r'[A-Za-z0-9._/-]+\Z', name) or any(part in ('', '.', '..') for part in parts):
        raise UserError(f'NAME {name!r} should be letters, digits and . _ - with / between groups, inside --save_dir')


def explicit(argv: List[str]) -> List[str]:
    """Return a command line that fire reads as it is meant. UserError for one that fire would answer in its own ways.

    Each flag without a value gets one that marks it, because fire reads a bare --normalize_before as 'no' plus a name.
    """
    if not argv or argv[0] not in COMMANDS:
        known = ', '.join(COMMANDS)
        if not argv or _is_flag(argv[0]):
            raise UserError(f'give a command first ({known}): {usage("train_policy")}')
        near = did_you_mean(argv[0], COMMANDS)
        raise UserError(f'no command {argv[0]!r}: did you mean {near}? (the commands are {known})')
    argv = _join_lists(argv)
    words: List[str] = []
    for word, following in zip(argv, [*argv[1:], None]):
        if word == '-' and words and _is_flag(words[-1]) and '=' not in words[-1]:
            words[-1] += '=-'  # fire would end the command there
            continue
        if re.match(r'--?(=|\Z)', word):  # fire would take no notice
            raise UserError(f'unexpected argument {word!r}: write --flag={word} where it is a value')
        bare = _is_flag(word) and '=' not in word and (following is None or _is_flag(following))
        words.append(f'{word}={_NO_VALUE}' if bare else word)
    return words


def _join_lists(argv: List[str]) -> List[str]:
    """Write `--policies A B` as one word with `=`: a flag with a list takes all words up to the next flag."""
    lists = {f'--{name}' for name, field in TREES[argv[0]].tree().items() if field.many}
    words: List[str] = []
    items: Optional[List[str]] = None  # of the list that is being read
    for word in argv:
        if items is not None and not _is_flag(word):
            items.append(word)
            words[-1] = f'{words[-1].partition("=")[0]}={_joined(items)}'
        else:
            items = [] if word in lists else None
            words.append(word)
    return words


def _joined(words: Sequence[str]) -> str:
    """Return words as the text of a list; no comma separates them, because a path may hold a comma."""
    return ''.join(LIST_SEPARATOR + word for word in words)


def _is_flag(word: str) -> bool:
    return re.match(r'--|-[A-Za-z]', word) is not None
