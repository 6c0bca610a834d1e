"""GenreClassifier and the stock EncoderClassifier on songs whose genre is known."""

import logging
import os
import shutil
from collections import Counter
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import soundfile
import soxr
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.utils.fetching import FetchFrom, FetchSource

from ms_sincresnet import GenreClassifier, MSSincResNet
from ms_sincresnet.errors import AudioFileError, ModelFolderError
from ms_sincresnet.inference.predictions import ClipPrediction
from ms_sincresnet.pretrained.model_folder import SPEECHBRAIN_FILES, save_model_folder

CPU = {"device": "cpu"}


@pytest.fixture(scope="module")
def stock_classifier(model_folder):
    """SpeechBrain's own class on the model folder."""
    return EncoderClassifier.from_hparams(source=str(model_folder), run_opts=CPU)


@pytest.fixture
def song(tmp_path, write_song):
    """A song of 6 s: metal at first, then blues, which wins."""
    return write_song(tmp_path / "song.wav", ("metal", 2.0), ("blues", 4.0))


@pytest.fixture
def hub(monkeypatch):
    """The Hub's only repository "user/repository": path of a folder; its requests."""

    def download(repo_id, filename, **options):
        requests.append(f"{repo_id}/{filename}")
        if repo_id != "user/repository" or download.folder is None:
            raise LookupError(f"{repo_id} was looked up on the network")
        return str(download.folder / filename)

    requests = download.requests = []
    download.folder = None
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return download


def clip_posteriors(path, model):
    """A file's clips' posteriors and its length, by nothing but the model itself."""
    samples, rate = soundfile.read(path, always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate, 16000, quality="HQ")
    repeated = np.tile(mono, -(-48000 // len(mono)))[: max(48000, len(mono))]
    posteriors = []
    for start in range(0, len(repeated) - 48000 + 1, 8000):
        clip = torch.tensor(repeated[start : start + 48000], dtype=torch.float32)
        posteriors.append(model(clip[None])[0].exp())
    return torch.stack(posteriors), len(mono)


@pytest.mark.parametrize(
    ("duration_s", "rate", "channels", "suffix"),
    [
        (0.3, 44100, 2, ".wav"),
        (0.3, 8000, 1, ".aiff"),
        (3.0, 16000, 1, ".flac"),
        (3.0, 8000, 2, ".ogg"),
        (10.0, 22050, 1, ".mp3"),
        (10.0, 96000, 2, ".wav"),
        (10.0, 48000, 6, ".flac"),
        (10.0, 44100, 6, ".aiff"),
        (10.0, 44100, 2, ".ogg"),
        (10.0, 48000, 1, ".mp3"),
        (10.0, 16000, 1, ".wav"),
        (95.0, 22050, 2, ".wav"),
    ],
)
def test_both_classes_name_the_voted_genre_of_a_whole_track(
    tmp_path,
    write_song,
    tone_model,
    genres,
    classifier,
    stock_classifier,
    duration_s,
    rate,
    channels,
    suffix,
):
    shares = {"jazz": 0.5, "rock": 0.3, "metal": 0.2} if duration_s > 3 else {"jazz": 1}
    parts = [(genre, share * duration_s) for genre, share in shares.items()]
    path = write_song(
        tmp_path / f"song{suffix}", *reversed(parts), rate=rate, channels=channels
    )
    posteriors, n_samples = clip_posteriors(path, tone_model)
    named = [genres[index] for index in posteriors.argmax(1)]
    votes = Counter(named)
    assert votes.keys() == shares.keys()
    assert votes.most_common(1)[0][0] == "jazz"
    expected_shares = {genre: votes[genre] / len(named) for genre in genres}

    song = classifier.predict_song(path)
    assert song.genre == "jazz"
    assert song.duration == pytest.approx(n_samples / 16000, abs=2 / 16000)
    assert [clip.genre for clip in song.clips] == named
    found = [clip.posterior for clip in song.clips]
    assert found == pytest.approx(posteriors.amax(1).tolist(), abs=1e-4)
    assert song.shares == pytest.approx(expected_shares, abs=1e-6)
    expected = dict(zip(genres, posteriors.mean(0).tolist(), strict=True))
    assert song.posteriors == pytest.approx(expected, abs=1e-4)

    ours = classifier.classify_file(path)
    stock = stock_classifier.classify_file(str(path))
    for out_prob, score, index, named_genre in (ours, stock):
        assert out_prob.shape == (1, len(genres))
        assert out_prob.exp().sum().item() == pytest.approx(1, abs=1e-5)
        found = dict(zip(genres, out_prob[0].exp().tolist(), strict=True))
        assert found == pytest.approx(expected_shares, abs=0.011)
        assert score.tolist() == [out_prob.max().item()]
        assert index.tolist() == [genres.index("jazz")]
        assert named_genre == ["jazz"]
    torch.testing.assert_close(ours[0], stock[0], rtol=0, atol=1e-3)


def test_half_a_minute_is_55_clips_on_a_timeline(tmp_path, write_song, classifier):
    path = write_song(tmp_path / "song.wav", ("rock", 12), ("jazz", 8), ("metal", 10))
    song = classifier.predict_song(path)
    assert song.genre == "rock"
    assert song.duration == 30
    assert [clip.start_s for clip in song.clips] == [0.5 * n for n in range(55)]
    assert all(clip.end_s == clip.start_s + 3 for clip in song.clips)
    for clip in song.clips:
        assert 0.25 < clip.posterior <= 1
        for genre, start_s, end_s in [("rock", 0, 12), ("jazz", 12, 20)]:
            if start_s <= clip.start_s and clip.end_s <= end_s:
                assert clip.genre == genre
    for by_genre in (song.shares, song.posteriors):
        assert sum(by_genre.values()) == pytest.approx(1, abs=1e-6)
        assert max(by_genre, key=by_genre.get) == "rock"


def test_a_short_song_ends_where_it_ends(tmp_path, write_song, classifier):
    song = classifier.predict_song(write_song(tmp_path / "song.wav", ("blues", 0.3)))
    assert song.duration == 0.3
    (clip,) = song.clips
    assert clip[:3] == (0.0, 0.3, "blues")
    assert song.shares["blues"] == 1
    assert song.posteriors["blues"] == pytest.approx(clip.posterior)


def test_songs_in_a_batch_are_named_as_they_are_alone(
    tmp_path, write_song, classifier, stock_classifier
):
    songs = [
        classifier.load_audio(write_song(tmp_path / "song.wav", *parts))
        for parts in [
            [("metal", 1.3)],
            [("jazz", 9.2), ("rock", 4.1)],
            [("blues", 4.0)],
        ]
    ]
    wavs = torch.nn.utils.rnn.pad_sequence(songs, batch_first=True)
    wav_lens = torch.tensor([len(song) / wavs.shape[1] for song in songs])
    for each in (classifier, stock_classifier):
        log_posteriors, score, index, named = each.classify_batch(wavs, wav_lens)
        assert named == ["metal", "jazz", "blues"]
        assert score.shape == index.shape == (3,)
        for song, together in zip(songs, log_posteriors, strict=True):
            alone = each.classify_batch(song[None])[0][0]
            torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_the_size_of_the_batches_changes_nothing(model_folder, classifier, song):
    small = GenreClassifier.from_hparams(
        model_folder, run_opts=CPU, overrides={"batch_size": 2}
    )
    assert small.mods.embedding_model.batch_size == 2
    assert classifier.mods.embedding_model.batch_size == 32
    expected = classifier.classify_file(song)[0]
    found = small.classify_file(song)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("as_type", [str, Path])
def test_paths_of_both_types(model_folder, song, as_type):
    classifier = GenreClassifier.from_hparams(as_type(model_folder), run_opts=CPU)
    assert isinstance(classifier, EncoderClassifier)
    assert classifier.classify_file(as_type(song))[3] == ["blues"]
    assert classifier.predict_song(as_type(song)).genre == "blues"


def test_the_home_folder_and_sources_of_speechbrain(
    model_folder, monkeypatch, song, hub
):
    monkeypatch.setenv("HOME", str(model_folder.parent))
    classifier = GenreClassifier.from_hparams("~/model", run_opts=CPU)
    monkeypatch.setenv("HOME", str(song.parent))
    assert classifier.classify_file("~/song.wav")[3] == ["blues"]
    source = FetchSource(FetchFrom.LOCAL, str(model_folder))
    classifier = GenreClassifier.from_hparams(source, run_opts=CPU)
    assert classifier.classify_file(song)[3] == ["blues"]
    assert hub.requests == []


def test_files_of_one_name_in_two_folders_are_two_songs(
    tmp_path, write_song, classifier, stock_classifier
):
    for genre in ("jazz", "rock"):
        (tmp_path / genre).mkdir()
        path = str(write_song(tmp_path / genre / "song.wav", (genre, 3)))
        assert stock_classifier.classify_file(path)[3] == [genre]
        assert classifier.classify_file(path)[3] == [genre]
        # SpeechBrain would find the first song in savedir and take it for the second.
        savedir = tmp_path / "savedir"
        assert classifier.classify_file(path, savedir=savedir)[3] == [genre]
    assert not savedir.exists()


def test_model_folders_do_not_mix_in_savedir(tmp_path, tone_model, model_folder, song):
    save_model_folder(tmp_path / "other", tone_model, ["a", "b", "c", "d"])
    savedir = tmp_path / "savedir"
    for folder, genre in [(model_folder, "blues"), (tmp_path / "other", "b")]:
        classifier = GenreClassifier.from_hparams(folder, savedir=savedir, run_opts=CPU)
        assert classifier.classify_file(song)[3] == [genre]
    assert not savedir.exists()


@pytest.mark.parametrize("kind", [GenreClassifier, EncoderClassifier])
def test_nothing_is_written_anywhere(model_folder, song, tmp_path, monkeypatch, kind):
    before = sorted(os.listdir(model_folder))
    working_folder = tmp_path / "elsewhere"
    working_folder.mkdir()
    monkeypatch.chdir(working_folder)
    for folder, path in [
        (str(model_folder), str(song)),
        (os.path.relpath(model_folder), "../song.wav"),
    ]:
        classifier = kind.from_hparams(source=folder, run_opts=CPU)
        assert classifier.classify_file(path)[3] == ["blues"]
    monkeypatch.chdir(tmp_path)
    assert classifier.classify_file("song.wav")[3] == ["blues"]
    assert os.listdir(working_folder) == []
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "song.wav"]
    assert sorted(os.listdir(model_folder)) == before


def test_a_path_with_spaces_quotes_and_accents(tmp_path, write_song, classifier):
    path = tmp_path / 'l\'été "à" $HOME' / "kruhový objazd #1.wav"
    path.parent.mkdir()
    write_song(path, ("jazz", 3))
    for address in (path, str(path)):
        assert classifier.predict_song(address).genre == "jazz"
        assert classifier.classify_file(address)[3] == ["jazz"]


def test_a_name_that_begins_with_a_tilde(tmp_path, write_song, classifier, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_song("~song.wav", ("jazz", 3))
    assert classifier.classify_file("~song.wav")[3] == ["jazz"]


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_a_silent_song_has_no_genre(tmp_path, classifier, caplog, song, level):
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.full(4 * 16000, level), 16000)
    with pytest.raises(AudioFileError, match="silence.wav: silent throughout"):
        classifier.predict_song(path)
    with caplog.at_level(logging.WARNING):
        classifier.classify_file(song)
        assert caplog.messages == []
        log_posteriors = classifier.classify_file(path)[0]
    assert caplog.messages == [f"{path} is silent: no genre is likelier than another"]
    assert log_posteriors.exp().tolist() == [pytest.approx([0.25] * 4)]


def test_silent_clips_vote_for_nothing(
    tmp_path, write_song, classifier, stock_classifier
):
    """Most of the song is silent; what is heard decides, whatever silence is like."""
    path = write_song(tmp_path / "song.wav", ("metal", 5.0))
    samples, rate = soundfile.read(path)
    soundfile.write(path, np.concatenate([np.zeros(15 * rate), samples]), rate)
    song = classifier.predict_song(path)
    assert song.genre == "metal" and song.shares["metal"] > 0.9
    assert sum(song.shares.values()) == pytest.approx(1)
    assert sum(song.posteriors.values()) == pytest.approx(1, abs=1e-6)
    # Clips that end after 15 s hear something.
    heard = [clip.genre is not None for clip in song.clips]
    assert heard == [clip.end_s > 15 for clip in song.clips]
    assert song.clips[0] == ClipPrediction(0.0, 3.0, None, 0.0, {})
    timeline = song.timeline()
    assert timeline.notna().all(axis=1).tolist() == heard
    assert timeline.index.tolist() == [1.5 + 0.5 * n for n in range(35)]
    for each in (classifier, stock_classifier):
        log_posteriors, _, _, genre = each.classify_file(str(path))
        assert genre == ["metal"]
        assert log_posteriors.exp()[0].tolist() == pytest.approx(
            list(song.shares.values()), abs=0.011
        )


@pytest.mark.parametrize("batch_size", [1, 4, 7, 32])
def test_songs_that_share_batches_are_named_as_they_are_alone(
    model_folder, classifier, songs, batch_size
):
    """Among them one that is silent, one with a fault, and one of nothing."""
    small = GenreClassifier.from_hparams(
        model_folder, run_opts=CPU, overrides={"batch_size": batch_size}
    )
    wavs = [classifier.load_audio(path) for path in songs]

    def breaking():
        yield wavs[1][:70000]
        raise AudioFileError("it breaks off")

    read = []

    def given():
        for key, blocks in [
            ("first", wavs[0].split(5000)),
            ("silent", [torch.zeros(90000)]),
            ("broken", breaking()),
            ("second", wavs[1].split(7000)),
            ("empty", []),
            ("third", [wavs[2]]),
        ]:
            read.append(key)
            yield key, blocks

    found = {}
    for key, prediction in small.predict_songs(given()):
        assert torch.is_grad_enabled()  # the caller's own settings are left alone
        found[key] = prediction
    assert list(found) == read
    assert str(found["broken"]) == "it breaks off"
    assert "silent: silent throughout" in str(found["silent"])
    assert "empty: the audio is empty: 0 samples" in str(found["empty"])
    for key, path in zip(["first", "second", "third"], songs, strict=True):
        alone = classifier.predict_song(path)
        assert found[key].genre == alone.genre
        assert found[key].shares == alone.shares
        assert found[key].posteriors == pytest.approx(alone.posteriors, abs=1e-5)
        assert found[key].duration == alone.duration
        assert [clip[:3] for clip in found[key].clips] == [c[:3] for c in alone.clips]


def write_bad(path, kind):
    """Writes, or leaves out, a file that cannot be used."""
    samples = np.zeros(16000)
    if kind == "NaN":
        samples[8000] = np.nan
    if kind in ("NaN", "corrupt"):
        soundfile.write(path, samples, 16000, subtype="DOUBLE")
    if kind == "corrupt":
        path.write_bytes(b"RIFF" + bytes(20) + path.read_bytes()[24:])
    elif kind == "no samples":
        soundfile.write(path, samples[:0], 16000)
    elif kind == "no bytes":
        path.touch()
    elif kind == "text":
        path.write_text("This is no audio. " * 100)
    elif kind == "folder":
        path.mkdir()
    elif kind == "m4a":
        path.write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom" + bytes(1000))


@pytest.mark.parametrize("method", ["classify_file", "predict_song"])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("missing", "no such file"),
        ("folder", "found a folder"),
        ("no bytes", "is empty"),
        ("no samples", "empty track"),
        ("NaN", "NaN or infinity at 0.500 s"),
        ("text", "not readable as audio"),
        ("corrupt", "not readable as audio"),
        ("m4a", "not readable as audio"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, classifier, kind, told, method):
    path = tmp_path / f"the song.{'m4a' if kind == 'm4a' else 'wav'}"
    write_bad(path, kind)
    for address in (path, str(path)):
        with pytest.raises(AudioFileError, match=told) as error:
            getattr(classifier, method)(address)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("kind", ["no samples", "NaN"])
def test_the_stock_class_gives_no_genre_to_what_is_no_audio(
    tmp_path, stock_classifier, kind
):
    write_bad(tmp_path / "song.wav", kind)
    with pytest.raises(AudioFileError):
        stock_classifier.classify_file(str(tmp_path / "song.wav"))


@pytest.mark.parametrize(
    ("wavs", "told"),
    [
        (torch.zeros(1, 0), "0 samples"),
        (torch.full((1, 48000), torch.nan), "NaN"),
        (torch.zeros(1, 48000, 2), r"got shape \[1, 48000, 2\]"),
    ],
)
def test_a_batch_that_is_no_audio_is_refused(classifier, stock_classifier, wavs, told):
    for each in (classifier, stock_classifier):
        with pytest.raises(AudioFileError, match=told):
            each.classify_batch(wavs)


def test_a_batch_with_an_empty_song_is_refused(classifier, stock_classifier):
    for each in (classifier, stock_classifier):
        with pytest.raises(AudioFileError, match="song 1 of the batch is empty"):
            each.classify_batch(torch.zeros(2, 48000), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(
    "name",
    [
        "nowhere",
        "results/nowhere",
        "results/run/nowhere",
        "no/such/nowhere",
        "./nowhere",
        "./run/nowhere",
        "../nowhere",
        "~/nowhere",
        "~/run/nowhere",
        "ABSOLUTE/nowhere",
        Path("run/nowhere"),
    ],
)
def test_a_mistyped_folder_is_named_and_not_looked_up(tmp_path, monkeypatch, hub, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/run/model").mkdir(parents=True)
    if str(name).startswith("ABSOLUTE"):
        name = name.replace("ABSOLUTE", str(tmp_path))
    with pytest.raises(ModelFolderError, match="nowhere: no such model folder"):
        GenreClassifier.from_hparams(name)
    assert hub.requests == []


@pytest.mark.parametrize(
    "name",
    [
        "sogn.wav",
        "music/sogn.wav",
        "music/jazz/sogn.wav",
        "./a/sogn.wav",
        "a/b/c/s.wav",
    ],
)
def test_a_mistyped_file_is_named_and_not_looked_up(
    tmp_path, monkeypatch, hub, classifier, name
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "music").mkdir()
    with pytest.raises(AudioFileError, match="no such file") as error:
        classifier.classify_file(name)
    assert Path(name).name in str(error.value)
    assert hub.requests == []


def test_a_repository_of_the_hub_is_fetched(hub, model_folder, song):
    hub.folder = model_folder
    classifier = GenreClassifier.from_hparams("user/repository", run_opts=CPU)
    assert {Path(request).name for request in hub.requests} == set(SPEECHBRAIN_FILES)
    hub.folder = song.parent
    assert classifier.classify_file("user/repository/song.wav")[3] == ["blues"]
    assert hub.requests[-1] == "user/repository/song.wav"


def test_neither_folder_nor_repository(monkeypatch):
    def not_found(**options):
        raise RepositoryNotFoundError("404 Client Error", response=response)

    response = type("Response", (), {"headers": {}, "request": None})()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", not_found)
    told = "reslts/model: no such folder here; as a repository of the Hub .*404"
    with pytest.raises(ModelFolderError, match=told):
        GenreClassifier.from_hparams("reslts/model")


@pytest.mark.parametrize("freeze_params", [True, False])
def test_no_gradients(model_folder, freeze_params):
    classifier = GenreClassifier.from_hparams(
        model_folder, run_opts=CPU, freeze_params=freeze_params
    )
    trained = {parameter.requires_grad for parameter in classifier.mods.parameters()}
    assert trained == {not freeze_params}
    assert {module.training for module in classifier.mods.modules()} == {
        not freeze_params
    }
    log_posteriors = classifier.classify_batch(torch.randn(1, 48000))[0]
    assert not log_posteriors.requires_grad


def test_bf16_is_used_and_names_the_same_genre(model_folder, classifier, song):
    reduced = GenreClassifier.from_hparams(
        model_folder, run_opts={"device": "cpu", "precision": "bf16"}
    )
    seen = []
    layer = reduced.mods.classifier.classifier.layers[0]
    layer.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    whole, reduced_song = classifier.predict_song(song), reduced.predict_song(song)
    log_posteriors, _, _, genre = reduced.classify_file(song)
    assert seen == [torch.bfloat16] * 2
    assert genre == ["blues"]
    assert log_posteriors.dtype == torch.float32
    assert reduced_song.genre == whole.genre == "blues"
    assert reduced_song.posteriors == pytest.approx(whole.posteriors, abs=0.02)


def test_options_of_the_run_reach_the_model(classifier):
    assert classifier.device == "cpu"
    assert {tensor.device.type for tensor in classifier.mods.parameters()} == {"cpu"}


@pytest.fixture(scope="module")
def other_model(genres):
    """A random model of another architecture that is sure of what it names."""
    torch.manual_seed(1)
    model = MSSincResNet(len(genres), 8, pooling="avg", hidden_size=None).eval()
    model.classifier.layers.weight.data *= 10
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def other_genres(genres):
    """Names of the genres, in the order of the other model's outputs."""
    return sorted(genres)


@pytest.fixture(scope="module")
def other_folder(other_model, other_genres, tmp_path_factory):
    """The other model's folder."""
    folder = tmp_path_factory.mktemp("fusion") / "model"
    save_model_folder(folder, other_model, other_genres)
    return folder


@pytest.fixture(scope="module")
def fused(model_folder, other_folder):
    """Both models, fused."""
    return GenreClassifier.from_hparams([model_folder, other_folder], run_opts=CPU)


@pytest.fixture
def songs(tmp_path, write_song):
    """Songs of many lengths: paths of files."""
    parts = [
        [("metal", 1.3)],
        [("jazz", 6.2), ("rock", 4.1), ("metal", 13.0)],
        [("blues", 4.0)],
    ]
    return [
        write_song(tmp_path / f"song {number}.wav", *song)
        for number, song in enumerate(parts)
    ]


def test_fused_posteriors_are_the_mean_of_the_models(
    tone_model, other_model, genres, other_genres, fused, songs
):
    for path in songs:
        tone = clip_posteriors(path, tone_model)[0]
        other = clip_posteriors(path, other_model)[0]
        assert (tone.mean(0) - other.mean(0)).abs().max() > 0.1
        other = other[:, [other_genres.index(genre) for genre in genres]]
        clips = (tone + other) / 2
        expected = dict(zip(genres, clips.mean(0).tolist(), strict=True))
        named = max(expected, key=expected.get)

        song = fused.predict_song(path)
        assert song.genre == named
        assert song.posteriors == pytest.approx(expected, abs=1e-4)
        assert song.shares == pytest.approx(song.posteriors, abs=1e-6)
        found = [clip.posterior for clip in song.clips]
        assert found == pytest.approx(clips.amax(1).tolist(), abs=1e-4)
        assert [clip.genre for clip in song.clips] == [
            genres[index] for index in clips.argmax(1)
        ]

        log_posteriors, score, index, genre = fused.classify_file(path)
        assert log_posteriors.exp()[0].tolist() == pytest.approx(
            list(expected.values()), abs=1e-4
        )
        assert score.tolist() == [log_posteriors.max().item()]
        assert index.tolist() == [genres.index(named)]
        assert genre == [named]


def test_a_file_in_blocks_is_fused_as_its_waveform_is(
    model_folder, other_folder, fused, songs
):
    sources = (model_folder, str(other_folder))
    small = GenreClassifier.from_hparams(
        sources, run_opts=CPU, overrides={"batch_size": 2}
    )
    assert small.mods.embedding_model.batch_size == 2
    for path in songs:
        expected = fused.classify_batch(fused.load_audio(path)[None])[0][0].exp()
        found = torch.tensor(list(small.predict_song(path).posteriors.values()))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_songs_in_a_batch_are_fused_as_they_are_alone(fused, songs):
    wavs = [fused.load_audio(path) for path in songs]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    wav_lens = torch.tensor([len(wav) / padded.shape[1] for wav in wavs])
    log_posteriors, _, _, named = fused.classify_batch(padded, wav_lens)
    for path, together, genre in zip(songs, log_posteriors, named, strict=True):
        alone, _, _, genre_alone = fused.classify_file(path)
        torch.testing.assert_close(together, alone[0], rtol=0, atol=1e-5)
        assert [genre] == genre_alone


@pytest.mark.parametrize("times", [1, 2])
def test_a_model_fused_with_itself_is_the_model(model_folder, songs, times):
    fused = GenreClassifier.from_hparams([model_folder] * times, run_opts=CPU)
    alone = GenreClassifier.from_hparams(
        model_folder, run_opts=CPU, overrides={"voting": "mean"}
    )
    for path in songs:
        expected, found = alone.predict_song(path), fused.predict_song(path)
        assert found.genre == expected.genre
        assert found.shares == pytest.approx(expected.shares, abs=1e-6)
        assert found.posteriors == pytest.approx(expected.posteriors, abs=1e-6)
        assert [clip[:3] for clip in found.clips] == [c[:3] for c in expected.clips]
        torch.testing.assert_close(
            fused.classify_file(path)[0], alone.classify_file(path)[0]
        )


@pytest.mark.parametrize("freeze_params", [True, False])
def test_fused_models_are_frozen_as_one_is(model_folder, other_folder, freeze_params):
    fused = GenreClassifier.from_hparams(
        [model_folder, other_folder], run_opts=CPU, freeze_params=freeze_params
    )
    parameters = list(fused.mods.parameters())
    assert len(parameters) > 120  # two ResNets of 60 and more
    assert {tensor.requires_grad for tensor in parameters} == {not freeze_params}
    assert {module.training for module in fused.mods.modules()} == {not freeze_params}
    assert {tensor.device.type for tensor in parameters} == {"cpu"}


def test_fused_models_of_reduced_precision(model_folder, other_folder, fused, song):
    reduced = GenreClassifier.from_hparams(
        [model_folder, other_folder],
        run_opts={"device": "cpu", "precision": "bf16"},
    )
    seen = []
    layer = reduced.mods.classifier.classifier.classifiers[1].layers
    layer.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    found, expected = reduced.predict_song(song), fused.predict_song(song)
    assert seen == [torch.bfloat16]
    assert found.posteriors == pytest.approx(expected.posteriors, abs=0.05)


def test_models_that_cannot_be_fused(tmp_path, model_folder, hub):
    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    hyperparams = (other / "hyperparams.yaml").read_text()
    (other / "hyperparams.yaml").write_text(
        hyperparams.replace("hop_samples: 8000", "hop_samples: 4000")
    )
    differ = (
        f"{other}: cannot be fused with {model_folder}: models must agree in "
        "hop_samples; found 4000 here and 8000 there"
    )
    for sources, told in [
        ([model_folder, other], differ),
        ([], "expected one model folder or more; got []"),
        ([model_folder, "./results/nowhere"], "results/nowhere: no such model folder"),
        ([model_folder, [model_folder]], "cannot be loaded"),
    ]:
        with pytest.raises(ModelFolderError) as error:
            GenreClassifier.from_hparams(sources, run_opts=CPU)
        assert told in str(error.value)
    assert hub.requests == []


def test_repositories_that_are_fused_do_not_mix_in_savedir(
    tmp_path, model_folder, other_folder, song, monkeypatch
):
    folders = {"user/first": model_folder, "user/second": other_folder}
    monkeypatch.setattr(
        huggingface_hub,
        "hf_hub_download",
        lambda repo_id, filename, **options: str(folders[repo_id] / filename),
    )
    expected = GenreClassifier.from_hparams([*folders.values()], run_opts=CPU)
    for savedir in (tmp_path / "savedir", None):
        fused = GenreClassifier.from_hparams([*folders], savedir=savedir, run_opts=CPU)
        assert fused.predict_song(song) == expected.predict_song(song)
