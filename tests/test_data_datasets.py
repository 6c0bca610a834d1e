import pickle

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from ms_sincresnet.data.clips import PassSampler
from ms_sincresnet.data.dataset import genre_datasets
from ms_sincresnet.errors import HparamError, UserError


@pytest.fixture
def folders(tmp_path):
    """Manifests and cache of three tracks; sample t of track n is (t + 100 n) / 2¹⁵."""
    manifests, cache = tmp_path / "manifests", tmp_path / "cache"
    manifests.mkdir()
    cache.mkdir()
    rows = []
    for n, genre in enumerate(["rock", "jazz", "rock"]):
        samples = (np.arange(1600) + 100 * n).astype(np.int16)
        soundfile.write(cache / f"{n}.wav", samples, 16000)
        rows.append(f"track{n},0.1,$data_root/{n}.wav,{genre}\n")
    for part in ("train", "valid", "test"):
        (manifests / f"{part}.csv").write_text(
            "ID,duration,wav,genre\n" + "".join(rows)
        )
    return manifests, cache


def test_songs_are_whole_and_genres_alphabetical(folders):
    datasets, encoder = genre_datasets(*folders, n_genres=2, clip_samples=160, seed=0)
    item = datasets["test"][1]
    assert item["id"] == "track1"
    assert item["genre_encoded"].tolist() == [0], "jazz before rock"
    expected = torch.arange(100, 1700) / 2**15
    torch.testing.assert_close(item["song"], expected)
    assert encoder.decode_torch(torch.tensor([0, 1])) == ["jazz", "rock"]


def test_an_epoch_has_the_same_clips_in_any_number_of_workers(folders):
    datasets, _ = genre_datasets(*folders, n_genres=2, clip_samples=160, seed=0)
    drawn = []
    for num_workers in (0, 2):
        sampler = PassSampler(n_tracks=3, n_passes=4, seed=0)
        sampler.set_epoch(2)
        loader = DataLoader(
            datasets["train"], batch_size=None, sampler=sampler, num_workers=num_workers
        )
        drawn.append([(item["id"], item["clip"][0].item()) for item in loader])
    assert drawn[0] == drawn[1]
    assert len({start for _, start in drawn[0]}) > 6, "clips start at random"


def test_memory_and_disk_give_the_same_items(folders):
    disk, memory = (
        genre_datasets(*folders, n_genres=2, clip_samples=160, seed=5, cache=cache)[0]
        for cache in ("disk", "memory")
    )
    for index in range(20):
        item, same = disk["train"][index], memory["train"][index]
        assert torch.equal(item["clip"], same["clip"])
        assert item["id"] == same["id"]
        assert item["genre_encoded"] == same["genre_encoded"]
    assert torch.equal(disk["valid"][0]["song"], memory["valid"][0]["song"])


def test_memory_is_read_before_there_are_workers(folders):
    datasets, _ = genre_datasets(
        *folders, n_genres=2, clip_samples=160, seed=0, cache="memory"
    )
    for path in folders[1].iterdir():
        path.unlink()
    loader = DataLoader(datasets["train"], batch_size=None, num_workers=2)
    assert [item["id"] for item in loader] == ["track0", "track1", "track2"]


@pytest.mark.parametrize("cache", ["disk", "memory"])
def test_data_sets_go_to_workers_that_are_not_forked(folders, cache):
    datasets, _ = genre_datasets(
        *folders, n_genres=2, clip_samples=160, seed=0, cache=cache
    )
    for part, key in [("train", "clip"), ("valid", "song"), ("test", "song")]:
        item, copied = datasets[part][1], pickle.loads(pickle.dumps(datasets[part]))[1]
        assert torch.equal(item[key], copied[key])
        assert item["genre_encoded"] == copied["genre_encoded"]


def test_an_unknown_cache_is_refused(folders):
    with pytest.raises(HparamError, match="cache must be .*disk, memory; got 'ram'"):
        genre_datasets(*folders, n_genres=2, clip_samples=160, seed=0, cache="ram")


def test_wrong_number_of_genres_says_what_to_give(folders):
    with pytest.raises(HparamError, match="n_genres is 10.*--n_genres=2"):
        genre_datasets(*folders, n_genres=10, clip_samples=160, seed=0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "No such file"),
        ("", "expected tracks with a duration, a path"),
        ("ID,duration,wav\na,1,a.wav\n", "not readable as a manifest"),
        ("duration,wav,genre\n1,a.wav,jazz\n", "CSV has to have an 'ID' field"),
        ("ID,duration,wav,genre\na,1,a.wav\n", "not readable as a manifest"),
        ("ID,duration,wav,genre\na,one,a.wav,jazz\n", "convert string to float: 'one'"),
        ("ID,duration,wav,genre\na,nan,a.wav,jazz\n", "expected tracks with a dur"),
        ("ID,duration,wav,genre\na,-1,a.wav,jazz\n", "expected tracks with a dur"),
        ("ID,duration,wav,genre\na,1,,jazz\n", "expected tracks with a dur"),
    ],
)
def test_a_manifest_that_is_damaged_is_named(folders, text, told):
    path = folders[0] / "train.csv"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=told) as error:
        genre_datasets(*folders, n_genres=2, clip_samples=160, seed=0)
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).endswith("Run the preparation again.")
