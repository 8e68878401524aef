"""Convert models from and to Hugging Face folders, and labels from and to files of prompt, chosen and rejected.

The kind of SOURCE decides what TARGET becomes:
- a folder with a config.json becomes a model folder of ours
- any other model becomes a folder for `transformers`
- a .jsonl file of pairs becomes a label file
- any other file is a label file and becomes a .jsonl file of pairs.

With `push`, a model of any kind becomes a folder for `transformers` with a model card, which is uploaded to the hub.
"""

import json
import os
import tempfile
from typing import Optional

from lm_human_preferences.formats import huggingface, preferences
from lm_human_preferences.formats.model_card import CARD_FILE, model_card, scores
from lm_human_preferences.graph.new_variables import VariableSpec, create_variables
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.graph.variables import set_variables
from lm_human_preferences.hyperparameters import ConvertHParams, TaskHParams
from lm_human_preferences.language.encodings import Encoding, main_encoding
from lm_human_preferences.language.huggingface_models import CONFIG_FILE, PortableModel, check_model, load
from lm_human_preferences.language.model_files import fetch_weights, local_folder
from lm_human_preferences.language.run_models import find_policy
from lm_human_preferences.language.trained_models import TrainedModel, find_reward_model, save_model_folder
from lm_human_preferences.remote import hub, storage
from lm_human_preferences.remote.cache import expanded_home
from lm_human_preferences.runs.checkpoints import CheckpointWriter
from lm_human_preferences.runs.run_folder import RunFolder, short_names
from lm_human_preferences.utils.files import folder_written_whole, write_json, written_whole
from lm_human_preferences.utils.progress import say

_FOR_TRANSFORMERS = 'a folder for transformers.AutoModelForCausalLM.from_pretrained'


def convert(hparams: ConvertHParams) -> None:
    """Convert `source` to `target`, and say what was written and what was left out. An error writes nothing.

    ValueError if `target` exists already, or if `source` cannot be converted.
    """
    source = expanded_home(hparams.source)
    target = None if hparams.target is None else expanded_home(hparams.target)
    if target and os.path.exists(target) and not (os.path.isdir(target) and not os.listdir(target)):
        raise ValueError(f'{target} exists: give another TARGET')
    if os.path.isfile(source):
        if hparams.push is not None:
            raise ValueError(f'{source} is a file: --push uploads a model')
        os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
        (pairs_to_labels if source.endswith('.jsonl') else labels_to_pairs)(source, target, hparams)
        return
    folder = _huggingface_folder(source)
    model = read_model(find_any_model(source, hparams.savescope)) if folder is None else load(folder)
    for note in model.notes:
        say(f'note: {note}')
    if hparams.push is not None:
        push(source, target, model, hparams)
    elif folder is not None:
        with folder_written_whole(target) as partial:
            write_model(partial, model)
        say(f'{target}: {use_of(model)}')
    else:
        with folder_written_whole(target) as partial:
            huggingface.save(partial, model)
        say(f'{target}: {_FOR_TRANSFORMERS}')


def push(source: str, target: Optional[str], model: PortableModel, hparams: ConvertHParams) -> None:
    """Upload a model as a folder for `transformers`, with a model card, and keep the folder as `target` if that is set.

    Args:
      source: the run, if it is one, tells how the model was trained.
    """
    repository = hub.parse(hparams.push)
    with tempfile.TemporaryDirectory() as above, folder_written_whole(target or os.path.join(above, 'model')) as folder:
        huggingface.save(folder, model)
        with written_whole(os.path.join(folder, CARD_FILE)) as file:
            file.write(model_card(repository.repo, model, _run(source)))
        commit = storage.upload_to_hub(hparams.push, folder, f'Upload {short_names([source])[0]}', hparams.private)
    if target:
        say(f'{target}: {_FOR_TRANSFORMERS}')
    say(f'{hparams.push}: {commit}')


def _run(name: str) -> Optional[RunFolder]:
    """Return the run in the folder `name`; None if it is no run."""
    try:
        return RunFolder(name)
    except FileNotFoundError:
        return None


def _huggingface_folder(source: str) -> Optional[str]:
    """Return a local copy of `source` if it is a Hugging Face folder, else None."""
    if not storage.is_remote(source):
        return source if os.path.exists(os.path.join(source, CONFIG_FILE)) else None
    try:
        storage.local_file(storage.join(source, CONFIG_FILE))
    except storage.NOT_THERE:
        return None
    fetch_weights(source)
    return local_folder(source)


def find_any_model(name: str, savescope: Optional[str]) -> TrainedModel:
    """Return the model of a run or a model folder that `savescope` names: `policy`, `ref_policy` or `reward_model`.

    Without a savescope, return the policy, the reward model if there is no policy, or the only model of the checkpoint.
    """
    if savescope == 'reward_model':
        return find_reward_model(name)
    try:
        trained = find_policy(name, savescope or 'policy')
    except FileNotFoundError:
        if savescope is not None:
            raise
        return find_reward_model(name)
    if savescope is None and trained.folder is not None and not trained.is_huggingface:
        scopes = trained.scopes()
        if len(scopes) == 1:
            return TrainedModel(trained.source, scopes[0])
    return trained


def read_model(trained: TrainedModel) -> PortableModel:
    """Read a model of ours into arrays. ValueError for the built-in model `test`, and for a model that is broken."""
    if trained.folder is None:
        raise ValueError('the model test has no files: train one')
    scope = trained.savescope if trained.savescope in trained.scopes() else ''
    model = PortableModel(trained.hparams, trained.encoding(), trained.arrays(), scope)
    check_model(trained.source, model)
    return model


def use_of(model: PortableModel) -> str:
    """Return the flags that take a model folder of ours with these arrays."""
    flags = ['--task.policy.initial_model'] if model.savescope in ('', 'policy') else []
    flags += ['--rewards.trained_model'] if model.savescope in ('', 'reward_model') and scores(model) else []
    return f'a model for {" or ".join(flags)}' if flags else f'a model folder, with the scope {model.savescope}'


def write_model(folder: str, model: PortableModel) -> None:
    """Write a model folder of ours."""
    prefix = f'{model.savescope}/' if model.savescope else ''
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        specs = {prefix + name: VariableSpec(array.shape) for name, array in model.arrays.items()}
        variables, arrays = list(create_variables(specs).values()), list(model.arrays.values())
        set_variables(session, variables, lambda i: arrays[i])
        save_model_folder(folder, model.hparams, model.encoding)
        CheckpointWriter(folder, variables).save(session, 0)


def pairs_to_labels(source: str, target: str, hparams: ConvertHParams) -> None:
    """Write a label file from a file of pairs. ValueError if the lengths of queries and responses are unknown."""
    query_length, response_length = hparams.query_length, hparams.response_length
    task = _task(hparams.model)
    if task is not None:
        query_length, response_length = query_length or task.query_length, response_length or task.response_length
    if query_length is None or response_length is None:
        raise ValueError("labels have fixed lengths: give --query_length and --response_length, the task's")
    imported = preferences.labels_of_pairs(source, _encoding(hparams), query_length, response_length)
    write_json(target, imported.labels, indent=None)
    cut = f'{imported.num_cut_prompts} prompts lost their beginning, {imported.num_cut_responses} responses their end'
    say(f'{target}: {len(imported.labels)} labels of type best_of_2; {cut}')


def labels_to_pairs(source: str, target: str, hparams: ConvertHParams) -> None:
    """Write a file of pairs from a label file."""
    num_pairs = 0
    with written_whole(target) as file:
        for pair in preferences.pairs_of_labels(source, _encoding(hparams)):
            file.write(json.dumps(pair, ensure_ascii=False) + '\n')
            num_pairs += 1
    say(f'{target}: {num_pairs} pairs')


def _task(name: Optional[str]) -> Optional[TaskHParams]:
    """Return the task of the run folder `name`, or None if it is not a run folder."""
    run = None if name is None else _run(name)
    return None if run is None else run.task


def _encoding(hparams: ConvertHParams) -> Encoding:
    """Return the encoding of the labels: that of `model`, or GPT-2's."""
    return main_encoding() if hparams.model is None else find_any_model(hparams.model, hparams.savescope).encoding()
