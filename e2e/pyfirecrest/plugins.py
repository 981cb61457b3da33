"""Drives AiiDA's plugins for FirecREST, the transport and the scheduler, by their public methods; see compute.py.

Environment, too: TOKEN_URI, where a client gets its token, and AIIDA_PATH, an empty folder. AiiDA's database is in memory.
"""

import os
import stat
import tempfile
import time
from pathlib import Path

from aiida import load_profile
from aiida.schedulers.datastructures import JobState, JobTemplate
from aiida.schedulers.plugins.slurm import SlurmJobResource
from aiida.storage.sqlite_temp import SqliteTempBackend
from aiida_firecrest.scheduler import FirecrestScheduler
from aiida_firecrest.transport import FirecrestTransport

SYSTEM, HOME = os.environ["SYSTEM"], os.environ["WORK_DIR"]


def raises(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind:
        return
    raise AssertionError(f"{call.__name__}{args} does not raise {kind}")


def connect(temporary, checksum):
    return FirecrestTransport(
        url=os.environ["FIRECREST_URL"], token_uri=os.environ["TOKEN_URI"], client_id="client", client_secret="secret",
        compute_resource=SYSTEM, temp_directory=temporary, billing_account="proj", max_io_allowed=4, checksum_check=checksum,
    )


def folders(t, root):
    t.makedirs(f"{root}/a/b c")
    t.makedirs(f"{root}/a/b c", ignore_existing=True)
    raises(OSError, t.mkdir, f"{root}/a")
    t.mkdir(f"{root}/a", ignore_existing=True)
    t.mkdir(f"{root}/.hidden")
    assert t.isdir(f"{root}/a") and not t.isfile(f"{root}/a") and not t.isdir(f"{root}/none") and t.path_exists(f"{root}/a")
    assert sorted(t.listdir(root)) == [".hidden", "a"] and t.listdir(root, hidden=False) == ["a"]
    assert sorted(t.listdir(root, recursive=True)) == [".hidden", "a", "a/b c"], t.listdir(root, recursive=True)
    assert t.normalize(f"{root}/a/../a") == f"{root}/a"
    assert [e["name"] for e in t.listdir_withattributes(f"{root}/a")] == ["b c"]
    raises(OSError, t.rmdir, f"{root}/a")
    t.rmdir(f"{root}/.hidden")
    assert t.whoami() == "alice"


def files(t, root, local):
    one = Path(local, "one")
    one.write_text("first\nsecond\n")
    t.putfile(str(one), f"{root}/it's one")
    assert t.isfile(f"{root}/it's one") and t.get_attribute(f"{root}/it's one").st_size == 13
    t.chmod(f"{root}/it's one", 0o640)
    assert stat.S_IMODE(t.get_attribute(f"{root}/it's one").st_mode) == 0o640
    t.getfile(f"{root}/it's one", str(Path(local, "back")))
    assert Path(local, "back").read_text() == one.read_text()
    raises(FileNotFoundError, t.getfile, f"{root}/none", str(Path(local, "x")))
    raises(FileNotFoundError, t.putfile, str(Path(local, "none")), f"{root}/x")
    t.symlink(f"{root}/it's one", f"{root}/link")
    assert t.is_symlink(f"{root}/link") and not t.is_symlink(f"{root}/it's one") and os.readlink(f"{root}/link") == f"{root}/it's one"
    t.copyfile(f"{root}/it's one", f"{root}/two")
    t.copy(f"{root}/two", f"{root}/three")
    t.rename(f"{root}/two", f"{root}/a/two")
    assert sorted(Path(p).name for p in t.glob(f"{root}/*o*")) == ["it's one"], t.glob(f"{root}/*o*")
    assert Path(f"{root}/three").read_text() == "first\nsecond\n"
    t.remove(f"{root}/three")
    t.remove(f"{root}/link")
    # Larger than a request may be: through storage.
    large = Path(local, "large")
    large.write_bytes(os.urandom(11 << 20))
    t.put(str(large), f"{root}/large")
    t.get(f"{root}/large", str(Path(local, "large.back")))
    assert Path(local, "large.back").read_bytes() == large.read_bytes()


def trees(t, root, local):
    tree = Path(local, "tree")
    (tree / "sub").mkdir(parents=True)
    for i in range(5):
        (tree / "sub" / f"f {i}").write_text(str(i))
    for payoff in [True, False]:  # as an archive, and file by file; the client cannot extract into a folder with a space
        t.payoff_override = payoff
        t.puttree(str(tree), f"{root}/tree {payoff}")
        assert Path(f"{root}/tree {payoff}/sub/f 4").read_text() == "4", list(Path(root).rglob("*"))
        t.gettree(f"{root}/tree {payoff}", f"{local}/back-{payoff}")
        assert Path(f"{local}/back-{payoff}/sub/f 3").read_text() == "3", list(Path(local).rglob("*"))
    t.mkdir(f"{root}/copy")
    t.copytree(f"{root}/tree True", f"{root}/copy")
    assert Path(f"{root}/copy/sub/f 0").exists() or Path(f"{root}/copy/tree True/sub/f 0").exists(), list(Path(f"{root}/copy").rglob("*"))
    t.rmtree(f"{root}/copy")
    assert not t.path_exists(f"{root}/copy")
    raises(NotImplementedError, t.exec_command_wait, "true")


def jobs(t, root):
    scheduler = FirecrestScheduler()
    scheduler.set_transport(t)
    template = JobTemplate()
    template.job_name, template.shebang, template.uuid = "aiida", "#!/bin/bash", "u"
    template.job_resource = SlurmJobResource(num_machines=1, num_mpiprocs_per_machine=1)
    template.max_wallclock_seconds, template.sched_output_path, template.sched_error_path = 60, "out", "err"
    template.queue_name, template.account = "part01", "proj"
    header = scheduler._get_submit_script_header(template)
    Path(root, "quick.sh").write_text(f"#!/bin/bash\n{header}\necho done\n")
    Path(root, "slow.sh").write_text(f"#!/bin/bash\n{header}\nsleep 300\n")
    quick, slow = scheduler.submit_job(root, "quick.sh"), scheduler.submit_job(root, "slow.sh")
    deadline = time.time() + 60
    while any(j.job_id == quick for j in scheduler.get_jobs([quick])) or not Path(root, "out").exists():
        assert time.time() < deadline
        time.sleep(0.2)
    while (found := scheduler.get_jobs([slow], as_dict=True)) and found[slow].job_state != JobState.RUNNING:
        assert time.time() < deadline
        time.sleep(0.2)
    info = found[slow]
    assert (info.job_owner, info.queue_name, info.title) == ("alice", "part01", "aiida"), info
    assert slow in scheduler.get_jobs(as_dict=True)
    assert scheduler.kill_job(slow)
    while scheduler.get_jobs([slow]):
        assert time.time() < deadline
        time.sleep(0.2)
    assert scheduler.get_jobs(["999999"]) == []


def main():
    load_profile(SqliteTempBackend.create_profile("interop"))
    temporary = f"{HOME}/aiida temporary"
    Path(temporary).mkdir(mode=0o777)
    os.chmod(temporary, 0o777)
    for checksum in [False, True]:
        root = f"{HOME}/aiida {checksum}"
        t = connect(temporary, checksum)
        with t, tempfile.TemporaryDirectory() as local:
            t.makedirs(root)
            folders(t, root)
            files(t, root, local)
            trees(t, root, local)
            os.chmod(root, 0o777)
            if not checksum:
                jobs(t, root)
    assert os.listdir(temporary) == [], os.listdir(temporary)
    print("AiiDA's plugins: ok")


if __name__ == "__main__":
    main()
