"""An SSH server for hosts_test.py: python ssh_server.py ADDRESS HOST_KEY AUTHORIZED_KEYS."""

import asyncio
import sys

import asyncssh


async def forward(source, target) -> None:
    """Copy everything from the source to the target, then close the target."""
    while True:
        data = await source.read(1 << 16)
        if not data:
            break
        target.write(data)
        await target.drain()
    target.write_eof()


async def run(process: asyncssh.SSHServerProcess) -> None:
    child = await asyncio.create_subprocess_exec(
        *('sh', '-c', process.command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    typing = asyncio.ensure_future(forward(process.stdin, child.stdin))
    # Send all output before the exit status. `process.redirect` does not guarantee that order.
    printed = [asyncio.ensure_future(forward(child.stdout, process.stdout))]
    printed.append(asyncio.ensure_future(forward(child.stderr, process.stderr)))
    status = await child.wait()
    await asyncio.wait(printed)
    typing.cancel()
    process.exit(status)


async def main(address, host_key, authorized_keys):
    await asyncssh.listen(
        address,
        22,
        server_host_keys=[host_key],
        authorized_client_keys=authorized_keys,
        process_factory=run,
        encoding=None,
    )
    print('listening', flush=True)
    await asyncio.Event().wait()


if __name__ == '__main__':
    asyncio.get_event_loop().run_until_complete(main(*sys.argv[1:]))
