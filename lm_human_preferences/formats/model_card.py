"""The model card of a model on the hub: README.md with what it was trained on, how, its figures, and how to load it."""

import json
import os
import re
from typing import Any, Callable, Dict, List, Optional

from lm_human_preferences.evaluation.tables import policy_rows, queries_title, reward_rows
from lm_human_preferences.hyperparameters import TrainRewardHParams
from lm_human_preferences.language.huggingface_models import HEADS_FILE, PortableModel
from lm_human_preferences.language.model_files import PUBLISHED_MODELS
from lm_human_preferences.remote import hub, storage
from lm_human_preferences.runs.results import read_results
from lm_human_preferences.runs.run_folder import HELD_OUT_SAMPLES_FILE, RESULTS_FILE, SAMPLES_FILE, RunFolder
from lm_human_preferences.runs.samples import read_samples

CARD_FILE = 'README.md'
NUM_SAMPLES = 3
_PACKAGE = 'lm-human-preferences'
_DATA_URL = re.compile(r'hf://datasets/([\w.-]+/[\w.-]+)', re.ASCII)
# How to load a model; REPOSITORY and HEADS_FILE are replaced.
_LOAD = """
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained('REPOSITORY')
"""
_GENERATE = """
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained('REPOSITORY')
tokenizer = AutoTokenizer.from_pretrained('REPOSITORY')
"""
_SCORE = """
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained('REPOSITORY')
heads = load_file(hf_hub_download('REPOSITORY', 'HEADS_FILE'))


def score(tokens):
    \"\"\"Score the responses in tokens [batch, query and response], a tensor without padding.\"\"\"
    hidden = model.transformer(tokens).last_hidden_state[:, -1]
    reward = hidden @ heads['model/heads/reward/w'] + heads['model/heads/reward/b']
    return reward * heads['reward_norm/gain'] + heads['reward_norm/bias']
"""
_LOCAL = re.compile(r'((?:[a-z]+:)?)(?:/|~|\.\.?/).*/([^/]+)/?\Z', re.DOTALL)


def model_card(repository: str, model: PortableModel, run: Optional[RunFolder]) -> str:
    """Return the card of a model in Markdown.

    Args:
      repository: OWNER/NAME on the hub.
      run: the run that trained the model; None if it is not known. Then the card has no training and no figures.
    """
    is_reward_model = scores(model)
    kind = 'reward model' if is_reward_model else 'policy' if model.savescope == 'policy' else 'language model'
    parts = [_metadata(run, is_reward_model), f'# {repository.partition("/")[2]}', _summary(kind, model, run)]
    if run is not None:
        parts += _data(run)
        results = _read(run, RESULTS_FILE, read_results) or {}
        parts += _figures(results, is_reward_model)
        if kind == 'policy':
            parts += _samples(run)
    parts += ['## How to load it', _loading(repository, model, is_reward_model)]
    if run is not None:
        hparams = run.reward_hparams if is_reward_model and run.reward_hparams is not None else run.hparams
        content = json.dumps(_without_places(hparams.to_shared_dict()), indent=2, sort_keys=True)
        parts += ['## Hyperparameters', _block(content, 'json')]
    return '\n\n'.join(parts) + '\n'


def scores(model: PortableModel) -> bool:
    """Return whether a model is a reward model, with its head, its gain and its bias."""
    return {'model/heads/reward/w', 'reward_norm/gain'} <= set(model.arrays)


def _metadata(run: Optional[RunFolder], is_reward_model: bool) -> str:
    """Return the front matter, which the hub reads. A JSON string is YAML, too."""
    fields: Dict[str, Any] = dict(library_name='transformers')
    if not is_reward_model:
        fields['pipeline_tag'] = 'text-generation'
    fields['tags'] = ['gpt2', 'rlhf', _PACKAGE, 'reward-model' if is_reward_model else 'ppo']
    if run is not None:
        base = PUBLISHED_MODELS.get(_initial_model(run), _initial_model(run))
        if hub.is_hub(base):
            fields['base_model'] = hub.parse(base).repo
        sets = _DATA_URL.findall(' '.join([run.task.query_dataset, *_label_sources(run)]))
        if sets:
            fields['datasets'] = sorted(set(sets))
    return '\n'.join(['---', *(f'{name}: {json.dumps(value)}' for name, value in fields.items()), '---'])


def _summary(kind: str, model: PortableModel, run: Optional[RunFolder]) -> str:
    sizes = model.hparams
    text = f'A GPT-2 with {sizes.n_layer} layers of {sizes.n_embd} units, {sizes.n_vocab} tokens and a context of '
    text += f'{sizes.n_ctx} tokens. '
    if kind == 'reward model':
        text += 'It gives a score to a response, and was trained on choices between responses. '
    elif kind == 'policy' and run is not None and run.has_policy:
        text += 'It was fine-tuned with PPO against a reward model that was trained on choices between responses. '
    return text + f'It was made with {_PACKAGE}, after *Fine-Tuning Language Models from Human Preferences* (2019).'


def _data(run: RunFolder) -> List[str]:
    task, reward = run.task, run.reward_hparams
    rows = [
        ('base model', _place(_initial_model(run))),
        ('texts', _place(task.query_dataset)),
        ('query and response', f'{task.query_length} and {task.response_length} tokens'),
        ('temperature', str(task.policy.temperature)),
    ]
    if reward is not None:
        labels = reward.labels
        rows.append(('labels', f'{labels.num_train} of type {labels.type}: {_place(labels.source)}'))
    elif run.has_policy and run.hparams.rewards.trained_model:
        rows.append(('reward model', _place(run.hparams.rewards.trained_model)))
    if run.has_policy:
        kl = run.hparams.rewards
        target = f', moved towards a KL of {kl.adaptive_kl.target} nats' if kl.adaptive_kl else ''
        rows.append(('KL coefficient', f'{kl.kl_coef}{target}'))
        rows.append(('episodes', str(run.hparams.ppo.total_episodes)))
    return ['## Training', _table([['', ''], *map(list, rows)])]


def _figures(results: Dict[str, Any], is_reward_model: bool) -> List[str]:
    """Return the figures of an evaluation: KL, scores and win rates of a policy, the accuracy of a reward model."""
    if is_reward_model and 'reward_model' in results:
        result = results['reward_model']
        source = f'On {_place(str(result.get("source", "labels")))}. Intervals are of 95 %.'
        return ['## Evaluation', source, _table([['', ''], *reward_rows(result)])]
    if not is_reward_model and 'policies' in results:
        result = results['policies']
        source = f'On {queries_title(result)}. Intervals are of 95 %.'
        return ['## Evaluation', source, _table(policy_rows(result))]
    return []


def _samples(run: RunFolder) -> List[str]:
    """Return the first samples of the policy beside those of the initial policy."""
    held_out, of_training = (
        _read(run, file, lambda folder, file=file: read_samples(os.path.join(folder, file)))
        for file in (HELD_OUT_SAMPLES_FILE, SAMPLES_FILE)
    )
    rows = held_out or of_training
    if not rows:
        return []
    where = 'held-out queries' if held_out else 'queries of the first batch of training'
    parts = ['## Samples', f'Responses to the first {where}.']
    for index in sorted({row['index'] for row in rows})[:NUM_SAMPLES]:
        of_query = [row for row in rows if row['index'] == index]
        lines = [f'query: {of_query[0]["query"]}']
        for row in of_query:
            lines.append(f'{row["policy"]} (score {row["score"]:.2f}): {"".join(row["tokens"][: row["scored"]])}')
        parts.append(_block('\n\n'.join(lines)))
    return parts


def _loading(repository: str, model: PortableModel, is_reward_model: bool) -> str:
    if is_reward_model:
        code = _SCORE
        ours = f'./launch.py train_policy … --rewards.trained_model hf://{repository} --rewards.train_new_model off'
    else:
        code = _GENERATE if model.encoding.name != 'test' else _LOAD
        ours = f'./launch.py train_policy … --task.policy.initial_model hf://{repository}'
        ours += f'\n./launch.py sample --save_dir RUN --policies hf://{repository}  # queries of the task of RUN'
    code = code.strip().replace('REPOSITORY', repository).replace('HEADS_FILE', HEADS_FILE)
    return f'{_block(code, "python")}\n\nWith {_PACKAGE}:\n\n{_block(ours)}'


def _initial_model(run: RunFolder) -> str:
    return run.task.policy.initial_model


def _label_sources(run: RunFolder) -> List[str]:
    reward: Optional[TrainRewardHParams] = run.reward_hparams
    return [reward.labels.source] if reward is not None else []


def _read(run: RunFolder, file: str, read: Callable[[str], Any]) -> Any:
    """Return what `read` gives for the folder with a file of the run; None if there is no such file."""
    try:
        return read(os.path.dirname(storage.local_file(storage.join(run.path, file))))
    except storage.NOT_THERE:
        return None


def _place(name: str) -> str:
    """Return a name, path or URL in code quotes. Of a local path only the last name is told."""
    match = _LOCAL.match(name)
    return f'`{match.group(1) + match.group(2) if match else name}`'


def _without_places(content: Any) -> Any:
    """Return hyperparameters in which no local path tells more than its last name."""
    if isinstance(content, dict):
        return {name: _without_places(value) for name, value in content.items() if name != 'save_dir'}
    return _place(content)[1:-1] if isinstance(content, str) else content


def _table(rows: List[List[str]]) -> str:
    lines = ['| ' + ' | '.join(cell.strip().replace('|', '\\|') for cell in row) + ' |' for row in rows]
    return '\n'.join([lines[0], '|' + '---|' * len(rows[0]), *lines[1:]])


def _block(text: str, language: str = '') -> str:
    """Return a block of code, with a fence that is longer than any in the text."""
    fence = '`' * max(3, 1 + max(map(len, re.findall('`+', text)), default=0))
    return f'{fence}{language}\n{text}\n{fence}'
