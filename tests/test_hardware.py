"""Claims about video on a GPU; without one, the CPU does it and a warning says so."""

import av
import media
import numpy as np
import pytest

from deepfovea.checkpoint import load
from deepfovea.cli import main
from deepfovea.config import InputError
from deepfovea.files_to_files import reconstruct_file
from deepfovea.video import VideoReader, VideoWriter, hardware, writer

with_gpu = hardware.encoder_trouble(256, 256, "yuv420p") == ""


@pytest.fixture
def source(tmp_path):
    return media.write_video(tmp_path / "source.mp4", media.moving(3))


def codec_of(path):
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.name


def write(path, images):
    with VideoWriter(path, frame_rate=24, hwaccel="cuda") as out:
        for t, image in enumerate(images):
            out.write(image, t / 24)


@pytest.mark.skipif(with_gpu, reason="claims what happens without a GPU")
def test_without_a_gpu_the_cpu_makes_the_same_file_and_a_warning_says_so(source, tmp_path, caplog):
    model = load("stream")
    for hwaccel in ("none", "cuda"):
        caplog.clear()
        reconstruct_file(source, tmp_path / f"{hwaccel}.mp4", model, hwaccel=hwaccel)
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == (2 if hwaccel == "cuda" else 0)
    decoded, encoded = said
    assert decoded == f"{source}: is decoded on the CPU: no GPU that FFmpeg can use"
    assert encoded.startswith(f"{tmp_path / 'cuda.mp4'}: is encoded on the CPU: h264_nvenc cannot")
    assert (tmp_path / "none.mp4").read_bytes() == (tmp_path / "cuda.mp4").read_bytes()


def test_a_codec_without_a_decoder_on_the_gpu_is_named(source, monkeypatch, caplog):
    monkeypatch.setattr(hardware, "HWAccel", lambda *_, **__: None)  # as if it could be opened
    with VideoReader(source, hwaccel="cuda") as reader:
        assert len(list(reader)) == len(list(reader)) == 3
    (said,) = caplog.messages
    assert said == f"{source}: is decoded on the CPU: FFmpeg has no decoder for h264 on a GPU"


def test_the_encoder_of_the_gpu_is_used_where_it_can_be_opened(tmp_path, monkeypatch, caplog):
    """FFmpeg's libx265 stands in for the encoder of a GPU."""
    monkeypatch.setattr(hardware, "ENCODER", "libx265")
    monkeypatch.setattr(writer, "ENCODER", "libx265")
    monkeypatch.setattr(writer, "encoder_options", lambda crf: {})
    write(tmp_path / "out.mp4", media.moving(3, 64, 64))
    assert codec_of(tmp_path / "out.mp4") == "hevc"
    assert not caplog.messages


def test_outputs_that_no_gpu_encodes_are_named(tmp_path, caplog):
    write(tmp_path / "out.webm", media.moving(2))
    assert codec_of(tmp_path / "out.webm") in ("vp9", "libvpx-vp9")
    assert caplog.messages == [
        f"{tmp_path / 'out.webm'}: is encoded on the CPU: a GPU encodes H.264, not libvpx-vp9"
    ]
    write(tmp_path / "folder", media.moving(2))  # images need no encoder of a GPU
    with VideoReader(tmp_path / "folder", hwaccel="cuda") as reader:
        assert len(list(reader)) == 2
    assert len(caplog.messages) == 1


def test_a_damaged_file_has_the_same_message_with_and_without(tmp_path, source):
    source.write_bytes(source.read_bytes()[:100])
    messages = set()
    for hwaccel in ("none", "cuda"):
        with pytest.raises(InputError) as error:
            VideoReader(source, hwaccel=hwaccel)
        messages.add(str(error.value))
    assert len(messages) == 1


def test_an_unknown_name_is_refused(source, capsys):
    with pytest.raises(InputError, match="received 'vulkan', expected one of none, cuda"):
        VideoReader(source, hwaccel="vulkan")
    with pytest.raises(SystemExit) as exit_code:
        main(["reconstruct", str(source), "-o", "out.mp4", "--hwaccel", "vulkan"])
    assert exit_code.value.code == 2
    assert "--hwaccel" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not with_gpu, reason="no GPU with NVENC")
def test_a_gpu_decodes_the_same_frames_and_encodes_as_well(tmp_path, caplog):
    images = media.moving(8, 256, 384)
    source = media.write_video(tmp_path / "source.mp4", images)
    frames = {}
    for hwaccel in ("none", "cuda"):
        with VideoReader(source, hwaccel=hwaccel) as reader:
            frames[hwaccel] = np.stack([frame.image for frame in reader]).astype(int)
    # Both decoders follow the standard bit by bit; the conversion of NV12 may round differently.
    assert abs(frames["none"] - frames["cuda"]).max() <= 2
    write(tmp_path / "out.mp4", images)
    with VideoReader(tmp_path / "out.mp4") as reader:
        encoded = np.stack([frame.image for frame in reader]).astype(float)
    assert np.square(encoded - np.stack(images)).mean() < 10.0
    assert not caplog.messages
