"""Coverage-guided fuzzing of the targets with atheris (Python 3.11), ten minutes in all.

    pip install atheris==3.0.0
    python tests/fuzz/fuzz_inputs.py [NEW_FOLDER] [SECONDS]

Inputs that reach new code are kept in NEW_FOLDER/TARGET. One that makes a reader raise anything but its own error ends
the run; it is in NEW_FOLDER/crash-… then, and belongs into the corpus, which `fuzz_corpus_test.py` replays.
"""

import os
import subprocess
import sys
import tempfile

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(FOLDER)))
TARGETS = ('labels', 'hparams', 'vocabulary')


def fuzz(target: str) -> None:
    """Fuzz one target, with what is left of `sys.argv` for libFuzzer."""
    import atheris

    for name in [name for name in sys.modules if name.split('.')[0] == 'json']:
        del sys.modules[name]  # to be instrumented
    with atheris.instrument_imports(include=['lm_human_preferences', 'json', 'targets']):
        import json

        # JSON is read by C, in which coverage is not seen; this is the same in Python.
        json.decoder.scanstring = json.decoder.py_scanstring
        json.scanner.make_scanner = json.decoder.scanner.make_scanner = json.scanner.py_make_scanner
        import targets
    with tempfile.TemporaryDirectory(dir='/dev/shm' if os.path.isdir('/dev/shm') else None) as folder:
        atheris.Setup(sys.argv, lambda data: targets.check(target, data, folder))
        atheris.Fuzz()


def main() -> None:
    if sys.argv[1:2] == ['--target']:
        fuzz(sys.argv.pop(2))
        return
    new = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix='fuzz-')
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 600
    for target in TARGETS:
        kept = os.path.join(new, target)
        os.makedirs(kept, exist_ok=True)
        flags = [f'-max_total_time={seconds // len(TARGETS)}', f'-dict={FOLDER}/words.dict', '-max_len=4096']
        flags += [f'-artifact_prefix={new}/', '-print_final_stats=1', '-rss_limit_mb=4096']
        command = [sys.executable, __file__, '--target', target, *flags, kept, os.path.join(FOLDER, 'corpus', target)]
        subprocess.run(command, check=True)


if __name__ == '__main__':
    main()
