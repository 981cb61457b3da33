"""Makes the calls that JupyterHub's spawner for FirecREST makes to start, poll and stop a notebook; see compute.py.

The spawner itself (eth-cscs/firecrestspawner) is in no package registry, so this is its sequence of calls, in its order
and with its conditions, as ../../docs/firecrest.md says.
"""

import asyncio
import base64
import os
import re

import firecrest as fc
from compute import HOME, SYSTEM, Token

PENDING, RUNNING = re.compile("^(PENDING|CONFIGURING)"), re.compile("^(RUNNING|COMPLETING)")

SCRIPT = """#!/bin/bash
#SBATCH --job-name=jupyter
#SBATCH --account={account}
#SBATCH --output=jupyter-%j.log
export JUPYTERHUB_OAUTH_SCOPES=$(echo $JUPYTERHUB_OAUTH_SCOPES | base64 --decode)
echo "$JUPYTERHUB_OAUTH_SCOPES $JUPYTERHUB_API_TOKEN"
exec sleep 300
"""


class Spawner:
    def __init__(self, url):
        self.client, self.job = fc.v2.AsyncFirecrest(firecrest_url=url, authorization=Token()), ""

    async def status(self):
        found = (await self.client.job_info(SYSTEM, self.job))[0]
        state = found["status"]["state"]
        return state if isinstance(state, str) else ",".join(state), found["nodes"]

    async def start(self):
        who = await self.client.userinfo(SYSTEM)
        assert who["group"]["name"], who
        env = {
            "JUPYTERHUB_API_TOKEN": "t0ken, with 'quotes'",
            "JUPYTERHUB_OAUTH_SCOPES": base64.b64encode(b'["access:servers!server=alice/", "a b"]').decode(),
        }
        job = await self.client.submit(SYSTEM, f"{HOME}", script_str=SCRIPT.format(account="proj"), env_vars=env)
        self.job = str(job["jobId"])
        while True:  # any answer but 200 would have the spawner ask for ever
            state, nodes = await self.status()
            if RUNNING.match(state):
                break
            assert PENDING.match(state), state
            await asyncio.sleep(0.5)
        assert nodes == "localhost", nodes  # a host list of Slurm, whose first host is the notebook's
        return (await self.client.job_metadata(SYSTEM, self.job))[0]["standardOutput"]

    async def poll(self):
        """None while it runs, as JupyterHub has it."""
        state, _ = await self.status()
        return None if PENDING.match(state) or RUNNING.match(state) else 1

    async def stop(self):
        await self.client.cancel_job(SYSTEM, self.job)
        for _ in range(60):
            if await self.poll() is not None:
                return
            await asyncio.sleep(0.5)
        raise AssertionError("the job does not end")


async def failures(url):
    spawner = Spawner(url)
    try:  # of a refusal it shows the message only if the status is 500
        await spawner.client.submit(SYSTEM, HOME, script_str="#!/bin/bash\n#SBATCH --partition=none\n:\n", env_vars={})
        raise AssertionError("a job for no partition was taken")
    except fc.UnexpectedStatusException as e:
        answer = e.responses[-1]
        assert answer.status_code == 500 and "invalid partition" in answer.json()["message"], answer.text


async def main():
    url = os.environ["FIRECREST_URL"]
    spawners = [Spawner(url) for _ in range(3)]  # of three users at once, as it were
    for spawner, log in zip(spawners, await asyncio.gather(*(s.start() for s in spawners))):
        assert await spawner.poll() is None
        for _ in range(50):
            if os.path.exists(log) and os.path.getsize(log) > 0:
                break
            await asyncio.sleep(0.1)
        with open(log) as output:
            assert output.read() == '["access:servers!server=alice/", "a b"] t0ken, with \'quotes\'\n', log
    await asyncio.gather(*(s.stop() for s in spawners))
    await failures(url)
    print("the spawner's calls: ok")


if __name__ == "__main__":
    asyncio.run(main())
