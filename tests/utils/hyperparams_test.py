"""Trees of hyperparameters: fields are set, checked and printed by dotted name."""

import io
import json
from dataclasses import dataclass, field
from typing import List, Optional

import pytest

from lm_human_preferences.utils.hyperparams import HParams, hparam


@dataclass
class Inner(HParams):
    rate: float = 0.5
    count: int = None
    note: Optional[str] = 'x'
    limit: Optional[float] = None


@dataclass
class Middle(HParams):
    inner: Optional[Inner] = None
    flag: bool = False


@dataclass
class Outer(HParams):
    name: str = 'outer'
    inner: Inner = field(default_factory=Inner)
    middle: Optional[Middle] = None


def overridden(texts):
    hparams = Outer()
    hparams.override_from_str_dict(texts)
    return hparams


def test_defaults_are_not_shared_between_trees():
    first, second = Outer(), Outer()
    first.inner.rate = 7.0
    assert second.inner.rate == 0.5


@pytest.mark.parametrize(
    'text, value', [(t, True) for t in ('t', 'true', 'True')] + [(f, False) for f in ('f', 'false', 'False')]
)
def test_bools(text, value):
    assert overridden({'middle.flag': text}).middle.flag is value


@pytest.mark.parametrize(
    'name, text, value',
    [
        ('inner.rate', '1e-3', 0.001),
        ('inner.rate', '3', 3.0),
        ('inner.rate', 'inf', float('inf')),
        ('inner.count', '-5', -5),
        ('inner.count', '1e3', 1000),
        ('inner.count', '+2.5E+3', 2500),
        ('inner.count', '1_000_000', 1000000),
        ('inner.rate', '1_000.5', 1000.5),
        ('inner.note', '', None),
        ('inner.note', 'none', None),
        ('inner.limit', '', None),
        ('inner.note', 'None', None),
        ('inner.note', 'null', None),
        ('inner.note', '1', '1'),
        ('inner.limit', 'None', None),
        ('inner.limit', '2', 2.0),
        ('name', 'None', 'None'),
        ('name', ' a,b=c ', ' a,b=c '),
    ],
)
def test_scalars_from_text(name, text, value):
    hparams = overridden({name: text})
    got = hparams.to_nested_dict()
    for part in name.split('.'):
        got = got[part]
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    'name, text, wanted',
    [
        ('inner.rate', 'nan', 'float'),
        ('inner.rate', 'fast', 'float'),
        ('inner.rate', '', 'float'),
        ('inner.count', '1e-3', 'int'),
        ('inner.count', '2.5e0', 'int'),
        ('inner.count', '1__000', 'int'),
        ('inner.count', '_1', 'int'),
        ('inner.count', '1e', 'int'),
        ('inner.count', '0x10', 'int'),
        ('inner.count', '1e9999999', 'int'),
        ('inner.count', '', 'int'),
        ('inner.count', '5.0', 'int'),
        ('inner.count', '5\n', 'int'),
        ('inner.count', 'None', 'int'),
        ('middle.flag', 'on', 'bool'),
        ('middle.flag', 'yes', 'bool'),
        ('middle', 'maybe', 'on or off'),
    ],
)
def test_text_that_does_not_parse(name, text, wanted):
    with pytest.raises(ValueError, match=wanted) as error:
        overridden({name: text})
    assert str(error.value).startswith(name)
    assert type(error.value) is ValueError


@pytest.mark.parametrize(
    'name, near',
    [
        ('inner.rat', 'inner.rate'),
        ('cuont', 'inner.count'),
        ('midle.inner.rate', 'middle.inner.rate'),
        ('name.x', 'name'),
    ],
)
def test_unknown_name_tells_the_nearest(name, near):
    with pytest.raises(AttributeError, match=rf'did you mean {near}\?'):
        overridden({name: '1'})


def test_a_child_switches_its_groups_on_in_any_order():
    for names in (['middle.inner.count', 'middle'], ['middle', 'middle.inner.count']):
        hparams = overridden({name: {'middle': 'on'}.get(name, '3') for name in names})
        assert hparams.middle.inner.count == 3 and hparams.middle.flag is False


def test_on_keeps_what_a_group_has():
    hparams = overridden({'middle.inner.count': '3'})
    hparams.override_from_str('middle=on')
    assert hparams.middle.inner.count == 3


@pytest.mark.parametrize('unset', ['', 'none', 'None', 'null', None])
def test_files_leave_optional_fields_unset_as_flags_do(unset, tmp_path):
    path = tmp_path / 'outer.json'
    path.write_text(json.dumps({'inner': {'note': unset, 'limit': unset}, 'middle': unset, 'name': 'none'}))
    hparams = overridden({'inner.limit': '3', 'middle.flag': 't'})
    hparams.override_from_json_file(str(path))
    assert (hparams.inner.note, hparams.inner.limit, hparams.middle, hparams.name) == (None, None, None, 'none')


def test_a_tree_of_another_process_keeps_its_texts():
    tree, copy = Outer(), Outer()
    for text in ('', 'none', None):
        tree.inner.note = text
        copy.override_from_nested_dict(tree.to_nested_dict(), exact=True)
        assert copy == tree


def test_unknown_scalars_may_be_passed_over_but_no_groups(tmp_path):
    path, passed = tmp_path / 'outer.json', []
    known = {'name': 'x', 'inner': {'count': 1}, 'middle': {'inner': {'count': 2}}}
    path.write_text(json.dumps({**known, 'old': 3, 'inner': {'count': 1, 'older': 'x', 'oldest': None}}))
    hparams = Outer.from_json_file(str(path), pass_over=passed.append)
    assert sorted(passed) == ['inner.older', 'inner.oldest', 'old'] and hparams.middle.inner.count == 2
    with pytest.raises(ValueError, match='no hyperparameter'):
        Outer.from_json_file(str(path))
    for unknown in ({}, {'rate': 1}, [1]):
        path.write_text(json.dumps({**known, 'odd': unknown}))
        with pytest.raises(ValueError, match='no hyperparameter odd'):
            Outer.from_json_file(str(path), pass_over=passed.append)


@pytest.mark.parametrize('off', ['off', 'f', 'none', '', False, None])
def test_off(off):
    hparams = overridden({'middle.inner.count': '3'})
    hparams.override_from_dict({'middle': off})
    assert hparams.middle is None


@pytest.mark.parametrize('group', ['middle', 'middle.inner'])
def test_off_and_a_child_contradict_and_set_nothing(group):
    hparams = Outer()
    with pytest.raises(ValueError, match=f'{group} is off and middle.inner.count is set'):
        hparams.override_from_dict({'name': 'changed', group: 'off', 'middle.inner.count': 3})
    assert hparams == Outer()


def test_a_required_group_cannot_be_off():
    with pytest.raises(ValueError, match='inner cannot be off'):
        overridden({'inner': 'off'})


def test_override_from_str():
    hparams = Outer()
    hparams.override_from_str('inner.count=2,middle=on,inner.note=a=b')
    assert (hparams.inner.count, hparams.inner.note, hparams.middle) == (2, 'a=b', Middle())
    hparams.override_from_str('')
    for text in ('inner.count', 'name=a,name=b'):
        with pytest.raises(ValueError):
            hparams.override_from_str(text)


def test_nested_dict_and_json_give_the_tree_back(tmp_path):
    hparams = overridden({'middle.inner.count': '3', 'inner.count': '1', 'name': 'é\n'})
    path = tmp_path / 'hparams.json'
    path.write_text(json.dumps(hparams.to_nested_dict()))
    copy = Outer()
    copy.override_from_json_file(str(path))
    assert copy == hparams and copy is not hparams
    copy.override_from_nested_dict({'middle': {'inner': None}})
    assert copy.middle == Middle() and hparams.middle.inner.count == 3


@pytest.mark.parametrize('content', ['{', '[1]'])
def test_json_that_is_none(tmp_path, content):
    path = tmp_path / 'hparams.json'
    path.write_text(content)
    with pytest.raises(ValueError, match='hparams.json'):
        Outer().override_from_json_file(str(path))


@pytest.mark.parametrize(
    'values, message',
    [
        ({}, 'inner.count is not set: give --inner.count=VALUE'),
        ({'inner.count': '3'}, 'inner.count should be int, not str'),
        ({'inner.count': True}, 'inner.count should be int, not bool'),
        ({'inner.count': 3.0}, 'inner.count should be int, not float'),
        ({'inner.count': 1, 'inner.rate': False}, 'inner.rate should be float, not bool'),
        ({'inner.count': 1, 'inner.note': 5}, 'inner.note should be str or None, not int'),
        ({'inner.count': 1, 'middle.inner.rate': 'a'}, 'middle.inner.rate should be float, not str'),
        ({'inner.count': 1, 'middle.flag': 1}, 'middle.flag should be bool, not int'),
    ],
)
def test_validate_names_the_field(values, message):
    hparams = Outer()
    hparams.override_from_dict(values)
    with pytest.raises(TypeError) as error:
        hparams.validate()
    assert message in str(error.value)
    with pytest.raises(TypeError, match='top.' + message[:10]):
        hparams.validate(prefix='top.')


def test_validate_takes_an_int_for_a_float_and_refuses_nan():
    hparams = Outer(inner=Inner(rate=2, count=1))
    hparams.validate()
    assert type(hparams.inner.rate) is float and hparams.inner.rate == 2.0
    hparams.inner.rate = float('nan')
    with pytest.raises(ValueError, match='inner.rate is not a number'):
        hparams.validate()


def test_dump_is_sorted():
    out = io.StringIO()
    overridden({'name': 'a\n', 'inner.count': '1'}).dump(name='trial', out=out)
    assert out.getvalue().splitlines() == [
        'trial:',
        '  inner.count = 1',
        '  inner.limit = None',
        "  inner.note = 'x'",
        '  inner.rate = 0.5',
        '  middle = off',
        "  name = 'a\\n'",
    ]


def test_differences():
    first, second = overridden({'inner.count': '1'}), overridden({'inner.count': '2', 'middle': 'on'})
    assert first.differences(second) == ['inner.count', 'middle', 'middle.flag', 'middle.inner']
    assert first.differences(overridden({'inner.count': '1'})) == []


@dataclass
class Renamed(HParams):
    RETIRED = ('gone',)

    num_steps: int = hparam(3, 'Number of steps.', aliases=['steps', 'n'])


@dataclass
class Holder(HParams):
    group: Optional[Renamed] = hparam(None, 'A group.', aliases=['old'])
    names: List[str] = hparam(list, 'A list.')


def test_fields_have_their_descriptions_as_data():
    tree = Holder.tree()
    assert {name: field.description for name, field in tree.items()} == {
        'group': 'A group.',
        'group.num_steps': 'Number of steps.',
        'names': 'A list.',
    }
    assert (tree['group.num_steps'].default, tree['names'].default) == (3, [])
    assert Holder().names is not Holder().names


@pytest.mark.parametrize('name', ['group.num_steps', 'group.steps', 'group.n', 'old.num_steps', 'old.steps'])
def test_an_alias_sets_the_field(name, tmp_path):
    outer, field_name = name.split('.')
    path = tmp_path / 'hparams.json'
    path.write_text(json.dumps({outer: {field_name: 5}}))
    ways = [
        lambda hparams: hparams.override_from_dict({name: 5}),
        lambda hparams: hparams.override_from_str(f'{name}=5'),
        lambda hparams: hparams.override_from_nested_dict({outer: {field_name: 5}}),
        lambda hparams: hparams.override_from_nested_dict({name: 5}),
        lambda hparams: hparams.override_from_json_file(str(path)),
    ]
    for way in ways:
        hparams = Holder()
        way(hparams)
        assert hparams.to_nested_dict() == {'group': {'num_steps': 5}, 'names': []}


def test_a_field_and_its_alias_are_the_field_set_twice():
    message = 'group.num_steps is set twice'
    for texts in ('group.num_steps=1,group.n=1', 'group.steps=1,old.n=2'):
        with pytest.raises(ValueError, match=f'{message}: as .* and as '):
            Holder().override_from_str(texts)
    for nested in ({'group': {'steps': 1, 'num_steps': 1}}, {'group': {'n': 1}, 'old.steps': 1}):
        with pytest.raises(ValueError, match=message):
            Holder().override_from_nested_dict(nested)


def test_files_may_hold_retired_fields():
    hparams = Holder()
    hparams.override_from_nested_dict({'group': {'gone': 'anything', 'n': 1}})
    assert hparams.group == Renamed(1)
    with pytest.raises(AttributeError, match='no hyperparameter group.gone'):
        hparams.override_from_str('group.gone=1')
