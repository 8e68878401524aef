"""The label page in a real browser: Chromium without a window, driven by Playwright."""

import re

import pytest

from lm_human_preferences.labeling.collection import Collection
from lm_human_preferences.labeling.forms import get_form
from lm_human_preferences.labeling.server import serving

READY = 'html[data-ready]'  # the page now reacts to keys


@pytest.fixture
def open_page(chromium, tmp_path):
    """Return a function that serves questions (the texts of samples) and opens the page; (page, collection)."""
    opened = []

    def start(samples, label_type='best_of_4', query='once upon a time.', width=1280, scheme='light', **options):
        collection = Collection(str(tmp_path / 'labels.json'), get_form(label_type), {}, planned=len(samples))
        collection.add([dict(query=encode(query), samples=[encode(t) for t in texts]) for texts in samples])
        server = serving(collection, Texts(), ['Choose the kindest.'])
        address = server.__enter__()
        context = chromium.new_context(viewport=dict(width=width, height=800), color_scheme=scheme, **options)
        opened.extend([context.close, lambda: server.__exit__(None, None, None), collection.close])
        page = context.new_page()
        page.goto(address)
        return page, collection

    yield start
    for close in opened:
        close()


class Texts:
    """An encoding of any text: each character is a token."""

    def decode(self, tokens):
        return ''.join(map(chr, tokens))


def encode(text):
    return [ord(character) for character in text]


def begin(page, name='Ann'):
    page.wait_for_selector('#name:focus')
    page.keyboard.type(name)
    page.keyboard.press('Enter')
    page.wait_for_selector(READY)


def press(page, key, progress):
    """Press a key that opens another page, and wait until the new page shows `progress`."""
    page.keyboard.press(key)
    page.wait_for_selector(f'progress[value="{progress}"]')
    page.wait_for_selector(READY)


def four(count):
    return [[f'text {number} {sample}' for sample in 'abcd'] for number in range(count)]


def test_with_the_keyboard_alone(open_page):
    page, collection = open_page(four(4))
    errors = []
    page.on('console', lambda message: errors.append(message.text))
    page.on('pageerror', lambda error: errors.append(str(error)))
    begin(page)
    assert page.inner_text('h1') == 'Which is best?' and page.inner_text('.query .text') == 'once upon a time.'
    assert page.is_visible('text=Choose the kindest.')
    texts = page.locator('.sample .text').all_inner_texts()
    assert sorted(texts) == [f'text 0 {sample}' for sample in 'abcd']
    press(page, str(1 + texts.index('text 0 c')), 1)
    assert not page.is_visible('text=Choose the kindest.')
    page.keyboard.press('i')
    assert page.is_visible('text=Choose the kindest.')
    with page.expect_navigation():
        page.keyboard.press('s')
    page.wait_for_selector(READY)
    assert page.inner_text('[role=status]') == 'Skipped.' and 'text 2' in page.inner_text('.samples')
    with page.expect_navigation():
        page.keyboard.press('u')
    page.wait_for_selector(READY)
    assert 'text 1' in page.inner_text('.samples')
    press(page, 'u', 0)
    assert 'text 0' in page.inner_text('.samples') and collection.num_answers == 0
    texts = page.locator('.sample .text').all_inner_texts()
    press(page, str(1 + texts.index('text 0 b')), 1)
    # With Tab and Enter, as people do who do not know the keys.
    while not page.evaluate('document.activeElement.matches(".sample")'):
        page.keyboard.press('Tab')
    assert page.evaluate('getComputedStyle(document.activeElement).outlineStyle') == 'solid'
    wanted = page.evaluate('document.activeElement.querySelector(".text").innerText')
    press(page, 'Enter', 2)
    press(page, '1', 3)
    press(page, '4', 4)
    assert page.inner_text('h1') == 'All questions are answered'
    labels = collection.labels()
    assert [label['best'] for label in labels[:2]] == [1, 'abcd'.index(wanted[-1])]
    assert errors == []


def test_a_key_held_down_answers_one_question(open_page):
    page, collection = open_page(four(3))
    begin(page)
    page.keyboard.down('1')
    page.keyboard.down('1')  # a key that is held down sends repeats
    page.wait_for_selector('progress[value="1"]')
    page.keyboard.down('1')
    page.wait_for_selector(READY)
    page.keyboard.down('1')
    page.keyboard.up('1')
    press(page, '2', 2)
    assert collection.num_answers == 2


def test_texts_are_never_html(open_page):
    bad = '<img src=x onerror="document.title=\'hacked\'"><script>document.title="hacked"</script>'
    page, _ = open_page([[bad, '  <b>two</b>\nlines', 'c', 'd']], query=bad)
    begin(page, '<b>Ann</b>')
    assert page.inner_text('.query .text') == bad
    texts = page.locator('.sample .text').all_inner_texts()
    assert bad in texts and any('<b>two</b>\nlines' in text for text in texts)
    assert page.locator('main img, main b, main script').count() == 0
    assert 'hacked' not in page.title() and '<b>Ann</b>: 0' in page.inner_text('.pace')


@pytest.mark.parametrize('label_type', ['best_of_4', 'best_of_9', 'scalar_rating', 'scalar_compare'])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_at_a_phones_width_by_touch(open_page, label_type, scheme, tmp_path):
    samples = ['w' * 200, 'short', 'many words ' * 20, '\n'] + ['another'] * 5
    texts = samples[: len(get_form(label_type).sample_names)]
    page, collection = open_page([texts] * 2, label_type, width=390, scheme=scheme, has_touch=True, is_mobile=True)
    page.fill('#name', 'A person of a very long name indeed')
    page.tap('text=Begin')
    page.wait_for_selector(READY)
    assert page.evaluate('document.documentElement.scrollWidth') == 390
    sizes = page.evaluate('[...document.querySelectorAll("button")].map(b => b.getBoundingClientRect().height)')
    assert min(sizes) >= 44
    page.tap('[data-key="2"]')
    page.wait_for_selector('progress[value="1"]')
    assert collection.num_answers == 1


def luminance(colour):
    red, green, blue = (int(part) / 255 for part in re.findall(r'\d+', colour)[:3])
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_light_and_dark_are_readable(open_page):
    grounds = {}
    for scheme in ('light', 'dark'):
        page, collection = open_page(four(2), scheme=scheme)
        begin(page)
        colour = 'getComputedStyle(document.querySelector("{}")).{}'
        grounds[scheme] = luminance(page.evaluate(colour.format('body', 'backgroundColor')))
        for selector, ground in (('.query .text', 'body'), ('.pace', 'body'), ('.sample', '.sample'), ('kbd', 'kbd')):
            ink = luminance(page.evaluate(colour.format(selector, 'color')))
            under = luminance(page.evaluate(colour.format(ground, 'backgroundColor')))
            contrast = (max(ink, under) + 0.05) / (min(ink, under) + 0.05)
            assert contrast >= 4.5, (scheme, selector, contrast)
        collection.close()
    assert grounds['light'] > 0.8 and grounds['dark'] < 0.05


def test_without_scripts(open_page):
    page, collection = open_page(four(2), java_script_enabled=False)
    page.fill('#name', 'Ann')
    page.click('text=Begin')
    page.click('.sample >> nth=2')
    page.wait_for_selector('progress[value="1"]')
    assert collection.num_answers == 1
