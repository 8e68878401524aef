"""Commands whose standard error is a terminal."""

import fcntl
import os
import struct
import subprocess
import termios

from repository import ROOT


def on_a_terminal(columns, command, **environment):
    """Run a command whose standard error is a terminal; return (status, standard output, what the terminal got)."""
    ours, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
    shown = []
    env = dict(os.environ, PYTHONPATH=ROOT, PYTHONIOENCODING='utf-8', **environment)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=terminal) as process:
        os.close(terminal)
        while True:
            try:
                data = os.read(ours, 1 << 16)
            except OSError:  # the terminal is closed
                break
            if not data:
                break
            shown.append(data)
        output = process.stdout.read().decode()
    os.close(ours)
    return process.returncode, output, b''.join(shown).decode('utf-8', 'replace')
