"""Drives pyfirecrest's methods for /filesystem/…/ops, sync, async and as a command; see compute.py."""

import asyncio
import hashlib
import os
import tarfile
import tempfile

import firecrest as fc
from compute import HOME, SYSTEM, Both, Token, command, refused

# Names that a form can carry: httpx writes a quotation mark and control characters as %22 and the like, which no server
# can tell from these letters.
NAMES = ["it's", "a b", "-rf", "$(id)", "a&b;c", "a\\b", "ü日本", "\uefff\uef80", "*", "%41", "a|b", "#?=+"]


async def text(call, folder, local):
    path = f"{folder}/text"
    with open(local, "w") as file:
        file.write("".join(f"line {i}\n" for i in range(1, 21)))
    assert await call("upload", SYSTEM, local, folder, "text") is None
    for arguments, content, kind, start, end in [
        ({}, "".join(f"line {i}\n" for i in range(1, 11)), "lines", 0, 10),
        ({"num_lines": 1}, "line 1\n", "lines", 0, 1),
        ({"num_bytes": 6}, "line 1", "bytes", 0, 6),
        ({"num_lines": 19, "exclude_trailing": True}, "line 1\n", "lines", 0, -19),
    ]:
        got = await call("head", SYSTEM, path, **arguments)
        assert got == {"content": content, "contentType": kind, "startPosition": start, "endPosition": end}, got
    assert (await call("tail", SYSTEM, path))["content"].splitlines() == [f"line {i}" for i in range(11, 21)]
    assert (await call("tail", SYSTEM, path, num_lines=20, exclude_beginning=True))["content"] == "line 20\n"
    assert (await call("tail", SYSTEM, path, num_bytes=3))["content"] == "20\n"
    with open(local) as file:
        assert await call("view", SYSTEM, path) == file.read()
    with open(local, "rb") as file:
        assert await call("checksum", SYSTEM, path) == {"algorithm": "SHA256", "checksum": hashlib.sha256(file.read()).hexdigest()}
    assert await call("file_type", SYSTEM, path) == "ASCII text"
    await refused(call, "head", SYSTEM, f"{folder}/none", status=404, phrase="No such file or directory")
    await refused(call, "view", SYSTEM, "/etc/passwd", status=400, phrase="does not match any of the defined filesystem paths")


async def attributes(call, folder):
    path = f"{folder}/text"
    stat = await call("stat", SYSTEM, path)
    assert (stat["mode"], stat["size"]) == (0o100644, os.stat(path).st_size) and stat["mtime"] == int(os.stat(path).st_mtime), stat
    assert (await call("chmod", SYSTEM, path, "600"))["permissions"] == "rw-------"
    assert (await call("chown", SYSTEM, path, "alice", "physics"))["group"] == "physics"
    assert (await call("chown", SYSTEM, path, None, None))["group"] == "physics"
    link = f"{folder}/link"
    made = await call("symlink", SYSTEM, path, link)
    assert made["output"]["linkTarget"] == path, made
    assert (await call("stat", SYSTEM, link))["mode"] & 0o170000 == 0o120000
    assert (await call("stat", SYSTEM, link, dereference=True))["mode"] == 0o100600
    files = await call("list_files", SYSTEM, folder)
    assert [(f["name"], f["type"]) for f in files] == [("link", "l"), ("text", "-")], files
    await refused(call, "stat", SYSTEM, f"{folder}/none", status=404, phrase="cannot statx")
    await refused(call, "mkdir", SYSTEM, folder, status=400, phrase="File exists")
    await refused(call, "chown", SYSTEM, path, "root", "", status=403, phrase="Permission denied")


async def transfers(call, folder, local):
    for i, name in enumerate(NAMES):
        content = os.urandom(1 << 10 << i % 10)[: (1 << 20) - 1]
        with open(local, "wb") as file:
            file.write(content)
        assert await call("upload", SYSTEM, local, folder, name) is None
        os.remove(local)
        assert await call("download", SYSTEM, f"{folder}/{name}", local) is None
        with open(local, "rb") as file:
            assert file.read() == content, name
    listed = [f["name"] for f in await call("list_files", SYSTEM, folder, show_hidden=True)]
    assert sorted(listed) == sorted(NAMES), listed
    open(local, "w").close()
    await call("upload", SYSTEM, local, folder, "empty")
    await call("download", SYSTEM, f"{folder}/empty", local)
    assert os.path.getsize(local) == 0
    for name in NAMES + ["empty"]:
        await call("rm", SYSTEM, f"{folder}/{name}")
    assert await call("list_files", SYSTEM, folder, show_hidden=True) == []
    try:
        await call("download", SYSTEM, f"{folder}/none", local)
        raise AssertionError("a missing file was downloaded")
    except FileNotFoundError:
        pass


async def archives(call, folder):
    await call("mkdir", SYSTEM, f"{folder}/tree/a", create_parents=True)
    for name in ["f.txt", "a/g.txt", "a/h.c"]:
        with open(f"{folder}/tree/{name}", "w") as file:
            file.write(name)
    for compression, mode in [("gzip", "r:gz"), ("bzip2", "r:bz2"), ("xz", "r:xz"), ("none", "r:")]:
        for pattern, want in [
            (None, ["tree", "tree/a", "tree/a/g.txt", "tree/a/h.c", "tree/f.txt"]),
            (r".*\.txt", ["./tree/a/g.txt", "./tree/f.txt"]),
        ]:
            archive, out = f"{folder}/x.tar", f"{folder}/out"
            await call("compress", SYSTEM, f"{folder}/tree", archive, match_pattern=pattern, compression=compression)
            with tarfile.open(archive, mode) as tar:
                assert sorted(tar.getnames()) == want, tar.getnames()
            await call("mkdir", SYSTEM, out)
            await call("extract", SYSTEM, archive, out, compression=compression)
            with open(f"{out}/tree/a/g.txt") as file:
                assert file.read() == "a/g.txt"
            await call("rm", SYSTEM, out)
    files = await call("list_files", SYSTEM, f"{folder}/tree", recursive=True)
    assert [f["name"] for f in files] == ["a", "f.txt", "a/g.txt", "a/h.c"], files


async def drive(client, folder):
    call = Both(client)
    for name in ["text", "transfers", "archives"]:
        made = await call("mkdir", SYSTEM, f"{folder}/{name}", create_parents=True)
        assert made["name"] == f"{folder}/{name}" and made["type"] == "d", made
    with tempfile.TemporaryDirectory() as local:
        await text(call, f"{folder}/text", f"{local}/file")
        await transfers(call, f"{folder}/transfers", f"{local}/file")
    await attributes(call, f"{folder}/text")
    await archives(call, f"{folder}/archives")
    await call("rm", SYSTEM, folder)
    await refused(call, "rm", SYSTEM, folder, status=404, phrase="No such file or directory")


def drive_command():
    folder = f"{HOME}/by command"
    command("mkdir", "-p", f"{folder}/d")
    with tempfile.NamedTemporaryFile("w") as local:
        local.write("1\n2\n3\n")
        local.flush()
        command("upload", local.name, folder, "f")
        command("download", f"{folder}/f", local.name + ".back")
        with open(local.name + ".back") as file:
            assert file.read() == "1\n2\n3\n"
        os.remove(local.name + ".back")
    assert command("head", "--lines", "1", f"{folder}/f") == "1\n"
    assert command("head", "--lines=-1", f"{folder}/f") == "1\n2\n"
    assert command("tail", "--lines", "+3", f"{folder}/f") == "3\n"
    assert "ASCII text" in command("file", f"{folder}/f")
    assert hashlib.sha256(b"1\n2\n3\n").hexdigest() in command("checksum", f"{folder}/f")
    assert "6" in command("stat", f"{folder}/f")
    command("chmod", f"{folder}/f", "640")
    command("chown", f"{folder}/f", "--group", "physics")  # the owner is null
    command("symlink", f"{folder}/f", f"{folder}/l")
    listed = command("ls", folder)
    assert "physics" in listed and f'"linkTarget": "{folder}/f"' in listed, listed
    command("compress", f"{folder}/f", f"{folder}/d/f.tgz")
    command("rm", "--force", f"{folder}/f")
    command("extract", f"{folder}/d/f.tgz", folder)
    with open(f"{folder}/f") as file:
        assert file.read() == "1\n2\n3\n"
    command("rm", "--force", folder)


def main():
    url = os.environ["FIRECREST_URL"]
    asyncio.run(drive(fc.v2.Firecrest(firecrest_url=url, authorization=Token()), f"{HOME}/sync"))
    print("files, sync: ok")

    async def run():
        await drive(fc.v2.AsyncFirecrest(firecrest_url=url, authorization=Token()), f"{HOME}/async")

    asyncio.run(run())
    print("files, async: ok")
    drive_command()
    print("files, command: ok")


if __name__ == "__main__":
    main()
