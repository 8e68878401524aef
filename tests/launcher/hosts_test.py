"""Ranks on two hosts. Each host is a network namespace with its own address and host name; one has an SSH server.

A virtual cable joins the hosts. The second host does not see the files of the first one.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from repository import TESTS
from running import Running, command

SERVER = os.path.join(TESTS, 'support', 'ssh_server.py')
ADDRESSES = ('10.97.0.1', '10.97.0.2')
# Open MPI's launcher gives ssh its own process group. Parent and child both do this, and the parent prints a warning if
# the child was faster. The warning is harmless.
LATE_SETPGID = re.compile(r'^\[\S+\] plm:ssh: Warning: setpgid\(\d+,\d+\) failed in parent with errno=.*\n', re.M)


def missing():
    """Return what these tests need and this machine does not have."""
    programs = [name for name in ('ip', 'unshare', 'ssh', 'ssh-keygen') if shutil.which(name) is None]
    packages = [name for name in ('mpi4py', 'asyncssh') if importlib.util.find_spec(name) is None]
    if programs or packages:
        return ', '.join(programs + packages)
    name = f'try-{os.getpid()}'
    tried = subprocess.run(['ip', 'netns', 'add', name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if tried.returncode:
        return 'the privilege to make network namespaces'
    subprocess.run(['ip', 'netns', 'delete', name], check=True)
    return None


LACK = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(LACK is not None, reason=f'needs {LACK}')]


class TwoHosts:
    """Two hosts: host-a starts runs, and host-b has an SSH server."""

    def __init__(self, folder):
        self.save_dir = f'{folder}/save'
        os.mkdir(self.save_dir)
        self._names = [f'host-{letter}-{os.getpid()}' for letter in 'ab']
        for key in ('host_key', 'user_key'):
            subprocess.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', f'{folder}/{key}'], check=True)
        self._ssh = (
            f'ssh -i {folder}/user_key -o BatchMode=yes -o StrictHostKeyChecking=no '
            f'-o UserKnownHostsFile={folder}/known_hosts -o LogLevel=ERROR'
        )
        self.environment = {**os.environ, 'PRTE_MCA_plm_ssh_agent': self._ssh}
        for name in self._names:
            self._ip('netns', 'add', name)
        ends = [f'v{letter}{os.getpid()}' for letter in 'ab']
        self._ip(
            'link', 'add', ends[0], 'netns', self._names[0], 'type', 'veth', 'peer', ends[1], 'netns', self._names[1]
        )
        for name, end, address in zip(self._names, ends, ADDRESSES):
            self._ip('-n', name, 'address', 'add', f'{address}/24', 'dev', end)
            self._ip('-n', name, 'link', 'set', end, 'up')
            self._ip('-n', name, 'link', 'set', 'lo', 'up')
        hide = f'mount -t tmpfs none {self.save_dir} && exec'
        server = [sys.executable, SERVER, ADDRESSES[1], f'{folder}/host_key', f'{folder}/user_key.pub']
        self._server = subprocess.Popen([*self.prefix(1, hide), *server], stdout=subprocess.PIPE)
        assert self._server.stdout.readline() == b'listening\n'

    def _ip(self, *words):
        return subprocess.run(['ip', *words], check=True, stdout=subprocess.PIPE).stdout.decode()

    def prefix(self, host, then='exec'):
        """Return the first words of a command line that runs on a host."""
        name = self._names[host]
        script = f'hostname {name[:6]} && {then} "$0" "$@"'
        return ['ip', 'netns', 'exec', name, 'unshare', '--uts', '--mount', 'sh', '-c', script]

    def on_b(self, *words):
        """Return the output of a command on host-b."""
        ssh = [*self._ssh.split(), ADDRESSES[1], *words]
        return subprocess.run([*self.prefix(0), *ssh], check=True, stdout=subprocess.PIPE).stdout.decode()

    def processes_on_b(self):
        """Return the processes on host-b, without those of the SSH server."""
        return set(map(int, self._ip('netns', 'pids', self._names[1]).split())) - {self._server.pid}

    def remove(self):
        self._server.kill()
        self._server.communicate()
        for name in self._names:
            for pid in self._ip('netns', 'pids', name).split():
                os.kill(int(pid), signal.SIGKILL)
            self._ip('netns', 'delete', name)


@pytest.fixture(scope='module')
def hosts(tmp_path_factory):
    two = TwoHosts(str(tmp_path_factory.mktemp('hosts')))
    yield two
    two.remove()


def test_train_policy_on_two_hosts(hosts):
    folder = hosts.save_dir
    flags = [f'--hosts={ADDRESSES[0]}:1,{ADDRESSES[1]}:1']
    arguments = [*hosts.prefix(0), *command(folder, *flags, episodes=48)]
    done = subprocess.run(arguments, env=hosts.environment, capture_output=True, timeout=300)
    output = done.stdout.decode()
    assert (done.returncode, LATE_SETPGID.sub('', done.stderr.decode())) == (0, '')
    assert '\n2 ranks on 2 hosts, gradients averaged by ' in output
    assert 'Samples after fine-tuning:' in output and output.count('step 3/3') == 1
    assert {'policy', 'reward_model', 'tb'} <= set(os.listdir(os.path.join(folder, 'run')))
    assert hosts.on_b('hostname; ls', folder) == 'host-b\n'
    assert not hosts.processes_on_b()


def test_a_rank_on_another_host_is_killed(hosts, tmp_path):
    hostfile = tmp_path / 'hostfile'
    hostfile.write_text(f'# two hosts\n{ADDRESSES[0]} slots=1\n{ADDRESSES[1]}\n')
    run = Running(str(tmp_path), f'--hostfile={hostfile}', prefix=hosts.prefix(0), env=hosts.environment)
    try:
        assert run.rank(1) in hosts.processes_on_b()
        os.kill(run.rank(1), signal.SIGKILL)
        status, _, errors = run.end()
    finally:
        run.kill()
    assert status == 1
    assert 'error: rank 1 of 2 on ' in errors.splitlines()[-1] and 'was killed by SIGKILL' in errors.splitlines()[-1]
    assert not hosts.processes_on_b()
