"""The pictures and tables of the README, made from a run."""

import copy
import os
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from repository import ROOT

from lm_human_preferences.reporting.event_files import Curve
from lm_human_preferences.reporting.run_data import RunData

sys.path.insert(0, os.path.join(ROOT, 'tools'))

import readme_pictures  # noqa: E402

SVG = '{http://www.w3.org/2000/svg}'


def row(policy, index, text, score):
    tokens = [*text, 'unscored']
    return dict(policy=policy, index=index, query=f'query | {index}\n', tokens=tokens, scored=len(text), score=score)


@pytest.fixture
def run():
    curve = Curve(np.array([0, 1, 2]), np.array([0.0, 0.5, 1.25]))
    wins = {judge: dict(share=0.8, interval=[0.75, 0.85]) for judge in ('score', 'VADER')}
    initial = dict(judges=dict(score=dict(mean=-0.004)), kl=-1e-9, distinct={'1': 0.2})
    tuned = dict(judges=dict(score=dict(mean=2.0)), kl=12.3, distinct={'1': 0.1}, wins=wins)
    return RunData(
        name='run',
        command='train_policy',
        hparams={},
        curves={'ppo': {'objective/score': curve, 'objective/kl': curve}, 'reward_model': {}, 'lm': {}},
        results={
            'reward_model': dict(labels=800, accuracy=0.6, interval=[0.57, 0.63], chance=0.25, distinct_samples=624),
            'policies': dict(
                queries=512, distinct_queries=500, baseline='initial', policies=dict(initial=initial, run=tuned)
            ),
        },
        samples=[row(policy, i, 'so ', i - 1.0) for policy in ('initial', 'run') for i in range(6)],
        held_out=True,
    )


@pytest.mark.parametrize('chart', readme_pictures.CHARTS)
@pytest.mark.parametrize('scheme', readme_pictures.SCHEMES)
def test_pictures_are_svg_that_needs_nothing_else(run, chart, scheme):
    text = readme_pictures.picture(run, chart, scheme)
    picture = ElementTree.fromstring(text)
    assert picture.tag == f'{SVG}svg' and picture.find(f'{SVG}title').text
    assert picture.find(f'.//{SVG}path') is not None
    assert text.count('http') == 1 and 'var(' not in text and 'url(' not in text


def test_light_and_dark_differ(run):
    light, dark = (readme_pictures.picture(run, 'score', scheme) for scheme in readme_pictures.SCHEMES)
    assert light != dark


def test_samples_are_the_first_queries_with_their_scored_tokens(run):
    lines = readme_pictures.samples_table(run).splitlines()
    assert lines[2] == r'| query \| 0 | so (−1.0) | so (−1.0) |'
    assert len(lines) == 2 + readme_pictures.NUM_SAMPLES


def test_figures(run):
    table = readme_pictures.figures_table([run])
    assert '800 held-out human choices of the best of four among 624 snippets, the' in table
    assert '60% (57–63); choosing at random gives 25%.' in table
    assert '| 512 held-out queries (500 distinct) | before | after |' in table
    assert '| KL from the initial policy (nats) | 0.0 | 12.3 |' in table
    assert '| more positive than before, by VADER |  | 80% (75–85) |' in table
    assert '-0.0' not in table and 'by score' not in table


def test_figures_of_several_seeds_are_means_with_intervals_by_seeds(run):
    other = copy.deepcopy(run)
    other.results['reward_model']['accuracy'] = 0.62
    tuned = other.results['policies']['policies']['run']
    tuned.update(kl=10.3, wins=dict(tuned['wins'], VADER=dict(share=0.82, interval=[0.77, 0.87])))
    table = readme_pictures.figures_table([run, other])
    assert 'people in 61% (48–74); choosing' in table  # Student's t with one degree of freedom: 0.61 ± 12.7 · 0.01
    assert '| 512 held-out queries (500 distinct), mean over 2 seeds | before | after |' in table
    assert '| KL from the initial policy (nats) | 0.0 | 11.3 |' in table
    assert '| more positive than before, by VADER |  | 81% (68–94) |' in table


def test_a_run_without_an_evaluation_is_refused(run):
    with pytest.raises(ValueError, match='no evaluation'):
        readme_pictures.figures_table([run._replace(results={})])


def test_a_block_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('before\n<!-- samples: by a tool -->\nold\n<!-- end of samples -->\nafter\n')
    readme_pictures.replace_block(str(page), 'samples', r'new \| text')
    assert page.read_text() == ('before\n<!-- samples: by a tool -->\nnew \\| text\n<!-- end of samples -->\nafter\n')
    with pytest.raises(ValueError, match='no block figures'):
        readme_pictures.replace_block(str(page), 'figures', '')


def test_the_pages_have_the_blocks():
    for page, names in (('README.md', ('samples', 'figures')), ('docs/getting-started.md', ('output',))):
        with open(os.path.join(ROOT, page), encoding='utf-8') as file:
            text = file.read()
        for name in names:
            assert f'<!-- {name}: ' in text and f'<!-- end of {name} -->' in text
