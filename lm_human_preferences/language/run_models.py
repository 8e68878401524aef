"""Find the models of a run: its policy, its initial policy, and its reward model."""

from typing import List, NamedTuple, Sequence

from lm_human_preferences.language.trained_models import TrainedModel, find_model, find_reward_model
from lm_human_preferences.remote import storage
from lm_human_preferences.runs.run_folder import POLICY, REWARD_MODEL, RunFolder, hparams_file, short_names

INITIAL = 'initial'  # the name of the policy from which a run started


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
    ValueError if the policies have different vocabularies.
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
    """Return the policy of the run folder `name`, or the language model called `name`."""
    try:
        run = RunFolder(name)
    except FileNotFoundError:
        return find_model(name, savescope)
    return run_policy(run, savescope)
