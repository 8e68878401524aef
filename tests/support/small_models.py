"""Small models with random parameters, in OpenAI's format and in that of this package."""

import json
import os

import numpy as np

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.encodings import test_encoding as letters
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.trained_models import save_model_folder
from lm_human_preferences.runs.checkpoints import CheckpointWriter

SMALL = ModelHParams(n_vocab=27, n_ctx=8, n_embd=6, n_head=2, n_layer=1)


def gpt2_variables(n_vocab, n_ctx, n_embd, n_layer):
    """Return {name: shape} of the variables in OpenAI's checkpoint of a GPT-2."""
    shapes = {'wpe': [n_ctx, n_embd], 'wte': [n_vocab, n_embd], 'ln_f/g': [n_embd], 'ln_f/b': [n_embd]}
    for layer in range(n_layer):
        for norm in ('ln_1', 'ln_2'):
            shapes.update({f'h{layer}/{norm}/{name}': [n_embd] for name in 'gb'})
        for linear, n_in, n_out in (
            ('attn/c_attn', 1, 3),
            ('attn/c_proj', 1, 1),
            ('mlp/c_fc', 1, 4),
            ('mlp/c_proj', 4, 1),
        ):
            shapes[f'h{layer}/{linear}/w'] = [1, n_in * n_embd, n_out * n_embd]
            shapes[f'h{layer}/{linear}/b'] = [n_out * n_embd]
    return {'model/' + name: shape for name, shape in shapes.items()}


def write_gpt2(folder, n_vocab, n_ctx, n_embd, n_head, n_layer):
    """Write a model folder in OpenAI's format with random parameters; return the smaller ones: {name: value}."""
    values = {}
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        variables = [
            tf.get_variable(name, shape, initializer=tf.random_normal_initializer(stddev=0.02, seed=i))
            for i, (name, shape) in enumerate(gpt2_variables(n_vocab, n_ctx, n_embd, n_layer).items())
        ]
        session.run(tf.global_variables_initializer())
        tf.train.Saver(variables, save_relative_paths=True).save(
            session, os.path.join(folder, 'model.ckpt'), write_meta_graph=False
        )
        values = {v.name[len('model/') : -2]: session.run(v) for v in variables if v.shape.num_elements() < 1e6}
    with open(os.path.join(folder, 'hparams.json'), 'w') as f:
        json.dump(dict(n_vocab=n_vocab, n_ctx=n_ctx, n_embd=n_embd, n_head=n_head, n_layer=n_layer), f)
    return values


def save_small(folder):
    """Save a small policy with random parameters; its value head is [0, 1, …, 5]."""
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        tf.set_random_seed(3)
        model = Model(SMALL, scope='policy/model', heads=['value'])
        session.run(tf.global_variables_initializer())
        model.variables['heads/value/w'].load(np.arange(6), session)
        save_model_folder(folder, SMALL, letters())
        CheckpointWriter(folder, tf.global_variables()).save(session, 7)


SIZES = dict(n_vocab=28, n_ctx=8, n_embd=6, n_head=2, n_layer=1)


ENCODER = dict({chr(ord('a') + i): i for i in range(26)}, **{'.': 26, 'ab': 27})


def save_model(folder, scopes=('',), heads=(), sizes=SIZES, finite=True):
    """Save a small random model under each of the scopes. With heads, also save a reward model's gain and bias.

    If not `finite`, some parameters are NaN, as other programs may save them.
    """
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        tf.set_random_seed(1)
        for scope in scopes:
            Model(ModelHParams(**sizes), scope=scope + 'model', heads=heads)
            if heads:
                tf.get_variable(scope + 'reward_norm/gain', [], initializer=tf.ones_initializer(), use_resource=True)
                tf.get_variable(scope + 'reward_norm/bias', [], initializer=tf.zeros_initializer(), use_resource=True)
        session.run(tf.global_variables_initializer())
        save_model_folder(folder, ModelHParams(**sizes), Encoding('own', ENCODER, [('a', 'b')]))
        writer = CheckpointWriter(folder, tf.global_variables())
        if not finite:
            next(v for v in tf.global_variables() if v.name.endswith('ln_f/g:0')).load(
                [np.nan] * sizes['n_embd'], session
            )
            writer._checks = []
        writer.save(session, 1)
