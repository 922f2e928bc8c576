"""Files of visitors: what they say they are, of their own conversation, and never shown in place."""

import uuid
from pathlib import Path

import pytest

from replyline.store.database import Database
from tests.store.scene import Scene
from tests.web.conftest import Answer, Door, Serve
from tests.web.page import Page, make_site, open_page, save_all

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40


@pytest.fixture
async def scene(database: Database) -> Scene:
    return await make_site(database)


async def _upload(page: Page, data: bytes, mime_type: str, filename: str = "photo.png") -> Answer:
    return await page.call("POST", f"/uploads?filename={filename}", data=data, headers={"Content-Type": mime_type})


async def test_a_file_belongs_to_its_message_and_its_conversation(door: Door, scene: Scene) -> None:
    page, stranger = await open_page(door, scene.channel), await open_page(door, scene.channel)
    uploaded = await _upload(page, PNG, "image/png", "..%2F..%2Fetc%2Fphoto.png")
    assert (uploaded.status, uploaded.json["name"], uploaded.json["size"]) == (201, "photo.png", len(PNG))
    name = uploaded.json["id"]
    theft = {"client_id": str(uuid.uuid4()), "text": "mine", "attachments": [name]}
    assert (await stranger.call("POST", "/messages", json=theft)).problem == (422, "invalid")
    assert (await stranger.call("GET", f"/uploads/{name}")).problem == (404, "not_found")
    client_id = str(uuid.uuid4())
    assert (await page.write("", client_id, attachments=[name])).status == 202
    await save_all(scene)
    assert (await page.write("", client_id, attachments=[name])).status == 200, "a repeat names what is taken by itself"
    assert (await page.write("again", attachments=[name])).problem == (422, "invalid")
    (entry,) = (await page.call("GET", "/messages")).entries
    assert (entry["text"], entry["attachments"]) == ("", [uploaded.json])
    assert (await stranger.call("GET", f"/uploads/{name}")).problem == (404, "not_found")
    got = await page.call("GET", f"/uploads/{name}")
    assert (got.status, got.body) == (200, PNG)
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"].startswith("attachment;")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in got.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (b"<script>alert(1)</script>", "image/png"),
        (b"<svg onload=alert(1)>", "image/svg+xml"),
        (b"<html>", "text/html"),
        (PNG, "image/jpeg"),
        (b"%PDF-1.7", "image/png"),
        (b"MZ\x90\x00", "application/pdf"),
        (b"\x00\x01\x02", "text/plain"),
        (b"\xff\xfe", "text/plain"),
        (b"GIF89a", "application/x-msdownload"),
        (b"RIFF....WAVE", "image/webp"),
        (PNG, ""),
    ],
)
async def test_a_file_that_lies_about_its_type_is_refused(
    door: Door, scene: Scene, data: bytes, mime_type: str, tmp_path: Path
) -> None:
    page = await open_page(door, scene.channel)
    assert (await _upload(page, data, mime_type or "application/octet-stream")).status == 415
    assert await scene.value("SELECT count(*) FROM media") == 0
    assert not [file for file in (tmp_path / "media").rglob("*") if file.is_file()]


async def test_text_that_is_a_page_stays_text(door: Door, scene: Scene) -> None:
    page = await open_page(door, scene.channel)
    uploaded = await _upload(page, b"<script>alert(1)</script>", "text/plain", "a.html")
    got = await page.call("GET", f"/uploads/{uploaded.json['id']}")
    assert got.headers["content-type"] == "application/octet-stream"
    assert "attachment" in got.headers["content-disposition"]


async def test_a_file_that_is_too_large_is_refused(serve: Serve, scene: Scene) -> None:
    async with serve(max_body_bytes=2000) as door:
        page = await open_page(door, scene.channel)
        assert (await _upload(page, PNG + b"\0" * 3000, "image/png")).problem == (413, "too_large")


async def test_a_site_may_take_no_files(door: Door, database: Database) -> None:
    site = await make_site(database, uploads="off")
    page = await open_page(door, site.channel)
    assert (await _upload(page, PNG, "image/png")).problem == (403, "uploads_off")


async def test_a_file_that_cannot_be_noted_is_not_kept(door: Door, scene: Scene, tmp_path: Path) -> None:
    page = await open_page(door, scene.channel)
    assert (await page.call("GET", "/messages")).status == 200  # the site is known for the next seconds
    await scene.fetch("DELETE FROM channels WHERE id = $1", scene.channel.id)
    assert (await _upload(page, PNG, "image/png")).status >= 400
    assert not [file for file in (tmp_path / "media").rglob("*") if file.is_file()]
