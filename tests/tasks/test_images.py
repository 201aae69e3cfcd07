import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks import images
from tasks.images import ImageInfo, decode, fetch, inspect, locate
from tasks.problem import Problem
from tasks.sample import ImageRef

LIMIT = 1_000_000


def encoded(image, encoding, **options):
    buffer = io.BytesIO()
    image.save(buffer, encoding, **options)
    return buffer.getvalue()


def noise(width=40, height=30):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("encoding", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_usual_encoding_is_inspected_and_decoded(encoding):
    data = encoded(noise(), encoding)
    info = inspect(data, LIMIT)
    assert isinstance(info, ImageInfo)
    assert (info.width, info.height, info.format) == (40, 30, encoding)
    image = decode(data)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_gif_shows_its_first_frame():
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert decode(data).getpixel((0, 0)) == (255, 0, 0)


def test_palette_with_transparency_keeps_its_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    data = encoded(image, "PNG", transparency=0)
    assert inspect(data, LIMIT).mode == "P"
    assert [decode(data).getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (40, 50, 60)]


def test_alpha_is_dropped_not_blended():
    data = encoded(Image.new("RGBA", (1, 1), (10, 20, 30, 0)), "PNG")
    assert decode(data).getpixel((0, 0)) == (10, 20, 30)


def test_cmyk_jpeg_is_converted():
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert inspect(data, LIMIT).mode == "CMYK"
    red, green, blue = decode(data).getpixel((8, 8))
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("encoding", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(encoding):
    levels = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    data = encoded(Image.fromarray(levels), encoding)
    assert inspect(data, LIMIT).mode.startswith("I;16")
    assert np.asarray(decode(data))[0].tolist() == [[level >> 8] * 3 for level in (0, 255, 256, 32768, 65535)]


def test_exif_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise(40, 30), "JPEG", exif=exif)
    assert inspect(data, LIMIT) == ImageInfo(40, 30, "RGB", "JPEG")
    assert decode(data).size == (40, 30)


@pytest.mark.parametrize("encoding", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_images_are_told(encoding, share):
    data = encoded(noise(200, 200), encoding)
    problem = inspect(data[: int(len(data) * share)], LIMIT)
    assert isinstance(problem, Problem)
    assert problem.reason == "image_truncated"


def decodes_whole(data):
    """The naive twin: every pixel at full size."""
    try:
        Image.open(io.BytesIO(data)).load()
    except Exception:
        return False
    return True


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_damaged_jpeg_is_judged_as_by_decoding_it_whole(mode, options):
    data = encoded(noise(97, 61).convert(mode), "JPEG", **options)
    assert inspect(data, LIMIT) == ImageInfo(97, 61, mode, "JPEG")
    random = np.random.default_rng(0)
    damaged = [data[: int(len(data) * share)] for share in np.linspace(0.02, 0.999, 30)]
    for _ in range(60):
        spoiled = bytearray(data)
        start = int(random.integers(2, len(data) - 8))
        spoiled[start : start + 8] = random.bytes(8)
        damaged.append(bytes(spoiled))
    for one in damaged:
        assert isinstance(inspect(one, LIMIT), ImageInfo) == decodes_whole(one)


@pytest.mark.parametrize(
    "data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_image_is_unreadable(data):
    assert inspect(data, LIMIT).reason in {"image_unreadable", "image_truncated"}


def test_a_decompression_bomb_is_refused_from_its_header():
    def block(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + block(b"IHDR", header)
        + block(b"IDAT", zlib.compress(b"\0" * 1000))
        + block(b"IEND", b"")
    )
    problem = inspect(data, 178_956_970)
    assert problem.reason == "image_too_large"
    assert "60000 x 60000" in problem.detail
    assert inspect(encoded(noise(40, 30), "PNG"), 1199).reason == "image_too_large"
    assert isinstance(inspect(encoded(noise(40, 30), "PNG"), 1200), ImageInfo)


def test_names_are_resolved_below_the_root_as_the_user_spelled_it():
    assert locate("coco/a.jpg", Path("data/images")) == ImageRef("data/images/coco/a.jpg", "coco/a.jpg")
    assert locate("./x/../a.jpg", Path("data")) == ImageRef("data/a.jpg", "./x/../a.jpg")
    assert locate("a:b, (1) é.jpg", Path()).path == "a:b, (1) é.jpg"
    assert locate("..a.jpg", Path("data")).path == "data/..a.jpg"


def test_absolute_names_below_the_root_become_relative_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate(str(tmp_path / "data/a.jpg"), Path("data")).path == "data/a.jpg"
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    assert locate(str(tmp_path / "store/a.jpg"), Path("link")).path == "link/a.jpg"
    assert locate("/etc/passwd", Path("/")).path == "/etc/passwd"


def test_names_that_lead_out_of_the_root_are_taken_from_the_data_files_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate("../../coco/a.jpg", Path("data"), Path("data/out/llava")).path == "data/coco/a.jpg"
    assert locate("coco/a.jpg", Path("data"), Path("data/out/llava")).path == "data/coco/a.jpg"
    assert locate("../../../a.jpg", Path("data"), Path("data/out/llava")).reason == "image_outside_root"


@pytest.mark.parametrize("name", ["../a.jpg", "x/../../a.jpg", "/etc/passwd", "..", "/"])
def test_names_that_leave_the_root_are_refused(tmp_path, name):
    assert locate(name, tmp_path).reason == "image_outside_root"
    assert locate(name, tmp_path, tmp_path).reason == "image_outside_root"


@pytest.mark.parametrize(
    "name", ["http://a/b.jpg", "HTTPS://a/b.jpg", "s3://a/b.jpg", "file:///a.jpg", "data:image/png;base64,AA"]
)
def test_urls_are_refused(tmp_path, name):
    assert locate(name, tmp_path).reason == "image_url_not_allowed"


@pytest.mark.parametrize("name", ["", "a\0.jpg", "a\ud800.jpg"])
def test_what_is_no_file_name_is_refused_with_a_detail_that_can_be_written(tmp_path, name):
    problem = locate(name, tmp_path)
    assert problem.reason == "malformed_images"
    problem.detail.encode()


def test_missing_files_are_told_from_unreadable_ones(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"xyz")
    assert fetch(ImageRef(str(tmp_path / "a.jpg"), "a.jpg")) == b"xyz"
    assert fetch(ImageRef(str(tmp_path / "a.jpg"), "a.jpg", "tar:1:2")) == b"yz"
    for path in ("none.jpg", ".", "a.jpg/b.jpg"):
        assert fetch(ImageRef(str(tmp_path / path), path)).reason == "image_missing"


def test_suffix_is_told_by_content_before_name():
    assert images.suffix(encoded(noise(), "PNG"), "a.jpg") == "png"
    assert images.suffix(encoded(noise(), "WEBP")) == "webp"
    assert images.suffix(b"?", "A.JPEG") == "jpeg"
    assert images.suffix(b"?", "a.exe") == "img"
