"""Make tests/data/old_run: a run of the version before checkpoints had checksums, killed after 4 of 6 steps.

    git worktree add /tmp/before 57c86f6
    python tests/support/make_old_run.py /tmp/before

It has the last checkpoint of each model, and nothing else that a run does not need to resume.
"""

import os
import shutil
import subprocess
import sys
import tempfile

from repository import TESTS

NAME = 'run'
EXPERIMENT = """
run: {seed: 1, log_interval: 1, save_interval: 1}
task: {query_length: 2, response_length: 3, query_dataset: test, policy: {initial_model: test}}
train_reward: {labels: {type: best_of_4, source: test, num_train: 16}, batch_size: 8, lr: 1e-2}
train_policy:
  rewards: {adaptive_kl: {target: 1.0, horizon: 1000}}
  ppo: {batch_size: 16, total_episodes: 96, lr: 1e-2}
"""
FOLDER = os.path.join(TESTS, 'data', 'old_run')
KEPT = {'policy': 4, 'reward_model': 2}  # the step of the checkpoint


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(os.path.dirname(FOLDER), exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        definition = os.path.join(folder, 'tiny.yaml')
        with open(definition, 'w') as file:
            file.write(EXPERIMENT)
        words = ['train_policy', definition, NAME, f'--save_dir={folder}', '--mpi=1', '--threads=1']
        subprocess.run([sys.executable, os.path.join(sys.argv[1], 'launch.py'), *words], check=True)
        shutil.copytree(os.path.join(folder, NAME), FOLDER)
    os.unlink(os.path.join(FOLDER, 'report.html'))
    shutil.rmtree(os.path.join(FOLDER, 'tb'))
    for model, step in KEPT.items():
        place = os.path.join(FOLDER, model, 'checkpoints')
        for name in os.listdir(place):
            if not name.startswith((f'model.ckpt-{step}.', f'state-{step}.')):
                os.unlink(os.path.join(place, name))
        with open(os.path.join(place, 'checkpoint'), 'w') as file:
            file.write(f'model_checkpoint_path: "model.ckpt-{step}"\nall_model_checkpoint_paths: "model.ckpt-{step}"\n')


if __name__ == '__main__':
    main()
