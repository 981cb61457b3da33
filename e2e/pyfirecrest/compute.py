"""Drives pyfirecrest's methods for /status, /compute and jobs that handle files, sync, async and as a command, against a running service.

Environment: FIRECREST_URL, TOKEN, WORK_DIR (the caller's home on the system), SYSTEM. Exit code 0 if all is well.
"""

import asyncio
import inspect
import os
import subprocess
import sys
import tempfile

import firecrest as fc
from firecrest.FirecrestException import TransferJobFailedException

SYSTEM, HOME, TOKEN = os.environ["SYSTEM"], os.environ["WORK_DIR"], os.environ["TOKEN"]


class Token:
    def get_access_token(self):
        return TOKEN


class Both:
    """One face for the sync and the async client."""

    def __init__(self, client):
        self.client = client

    async def __call__(self, method, *args, **kwargs):
        answer = getattr(self.client, method)(*args, **kwargs)
        return await answer if inspect.isawaitable(answer) else answer


async def refused(call, *args, status, phrase, **kwargs):
    try:
        await call(*args, **kwargs)
    except fc.UnexpectedStatusException as e:
        answer = e.responses[-1]
        assert answer.status_code == status, (answer.status_code, answer.text)
        assert phrase in answer.json()["message"] and phrase in str(e), answer.text
    else:
        raise AssertionError(f"{args} was not refused")


async def drive(client):
    call = Both(client)
    assert (version := await call("server_version")) == "2.6.0", version
    systems = await call("systems")
    assert [s["name"] for s in systems] == [SYSTEM] and systems[0]["scheduler"]["type"] == "slurm", systems
    nodes = await call("nodes", SYSTEM)
    assert (nodes[0]["sockets"], nodes[0]["cores"], nodes[0]["threads"], nodes[0]["cpus"]) == (2, 3, 2, 12), nodes
    assert [p["name"] for p in await call("partitions", SYSTEM)] == ["part01"]
    assert await call("reservations", SYSTEM) == []
    who = await call("userinfo", SYSTEM)
    assert who["user"]["name"] == "alice" and {"name": "staff", "default": True} in who["accounts"], who

    script = "#!/bin/bash\n#SBATCH --output=pyfirecrest-%j.out\necho \"$GREETING from $(hostname)\"\nsleep 1\n"
    env = {"GREETING": "a,b 'c'", "SECRET": "x" * 2000}
    job = await call("submit", SYSTEM, HOME, script_str=script, env_vars=env, account="proj", partition="part01")
    done = await call("wait_for_job", SYSTEM, job["jobId"], timeout=60)
    assert done[0]["status"]["state"] == "COMPLETED" and done[0]["account"] == "proj", done
    with open(f"{HOME}/pyfirecrest-{job['jobId']}.out") as output:
        assert output.read().startswith("a,b 'c' from "), job
    meta = await call("job_metadata", SYSTEM, job["jobId"])
    assert meta[0]["script"] == script and meta[0]["standardOutput"] == f"{HOME}/pyfirecrest-{job['jobId']}.out", meta

    with tempfile.NamedTemporaryFile("w", suffix=".sh") as local:
        local.write("#!/bin/sh\n#SBATCH --job-name=a|b\n#SBATCH --output=/dev/null\nsleep 300\n")
        local.flush()
        job = await call("submit", SYSTEM, HOME, script_local_path=local.name)
    ids = [j["jobId"] for j in await call("job_info", SYSTEM)]
    assert job["jobId"] in ids, (job, ids)
    named = await call("job_info", SYSTEM, name="a|b")
    assert job["jobId"] in [j["jobId"] for j in named] and {j["name"] for j in named} == {"a|b"}, named
    assert job["jobId"] in [j["jobId"] for j in await call("job_info", SYSTEM, allusers=True, time_window="1h")]
    while (await call("job_info", SYSTEM, job["jobId"]))[0]["status"]["state"] == "PENDING":
        await asyncio.sleep(0.2)
    await call("attach_to_job", SYSTEM, job["jobId"], f"echo attached >{HOME}/attached")
    with open(f"{HOME}/attached") as output:
        assert output.read() == "attached\n"
    await call("cancel_job", SYSTEM, job["jobId"])
    done = await call("wait_for_job", SYSTEM, job["jobId"], timeout=60)
    assert done[0]["status"]["state"].startswith("CANCELLED"), done

    remote = f"{HOME}/remote job.sh"
    with open(remote, "w") as file:
        file.write("#!/bin/sh\n#SBATCH --output=/dev/null\nexit 4\n")
    job = await call("submit", SYSTEM, HOME, script_remote_path=remote)
    done = await call("wait_for_job", SYSTEM, job["jobId"])
    assert done[0]["status"]["state"] == "FAILED" and done[0]["status"]["exitCode"] == 4, done

    await refused(call, "job_info", SYSTEM, "999999", status=404, phrase="Job not found")
    await refused(call, "cancel_job", SYSTEM, "999999", status=404, phrase="Job not found")
    await refused(call, "nodes", "nowhere", status=404, phrase="System not found")
    await refused(call, "submit", SYSTEM, HOME, script_str=script, partition="nope", status=500, phrase="sbatch: error:")


async def drive_jobs(client):
    """Files that are handled by jobs; filesystem.py has the rest."""
    call = Both(client)
    folder = f"{HOME}/it's of {type(client).__name__}"
    await call("mkdir", SYSTEM, folder)
    with tempfile.NamedTemporaryFile() as local:
        await call("upload", SYSTEM, local.name, folder, "text.txt")
    info = await call("cp", SYSTEM, folder, f"{HOME}/copy of it's", timeout=60, dereference=True)
    assert info["transferJob"]["workingDirectory"] == HOME, info
    await call("mv", SYSTEM, f"{HOME}/copy of it's", f"{HOME}/moved 'it'", timeout=60)
    moved = await call("list_files", SYSTEM, f"{HOME}/moved 'it'")
    assert [f["name"] for f in moved] == ["text.txt"], moved
    try:
        await call("mv", SYSTEM, f"{HOME}/not there", f"{HOME}/anywhere", timeout=60)
    except TransferJobFailedException:
        pass
    else:
        raise AssertionError("a move of nothing went well")
    await call("rm", SYSTEM, f"{HOME}/moved 'it'")
    await call("rm", SYSTEM, folder)


def command(*args):
    env = dict(os.environ, FIRECREST_TOKEN_COMMAND="printenv TOKEN", FIRECREST_API_VERSION="2.6.0", FIRECREST_SYSTEM=SYSTEM,
               COLUMNS="500", NO_COLOR="1", TERM="dumb")
    program = os.path.join(os.path.dirname(sys.executable), "firecrest")
    done = subprocess.run([program, *args], env=env, capture_output=True, text=True)
    assert done.returncode == 0, (args, done.stdout, done.stderr)
    return done.stdout


def drive_command():
    assert "2.6.0" in command("server-version")
    assert SYSTEM in command("systems")
    assert "localhost" in command("get-nodes")
    assert "part01" in command("get-partitions")
    command("get-reservations")
    assert "(alice)" in command("id")
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as local:
        local.write("#!/bin/sh\n#SBATCH --output=/dev/null\nsleep 300\n")
        local.flush()
        out = command("submit", "--working-dir", HOME, local.name)
    job = "".join(c for c in out.split("jobId", 1)[1] if c.isdigit())
    assert job in command("job-info", job)
    assert "sleep 300" in command("job-metadata", job)
    command("cancel", job)
    command("mkdir", f"{HOME}/by command")
    assert "by command" in command("ls", HOME)
    command("rm", "--force", f"{HOME}/by command")
    assert "CANCELLED" in command("wait-for-job", job)


def main():
    url = os.environ["FIRECREST_URL"]
    sync = fc.v2.Firecrest(firecrest_url=url, authorization=Token())
    asyncio.run(drive(sync))
    asyncio.run(drive_jobs(sync))
    print("sync: ok")

    async def run():
        client = fc.v2.AsyncFirecrest(firecrest_url=url, authorization=Token())
        await drive(client)
        await drive_jobs(client)

    asyncio.run(run())
    print("async: ok")
    drive_command()
    print("command: ok")


if __name__ == "__main__":
    main()
