"""Where files are kept: whole or not at all, inside their place, in a folder and in a bucket that speaks S3."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from replyline.errors import Permanent, Temporary
from replyline.files import Files


async def chunks(*parts: bytes, fail: bool = False) -> AsyncIterator[bytes]:
    """A file that comes piece by piece, and may break off."""
    for part in parts:
        yield part
    if fail:
        raise Temporary("cut", reason="cut")


async def read(files: Files, path: str) -> bytes:
    """The whole file."""
    return b"".join([chunk async for chunk in files.read(path)])


async def test_a_file_is_kept_read_and_deleted(tmp_path: Path) -> None:
    files = Files(str(tmp_path / "media"))
    assert await files.write("customer/channel/1", chunks(b"abc", b"def")) == 6
    assert await read(files, "customer/channel/1") == b"abcdef"
    await files.delete("customer/channel/1")
    await files.delete("customer/channel/1")
    with pytest.raises(FileNotFoundError):
        await read(files, "customer/channel/1")


async def test_a_file_is_for_its_own_user_only(tmp_path: Path) -> None:
    """Failed before: 0644 under the usual umask."""
    await Files(str(tmp_path)).write("customer/1", chunks(b"abc"))
    assert (tmp_path / "customer" / "1").stat().st_mode & 0o777 == 0o600


async def test_folders_of_files_are_for_their_own_user_only(tmp_path: Path) -> None:
    """Failed before: 0755 under the usual umask. Folders of an earlier version are closed by the next file in them."""
    place = tmp_path / "data" / "media"
    (place / "old" / "channel").mkdir(parents=True)
    for folder in (place / "old", place / "old" / "channel"):
        folder.chmod(0o755)
    await Files(str(place)).write("new/channel/1", chunks(b"abc"))
    await Files(str(place)).write("old/channel/1", chunks(b"abc"))
    await Files(str(tmp_path / "fresh")).write("1", chunks(b"abc"))
    made = [place / "new", place / "new" / "channel", place / "old", place / "old" / "channel", tmp_path / "fresh"]
    assert [oct(folder.stat().st_mode & 0o777) for folder in made] == ["0o700"] * 5


async def test_a_file_larger_than_memory_should_hold_is_kept_too(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    piece = bytes(range(256)) * 1024
    await files.write("big", chunks(*[piece] * 40))
    assert hashlib.sha256(await read(files, "big")).digest() == hashlib.sha256(piece * 40).digest()


async def test_of_a_file_that_breaks_off_nothing_is_kept(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    with pytest.raises(Temporary):
        await files.write("a/b", chunks(b"half", fail=True))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []  # noqa: ASYNC240  a test may look


@pytest.mark.parametrize("path", ["../out", "a/../../out", "/etc/out", ""])
async def test_no_file_leaves_its_place(tmp_path: Path, path: str) -> None:
    with pytest.raises(Permanent):
        await Files(str(tmp_path / "media")).write(path, chunks(b"x"))
    assert not (tmp_path / "out").exists()


async def test_a_place_that_cannot_be_used_is_trouble_for_a_while(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(Temporary) as raised:
        await Files(str(tmp_path / "file")).write("a/b", chunks(b"x"))
    assert raised.value.reason == "files_unavailable"


class _Bucket:
    """As much of S3 as is needed (Amazon S3 API: PutObject, HeadObject, GetObject, DeleteObject, ListObjectsV2)."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.unsigned = 0

    async def serve(self, request: web.Request) -> web.Response:
        if "AWS4-HMAC-SHA256" not in request.headers.get("Authorization", ""):
            self.unsigned += 1
            return web.Response(status=403)
        bucket, _, key = request.path.lstrip("/").partition("/")
        if bucket != "media":
            return web.Response(status=404)
        if not key:
            return self._list(request)
        match request.method:
            case "PUT":
                self.objects[key] = _payload(request, await request.read())
                return web.Response(headers={"ETag": '"1"'})
            case "DELETE":
                self.objects.pop(key, None)
                return web.Response(status=204)
            case _:
                return self._get(request, key)

    def _list(self, request: web.Request) -> web.Response:
        prefix = request.query.get("prefix", "")
        keys = [key for key in self.objects if key.startswith(prefix)]
        found = "".join(f"<Contents><Key>{key}</Key><Size>{len(self.objects[key])}</Size></Contents>" for key in keys)
        body = f"<ListBucketResult><Name>media</Name><KeyCount>{len(keys)}</KeyCount>{found}</ListBucketResult>"
        return web.Response(text=body, content_type="application/xml")

    def _get(self, request: web.Request, key: str) -> web.Response:
        data = self.objects.get(key)
        if data is None:
            return web.Response(
                status=404, text="<Error><Code>NoSuchKey</Code></Error>", content_type="application/xml"
            )
        headers = {"ETag": '"1"', "Last-Modified": "Tue, 24 Nov 2026 10:00:00 GMT"}
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(len(data))})
        start, _, end = request.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(start) : int(end) + 1 if end else None]
        return web.Response(status=206, body=part, headers=headers)


def _payload(request: web.Request, raw: bytes) -> bytes:
    """Newer SDKs send a body in chunks with a checksum behind it (`aws-chunked`)."""
    if "aws-chunked" not in request.headers.get("Content-Encoding", ""):
        return raw
    data = bytearray()
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        if not length:
            break
        data += raw[:length]
        raw = raw[length + 2 :]
    return bytes(data)


async def test_a_bucket_that_speaks_s3_keeps_files_too(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = _Bucket()
    app = web.Application(client_max_size=10_000_000)
    app.router.add_route("*", "/{path:.*}", bucket.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{runner.addresses[0][1]}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    files = Files("s3://media/replyline")
    try:
        assert await files.write("customer/channel/1", chunks(b"abc", b"def")) == 6
        assert bucket.objects == {"replyline/customer/channel/1": b"abcdef"}
        assert await read(files, "customer/channel/1") == b"abcdef"
        await files.delete("customer/channel/1")
        assert bucket.objects == {}
        assert bucket.unsigned == 0
    finally:
        await runner.cleanup()
