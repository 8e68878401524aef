"""An SSH server for hosts_test.py: python ssh_server.py ADDRESS HOST_KEY AUTHORIZED_KEYS."""

import asyncio
import sys

import asyncssh


async def run(process: asyncssh.SSHServerProcess) -> None:
    child = await asyncio.create_subprocess_exec(
        *('sh', '-c', process.command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    process.exit(await child.wait())


async def main(address, host_key, authorized_keys):
    await asyncssh.listen(
        address, 22, server_host_keys=[host_key], authorized_client_keys=authorized_keys, process_factory=run
    )
    print('listening', flush=True)
    await asyncio.Event().wait()


if __name__ == '__main__':
    asyncio.get_event_loop().run_until_complete(main(*sys.argv[1:]))
