"""Find the models of a run: its policy, its initial policy, and its reward model."""

from typing import List, NamedTuple, Sequence

from lm_human_preferences.language.trained_models import (
    TrainedModel,
    check_vocabulary,
    find_model,
    find_reward_model,
    is_language_model,
)
from lm_human_preferences.remote import storage
from lm_human_preferences.runs.run_folder import POLICY, REWARD_MODEL, RunFolder, hparams_file, short_names
from lm_human_preferences.utils.errors import UserError

INITIAL = 'initial'  # the name of the policy from which a run started


def run_with_task(names: Sequence[str], flag: str) -> RunFolder:
    """Return the run whose task is used: the first of `names` that is not `initial`.

    UserError that asks for `flag` if there is no such name, or if it is a language model, which has no task.
    """
    name = next((name for name in names if name != INITIAL), None)
    if name is None:
        raise UserError(f'{INITIAL} is the initial policy of a run: give {flag}, that run')
    try:
        return RunFolder(name)
    except storage.NOT_THERE:
        if not is_language_model(name):
            raise
        raise UserError(f'{name} is a language model without a task: give {flag}, a run whose task is used') from None


def run_policy(run: RunFolder, savescope: str = 'policy') -> TrainedModel:
    """Return the policy of the run. With the savescope `ref_policy`, return its initial policy."""
    if not run.has_policy:
        raise FileNotFoundError(
            f'{run.path}: not the folder of a policy: there is no {hparams_file("", "train_policy")}'
        )
    return find_model(storage.join(run.path, POLICY), savescope)


def run_reward_model(run: RunFolder) -> TrainedModel:
    """Return the run's reward model: the one in its folder, else the one given as `rewards.trained_model`."""
    given = run.hparams.rewards.trained_model if run.has_policy else None
    try:
        return find_reward_model(storage.join(run.path, REWARD_MODEL))
    except storage.NOT_THERE:
        if given is None:
            raise
    return find_reward_model(given)


class NamedPolicy(NamedTuple):
    """A policy and the name that tables show for it."""

    name: str
    trained: TrainedModel


def find_policies(names: Sequence[str], run: RunFolder, savescope: str = 'policy') -> List[NamedPolicy]:
    """Return the policies called `names`.

    Each name is a run folder, a model folder, the name of a model, or `initial` for the initial policy of `run`.
    UserError if the policies have different vocabularies.
    """
    policies = [
        NamedPolicy(short, run_policy(run, 'ref_policy') if name == INITIAL else find_policy(name, savescope))
        for short, name in zip(short_names(names), names)
    ]
    first, others = policies[0], policies[1:]
    check_vocabulary(
        first.trained.encoding(), f'the policy {first.name}', {f'the policy {p.name}': p.trained for p in others}
    )
    return policies


def check_run_vocabulary(run: RunFolder, policies: Sequence[NamedPolicy]) -> None:
    """Check that policies fit the task of a run. UserError if its truncate_token is a token of another vocabulary.

    All else in a task is text, which each vocabulary encodes in its own tokens.
    """
    if run.task.truncate_token is not None:
        owner = f'{run.path}, whose task.truncate_token is {run.task.truncate_token}'
        check_vocabulary(_own_encoding(run), owner, {f'the policy {p.name}': p.trained for p in policies})


def check_labels_vocabulary(run: RunFolder, reward_model: TrainedModel) -> None:
    """Check that a reward model reads the tokens of a run's labels. UserError if it has another vocabulary."""
    check_vocabulary(
        _own_encoding(run),
        f'{run.path}, the run of the labels',
        {f'the reward model {reward_model.title}': reward_model},
    )


def _own_encoding(run):
    return (run_policy(run) if run.has_policy else run_reward_model(run)).encoding()


def find_policy(name: str, savescope: str = 'policy') -> TrainedModel:
    """Return the policy of the run folder `name`, or the language model called `name`."""
    try:
        run = RunFolder(name)
    except FileNotFoundError:
        return find_model(name, savescope)
    return run_policy(run, savescope)
