"""The models of a run: its policy, the policy that it started from, and its reward model."""

from typing import List, NamedTuple, Sequence

from lm_human_preferences.language.trained_models import TrainedModel, find_model, find_reward_model
from lm_human_preferences.remote import storage
from lm_human_preferences.runs.run_folder import RunFolder, short_names

INITIAL = 'initial'  # names the policy that a run's fine-tuning started from


def run_policy(run: RunFolder, savescope: str = 'policy') -> TrainedModel:
    """The policy of the run, or with `ref_policy` the one that it started from."""
    if not run.has_policy:
        raise FileNotFoundError(f'{run.path}: not the folder of a policy: there is no train_policy_hparams.json')
    return find_model(storage.join(run.path, 'policy'), savescope)


def run_reward_model(run: RunFolder) -> TrainedModel:
    """The reward model that the run trained, or was given: the one in its folder, if there is one."""
    given = run.hparams.rewards.trained_model if run.has_policy else None
    try:
        return find_reward_model(storage.join(run.path, 'reward_model'))
    except storage.NOT_THERE:
        if given is None:
            raise
    return find_reward_model(given)


class NamedPolicy(NamedTuple):
    """A policy by the name that tables show."""

    name: str
    trained: TrainedModel


def find_policies(names: Sequence[str], run: RunFolder, savescope: str = 'policy') -> List[NamedPolicy]:
    """The policies called `names`: run folders, names or folders of models, or `initial` for that of `run`.

    ValueError if they do not all read the same tokens.
    """
    policies = [
        NamedPolicy(short, run_policy(run, 'ref_policy') if name == INITIAL else find_policy(name, savescope))
        for short, name in zip(short_names(names), names)
    ]
    for policy in policies[1:]:
        if not policy.trained.encoding().same_tokens(policies[0].trained.encoding()):
            raise ValueError(f'the policies {names[0]} and {policy.name} have different vocabularies')
    return policies


def find_policy(name: str, savescope: str = 'policy') -> TrainedModel:
    """The policy of the run folder `name`, or the language model called so."""
    try:
        run = RunFolder(name)
    except FileNotFoundError:
        return find_model(name, savescope)
    return run_policy(run, savescope)
