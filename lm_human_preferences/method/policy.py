"""The policy π: a language model with a value head, which responds to queries (section 2 of the paper)."""

from typing import Dict, Optional

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.language.distributions import logprobs_and_entropies
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.sampling import sample_sequence
from lm_human_preferences.method.lm_tasks import Task


class Policy:
    """A GPT-2 with a value head. It responds to the queries of a task at the task's temperature.

    Its variables are below `scope`.
    """

    def __init__(self, model_hparams: ModelHParams, task: Task, scope: str = 'policy', dtype: str = 'float32'):
        self.task = task
        self.temperature = task.hparams.policy.temperature
        self.model = Model(model_hparams, scope + '/model', heads=['value'], dtype=dtype)
        task.check_fits(model_hparams.n_ctx, task.context_length)

    def respond(
        self,
        queries: tf.Tensor,
        uniforms: tf.Tensor,
        top_k: int = 0,
        top_p: float = 1.0,
        temperature: Optional[float] = None,
    ) -> Dict[str, tf.Tensor]:
        """Sample one response to each query.

        Args:
          queries: [batch, query_length] int32, padded on the right.
          uniforms: [batch, length] in [0, 1), the random numbers that choose the tokens.
          top_k: sample among the k likeliest tokens; 0 means all.
          top_p: sample among the fewest tokens whose probabilities sum to at least this.
          temperature: None: the task's.

        Returns:
          responses [batch, length] int32, and for each of their tokens the logprob, and the value of the state before
          the token: logprobs and values, [batch, length].
        """
        samples = sample_sequence(
            self.model,
            self.task.context(queries),
            uniforms,
            padding_token=self.task.padding_token,
            temperature=self.temperature if temperature is None else temperature,
            top_k=top_k,
            top_p=top_p,
        )
        values = self.model.scalar_head('value', samples.hidden)
        return dict(responses=samples.tokens, logprobs=samples.logprobs, values=values)

    def analyze_responses(
        self, queries: tf.Tensor, responses: tf.Tensor, temperature: Optional[float] = None
    ) -> Dict[str, tf.Tensor]:
        """Evaluate given responses [batch, length] under the policy, at its task's temperature unless one is given.

        Returns:
          logprobs of the tokens, entropies of the distributions that they are sampled from (nats), and values of the
          states before them, each [batch, length].
        """
        context = self.task.context(queries)
        first = self.task.context_length - 1  # each token is predicted at the position before it
        hidden = self.model(
            tf.concat([context, responses[:, :-1]], axis=1),  # the last token predicts nothing
            self.task.padding_token,
            read=range(first, first + responses.shape.as_list()[1]),
        ).hidden
        logits = self.model.logits(hidden) / (self.temperature if temperature is None else temperature)
        logprobs, entropies = logprobs_and_entropies(logits, responses)
        return dict(logprobs=logprobs, entropies=entropies, values=self.model.scalar_head('value', hidden))
