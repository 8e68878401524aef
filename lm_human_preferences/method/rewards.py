"""The reward model r: a language model with a scalar head that scores a response (section 2 of the paper)."""

import math
from typing import List, Tuple

from lm_human_preferences.graph.new_variables import VariableSpec, create_variables
from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.language.model import Model, branching
from lm_human_preferences.language.trained_models import TrainedModel
from lm_human_preferences.method.lm_tasks import Task


class RewardModel:
    """reward = gain · head(last token of query and response) + bias.

    Gain and bias are trained with the other variables, and set by normalization.
    """

    def __init__(self, model_hparams: ModelHParams, task: Task, scope: str = 'reward_model', dtype: str = 'float32'):
        self.padding_token = task.padding_token
        self.model = Model(model_hparams, scope + '/model', heads=['reward'], dtype=dtype)
        norm = scope + '/reward_norm/'
        self.gain, self.bias = create_variables(
            {norm + 'gain': VariableSpec([], start=1.0), norm + 'bias': VariableSpec([])}
        ).values()
        task.check_fits(model_hparams.n_ctx, task.hparams.query_length, 'rewards.trained_model')

    @property
    def variables(self) -> List[tf.Variable]:
        """All variables. All are trained."""
        return [self.gain, self.bias, *self.model.variables.values()]

    def load(self, session: tf.Session, trained: TrainedModel) -> List[tf.Variable]:
        """Set all variables from a trained reward model; return the variables that were set."""
        norm = {'reward_norm/gain': self.gain, 'reward_norm/bias': self.bias}
        return trained.load(session, self.model, heads=['reward'], extra=norm)

    def rewards(self, queries: tf.Tensor, responses: tf.Tensor) -> tf.Tensor:
        """Compute the rewards [batch] of responses [batch, length] to queries [batch, query_length].

        Both are padded on the right. The reward model reads the query without the prefix and suffix of the policy.
        """
        return self.rewards_of_samples(queries, responses[:, tf.newaxis])[:, 0]

    def rewards_of_samples(self, queries: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
        """Compute the rewards [batch, n] of n samples for each query, [batch, n, length].

        The model reads each query once. Its n samples follow as branches that do not see each other.
        """
        n, length = samples.shape.as_list()[1:]
        query_length = queries.shape.as_list()[1]
        tokens = tf.concat([queries, tf.reshape(samples, [-1, n * length])], axis=1)
        states = self.model(
            tokens,
            self.padding_token,
            attend=branching(query_length, n, length),
            read=[query_length + (i + 1) * length - 1 for i in range(n)],  # the last position of each sample
        )
        return self.gain * self.model.scalar_head('reward', states.hidden) + self.bias


def normalizing_gain_bias(
    mean: float, std: float, target_mean: float = 0.0, target_std: float = 1.0
) -> Tuple[float, float]:
    """Compute the gain and bias that turn rewards of this mean and std into rewards of the target mean and std.

    ValueError if the rewards are not finite, or all equal.
    """
    if not (math.isfinite(mean) and math.isfinite(std)):
        raise ValueError(
            f'cannot normalize rewards of mean {mean:g} and std {std:g}: the model that gave them is broken'
        )
    if not std > 0:
        raise ValueError(f'cannot normalize rewards: they are all {mean:g}; use more varied samples')
    gain = target_std / std
    return gain, target_mean - gain * mean
