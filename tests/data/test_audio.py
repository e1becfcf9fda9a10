import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sslrepro.data.audio import BadAudio, inspect_audio, read_audio, read_header
from sslrepro.data.commands import check, data_check
from sslrepro.draws import numpy_generator
from sslrepro.errors import UserError

SHARED = Path(__file__).parents[2].parent / "shared" / "speech"


def noise(seconds=1.0, rate=16000, scale=0.1, channels=1):
    shape = (int(seconds * rate), channels) if channels > 1 else int(seconds * rate)
    return (scale * numpy_generator("test audio").standard_normal(shape)).astype(np.float32)


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


@pytest.fixture
def write(tmp_path):
    def one(name, samples, rate=16000, **options) -> Path:
        soundfile.write(tmp_path / name, samples, rate, **options)
        return tmp_path / name

    return one


def test_stereo_is_averaged_not_interleaved(write):
    both = noise(channels=2)
    path = write("stereo.wav", both, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path), both.mean(axis=1), atol=1e-7)
    assert inspect_audio(path) == ["2 channels: averaged"]


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_come_out_at_16_khz(write, rate):
    time = np.arange(rate) / rate
    path = write("tone.flac", 0.5 * np.sin(2 * np.pi * 440 * time), rate)
    audio = read_audio(path)
    assert len(audio) == read_header(path).frames_at_16k == 16000
    assert np.argmax(np.abs(np.fft.rfft(audio))) == 440
    assert np.abs(audio[2000:-2000]).max() == pytest.approx(0.5, rel=0.02)
    np.testing.assert_array_equal(read_audio(path, 1000, 500), audio[1000:1500])
    assert inspect_audio(path) == [f"{rate} Hz: resampled to 16000"]


def test_content_counts_not_the_name(write, tmp_path):
    written = write("speech.wav", noise(), subtype="PCM_16")
    renamed = written.rename(tmp_path / "speech ä 語 🎤.flac")
    assert len(read_audio(renamed)) == 16000 and inspect_audio(renamed) == []


def test_part_of_a_file(write):
    path = write("a.flac", noise())
    np.testing.assert_array_equal(read_audio(path, 3000, 100), read_audio(path)[3000:3100])
    assert len(read_audio(path, 15_950, 100)) == 50


BAD = {
    "empty.flac": (lambda write, p: p.write_bytes(b""), "empty file"),
    "nothing.wav": (lambda write, p: write(p.name, np.zeros(0)), "empty (no samples)"),
    "text.flac": (lambda write, p: p.write_text("THIS IS TEXT\n" * 50), "not readable as audio"),
    "cut.flac": (lambda write, p: cut(write(p.name, noise(5)), 0.4), "truncated"),
    "cut.wav": (lambda write, p: cut(write(p.name, noise(5)), 0.4), "truncated"),
    "short.wav": (lambda write, p: write(p.name, noise(0.05)), "too short"),
}
WHOLE_ONLY = {
    "silent.flac": (lambda write, p: write(p.name, np.zeros(16000)), "silent"),
    "nan.wav": (lambda write, p: write(p.name, np.where(np.arange(16000) == 9000, np.nan, noise()), subtype="FLOAT"), "not finite"),
}


@pytest.mark.parametrize("name", [*BAD, *WHOLE_ONLY])
def test_bad_files_are_found_with_their_reason(write, tmp_path, name):
    make, reason = (BAD | WHOLE_ONLY)[name]
    make(write, tmp_path / name)
    with pytest.raises(BadAudio, match=f"^{reason.replace('(', '[(]').replace(')', '[)]')}"):
        inspect_audio(tmp_path / name)
    if name in BAD:  # seen from the header and the last sample alone, and never half read
        with pytest.raises(BadAudio):
            read_header(tmp_path / name)
        with pytest.raises(UserError, match=name):
            read_audio(tmp_path / name)


def test_damage_in_the_middle_shows_only_when_read_whole(write):
    path = write("damaged.flac", noise(5))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = bytes(3000)
    path.write_bytes(content)
    assert read_header(path).frames == 80_000
    with pytest.raises(BadAudio, match="truncated or damaged"):
        inspect_audio(path)


def test_usable_oddities_are_notes(write):
    path = write("loud.wav", np.clip(noise(41, scale=2.0) + 0.5, -1, 1), subtype="PCM_16")
    notes = " | ".join(inspect_audio(path))
    assert "41 s long: cut into pieces" in notes and "clipped" in notes and "offset of +0." in notes


def test_the_command_lists_every_bad_file_and_exits_1(write, tmp_path, capsys):
    write("good.flac", noise())
    assert data_check(tmp_path) == 0
    capsys.readouterr()
    for name, (make, _) in BAD.items():
        make(write, tmp_path / name)
    assert data_check(tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(BAD) + 1} files read whole: {len(BAD)} bad, 0 notes"
    found = {Path(line.split("\t")[1]).name: line.split("\t")[2] for line in lines[:-1]}
    assert set(found) == set(BAD) and all(found[name].startswith(reason) for name, (_, reason) in BAD.items())
    assert data_check(tmp_path, as_json=True) == 1
    assert {Path(row["path"]).name for row in json.loads(capsys.readouterr().out)["bad"]} == set(BAD)


def test_a_folder_that_is_missing_or_holds_no_audio_is_an_error(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        check(tmp_path / "missing")
    with pytest.raises(UserError, match="holds no audio file"):
        check(tmp_path)


@pytest.mark.skipif(not (SHARED / "bad").is_dir(), reason="the collection of broken recordings is not here")
def test_the_collection_of_broken_recordings():
    bad, notes, files = check(SHARED / "bad")
    reasons = {Path(path).relative_to(SHARED / "bad").parts[0]: reason for path, reason in bad}
    noted = {Path(path).relative_to(SHARED / "bad").parts[0] for path, _ in notes}
    assert set(reasons) == {"01_truncated_flac", "03_text_renamed", "07_silence_only"}
    assert "truncated" in reasons["01_truncated_flac"]
    assert noted == {"05_stereo", "09_ten_minutes_noise", "11_missing_transcript", "17_clipped_dc"}
    assert files == 18
