"""Running of commands: flags become the trials of an experiment, and each trial becomes a run in its own folder."""

import contextlib
import os
import sys
import traceback
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import fire
from fire.decorators import SetParseFn

from lm_human_preferences import __version__, experiments
from lm_human_preferences.hyperparameters import TREES, EvaluateHParams
from lm_human_preferences.launcher import given_ranks, mpiexec, rank, run_parts
from lm_human_preferences.launcher.flags import (
    COMMANDS,
    Placement,
    RankFlags,
    TrainFlags,
    check_name,
    explicit,
    launch_flags,
    refuse_words,
    split_flags,
    usage,
    words_as_flags,
)
from lm_human_preferences.launcher.help import help_text
from lm_human_preferences.launcher.hosts import take_gpu
from lm_human_preferences.launcher.save_dirs import check_run_folder, forbid_world_writable_files
from lm_human_preferences.mpi.ranks import THREADS_VARIABLE, Ranks
from lm_human_preferences.remote.cache import expanded_home
from lm_human_preferences.remote.mirror import mirrored
from lm_human_preferences.runs import ownership, resuming
from lm_human_preferences.runs.run_folder import REPORT_FILE, RESULTS_FILE, hparams_file, save_hparams
from lm_human_preferences.runs.trackers import TRACK_VARIABLE
from lm_human_preferences.utils.errors import UserError, user_message
from lm_human_preferences.utils.files import read_stream
from lm_human_preferences.utils.hyperparams import HParams
from lm_human_preferences.utils.progress import OUTPUT, note, open_streams, part_of_run, say, whole_run
from lm_human_preferences.utils.text import without_secrets


class Run(NamedTuple):
    """A trial and the folder that belongs to it."""

    folder: str
    hparams: HParams


def main(argv: Optional[List[str]] = None) -> None:
    """Run the command that `argv` (default: this process's arguments) asks for.

    Bad input ends the process with status 2 and one line on standard error.
    """
    argv = sys.argv[1:] if argv is None else argv
    open_streams(steady=any(map(rank.runs_long, argv[:1])))
    forbid_world_writable_files()
    sys.excepthook = _print_traceback
    with given_ranks.joined():
        _obey(argv)


def _obey(argv: List[str]) -> None:
    """Do what a command line asks for. Bad input ends the process with status 2 and one line on standard error."""
    try:
        if argv[:1] == ['help'] or '--help' in argv or '-h' in argv:
            print(help_text(argv))
        elif argv in (['--version'], ['version']):
            print(f'lm-human-preferences {__version__}')
        else:
            fire.Fire({name: _handler(name) for name in COMMANDS}, command=explicit(argv), name='launch.py')
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and error.filename == OUTPUT:
            sys.exit(1)  # the reader of our output has left, as `head` does
        message = user_message(error)
        if message is None:
            raise
        if '--traceback' in argv:
            sys.stderr.write(without_secrets(traceback.format_exc()))
        print(f'error: {message}', file=sys.stderr)
        sys.exit(2)


def _print_traceback(*error: Any) -> None:
    """Print the traceback of a bug, without the secrets in URLs."""
    sys.stderr.write(without_secrets(''.join(traceback.format_exception(*error))))


def _handler(command: str) -> Callable:
    """Return the function that fire calls for a command, with every value as text."""

    @SetParseFn(str)
    def train(experiment=None, name=None, *extra, **flags):
        _train(command, experiment, name, extra, flags)

    @SetParseFn(str)
    def run_tool(*words, **flags):
        _run_tool(command, words, flags)

    return train if COMMANDS[command].trains else run_tool


def _train(command: str, experiment: Optional[str], name: Optional[str], extra: tuple, flags: Dict[str, str]) -> None:
    """Run all trials of an experiment, or print them with --dry_run."""
    if experiment is None or name is None:
        missing = 'EXPERIMENT and NAME are' if experiment is None else 'NAME is'
        raise UserError(f'{missing} missing: {usage(command)}')
    refuse_words(extra, command)
    check_name(name)
    with _bad_input():
        launch, overrides = _train_flags(command, flags)
        definition = experiments.load(experiment)
        trials = definition.trials(command, overrides)
        placement = launch.placement()
        runs = _runs(trials, name, launch)
        for run in runs:
            _validate(run.hparams, placement, definition.name, bool(overrides))
            if command == 'train_policy':
                definition.evaluation(run.folder)  # raises an error for bad fields, before anything runs
    for number, run in enumerate(runs, start=1):
        if launch.dry_run:
            print(f'trial {number} of {len(runs)}: {command} in {run.folder} on {placement.num_ranks} rank(s)')
            run.hparams.dump()
        else:
            _start(command, run, definition, placement, launch)


def _train_flags(command: str, flags: Dict[str, str]) -> Tuple[TrainFlags, Dict[str, str]]:
    """Return the flags of the launch, and the hyperparameters that flags override, as text by dotted name."""
    own, overrides = split_flags(flags, TrainFlags, TREES[command])
    launch = launch_flags(command)
    launch.override_from_str_dict(own)
    launch.validate()
    if launch.labeler is not None:
        if command != 'train_policy':
            raise ValueError(f'--labeler is for train_policy, which collects labels, not for {command}')
        overrides['rewards.train_new_model.labels.schedule.labeler'] = launch.labeler
    return launch, overrides


def _runs(trials: List[experiments.Trial], name: str, launch: TrainFlags) -> List[Run]:
    """Return the runs of trials, each with its folder inside SAVE_DIR/NAME."""
    save_dir = expanded_home(launch.save_dir)
    if launch.resume == 'off':
        name = ownership.unused_name(save_dir, name)
    runs = []
    for trial in trials:
        folder = os.path.join(save_dir, name, trial.descriptor).rstrip('/')
        trial.hparams.run.save_dir = folder
        runs.append(Run(folder, trial.hparams))
    return runs


def _validate(hparams: HParams, placement: Placement, experiment: str, has_flags: bool) -> None:
    """Raise UserError for hyperparameters that break a rule; it names the experiment if no flag can be the cause."""
    try:
        hparams.validate(num_ranks=placement.num_ranks)
    except (TypeError, ValueError) as error:
        by_flags = has_flags or placement.num_ranks > 1
        raise UserError(str(error) if by_flags else f'{experiment}: {error}') from error


def _start(
    command: str, run: Run, definition: experiments.Experiment, placement: Placement, launch: TrainFlags
) -> None:
    """Do a run in its folder, from training to the report; the folder of a remote run is a local copy, uploaded."""
    save_dir = expanded_home(launch.save_dir)
    with mirrored(run.folder) as folder:
        run.hparams.run.save_dir = folder
        check_run_folder(folder, save_dir)
        if launch.threads:
            os.environ[THREADS_VARIABLE] = str(launch.threads)
        if launch.track:
            os.environ[TRACK_VARIABLE] = launch.track
        ownership.check_owner(command, folder)
        with ownership.claimed(folder):
            check_run_folder(folder, save_dir)  # again: now nobody can put another folder there
            if launch.resume == 'overwrite':
                ownership.clear(folder)
            evaluation = definition.evaluation(folder) if command == 'train_policy' else None
            with contextlib.ExitStack() as shown:
                if command == 'train_policy' and placement.is_this_process:
                    shown.enter_context(whole_run(run_parts.parts_of(run.hparams, evaluation)))
                finished = _train_to_the_end(command, Run(folder, run.hparams), placement, launch)
                _evaluate_and_report(folder, evaluation, finished)


def _train_to_the_end(command: str, run: Run, placement: Placement, launch: TrainFlags) -> bool:
    """Train unless the run is finished; return whether it was finished before."""
    finished = resuming.is_finished(command, run.hparams, placement.num_ranks)
    if finished:
        print(f'{run.folder}: this run is finished')
        if not os.path.exists(hparams_file(run.folder, command)):
            save_hparams(run.folder, run.hparams)  # the file was lost or removed
        return True
    if launch.resume == 'off':
        print(f'{command} in {run.folder}', flush=True)
    run.hparams.dump()
    sys.stdout.flush()
    # Saved before the first stage, because the checkpoints of a stage do not hold all hyperparameters.
    save_hparams(run.folder, run.hparams)
    _execute(command, run.hparams, placement, launch.traceback)
    return False


def _evaluate_and_report(folder: str, evaluation: Optional[EvaluateHParams], had_finished: bool) -> None:
    """Measure a finished run and write its report; if the run had finished earlier, only what is missing."""
    if evaluation is not None and not (had_finished and os.path.exists(os.path.join(folder, RESULTS_FILE))):
        _evaluate(evaluation)
    if not had_finished or not os.path.exists(os.path.join(folder, REPORT_FILE)):
        _write_report(folder)


def _evaluate(hparams: EvaluateHParams) -> None:
    """Measure a finished run as its experiment asks. A failure is a note: the run is finished all the same."""
    try:
        take_gpu()  # if several ranks trained, this process has none yet
        from lm_human_preferences.evaluate import evaluate  # loads TensorFlow

        evaluate(hparams, Ranks(alone=True))  # the ranks of the training have ended, or wait
    except Exception as error:
        _note('it could not be evaluated', error)


def _write_report(folder: str) -> None:
    """Write the report of a finished run into its folder. A failure is a note: the run is finished all the same."""
    try:
        from lm_human_preferences import report  # loads TensorFlow, to read event files

        with part_of_run(run_parts.REPORT):
            path = report.write_report([folder])
        say(f'report: {path}')
    except Exception as error:
        _note('there is no report of it', error)


def _note(failure: str, error: Exception) -> None:
    reason = user_message(error) or without_secrets(' '.join(str(error).split())) or type(error).__name__
    note(f'note: the run is complete, but {failure}: {reason}')


def _run_tool(command: str, words: Tuple[str, ...], flags: Dict[str, str]) -> None:
    """Run a command without an experiment; `words` are its arguments without a flag."""
    launch, hparams = launch_flags(command), TREES[command]()
    with _bad_input():
        texts = {**words_as_flags(command, words), **flags}
        own, texts = split_flags(texts, type(launch), type(hparams))
        launch.override_from_str_dict(own)
        hparams.override_from_str_dict(texts)
        launch.validate()
        hparams.validate()
        placement = launch.placement() if isinstance(launch, RankFlags) else Placement(1, [])
    if command == 'sample' and hparams.prompt == '-':
        hparams.prompt = _standard_input()
    _execute(command, hparams, placement, launch.traceback)


def _standard_input() -> str:
    with _bad_input():
        return read_stream(sys.stdin.buffer, 'standard input').rstrip('\n')


def _execute(command: str, hparams: HParams, placement: Placement, show_traceback: bool) -> None:
    """Do the work of a command in this process, in several ranks, or in those that a launcher has started."""
    if placement.are_given:
        given_ranks.start(command, hparams, show_traceback)
    elif placement.is_this_process:
        take_gpu()
        rank.run(command, hparams, ctrl_c=True)
    else:
        mpiexec.start(command, hparams, placement.num_ranks, placement.hosts, show_traceback)


@contextlib.contextmanager
def _bad_input() -> Iterator[None]:
    """Raise UserError in place of the errors of hyperparameters: inside, they are mistakes of the user."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(str(error)) from error
