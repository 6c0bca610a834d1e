"""Tracks to clips: all of them in a row for a decision, random ones for training.

Training is random, yet the same however often it is interrupted. All that decides what
a step sees is one integer, drawn by the sampler and read by the data set::

    index = (epoch * n_passes + nth_pass) * n_tracks + track

``PassSampler`` yields such indices, in an order that is a function of (seed, epoch,
pass); ``RandomClipDataset`` takes from the index which track it is and, as a function
of (seed, index), where the clip starts. Neither keeps any state, so clips are the same
after a resume in the middle of an epoch, in any number of worker processes, fresh or
persistent. Under ``torchrun`` each training process takes every other index, every
third and so on: with ``batch_size`` clips each, a step of theirs has the clips of a
step of one process with ``batch_size`` times as many.

The sampler must be told the epoch. SpeechBrain's ``Brain`` calls ``set_epoch`` on
``brain.train_sampler`` before each epoch, but sets that attribute itself only for its
own shuffling. So give the sampler twice, before ``fit``::

    brain.train_sampler = sampler
    options = clip_loader_options(dataset, sampler, batch_size=32, num_workers=2)
    brain.fit(..., train_loader_kwargs=options)
"""

from itertools import islice

import numpy as np
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataio import load_data_csv
from speechbrain.dataio.dataset import DynamicItemDataset
from torch.utils.data import Sampler

from ms_sincresnet.data.audio import SAMPLE_RATE, repeat_to_length
from ms_sincresnet.data.cache import TracksInMemory, read_clip
from ms_sincresnet.errors import HparamError

CACHES = ("disk", "memory")


def split_clips(wav, clip_samples=48000, hop_samples=8000):
    """Cuts tracks into overlapping clips.

    Clips start every ``hop_samples``. What is left after the last whole clip, always
    less than a hop, is left out. A track shorter than a clip is repeated up to one.

    P.-C. Chang et al., "MS-SincResNet", ICMR 2021, section 2.2.1.

    Arguments
    ---------
    wav : torch.Tensor [time] or [batch, time]
        InputCheck; at least one sample.
    clip_samples : int
        Length of a clip, in samples. 48000 are 3 s at 16 kHz.
    hop_samples : int
        Distance between starts of neighbouring clips, in samples.

    Returns
    -------
    clips : torch.Tensor [clips, clip_samples] or [batch, clips, clip_samples]
        A view of ``wav``, unless that had to be repeated.

    Raises
    ------
    ValueError
        If there are no samples.

    Example
    -------
    >>> split_clips(torch.zeros(30 * 16000)).shape
    torch.Size([55, 48000])
    """
    if wav.shape[-1] == 0:
        raise ValueError(
            f"expected at least one sample to cut clips from, got {list(wav.shape)}"
        )
    return repeat_to_length(wav, clip_samples).unfold(-1, clip_samples, hop_samples)


def silent(clips):
    """Tells which clips are silent: they say nothing of a song's genre.

    Arguments
    ---------
    clips : torch.Tensor [..., time]
        Clips in [-1, 1].

    Returns
    -------
    torch.Tensor [...]
        Whether the standard deviation is below one step of 16-bit samples, as it is of
        digital silence, of dither and of a constant.

    Example
    -------
    >>> silent(torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.4999, 0.5001]]))
    tensor([ True, False])
    """
    return clips.std(-1, correction=0) < 2**-15


def random_clip_start(n_samples, clip_samples, generator):
    """Where a random clip starts, each place of a track being as likely.

    Arguments
    ---------
    n_samples : int
        Length of the track, in samples.
    clip_samples : int
        Length of the clip, in samples.
    generator : numpy.random.Generator
        Where the randomness comes from.

    Returns
    -------
    start : int
        From 0 to ``n_samples - clip_samples``; 0 for a track no longer than a clip.

    Example
    -------
    >>> random_clip_start(48000, 48000, np.random.default_rng(0))
    0
    """
    return int(generator.integers(max(0, n_samples - clip_samples) + 1))


class RandomClipDataset(DynamicItemDataset):
    """A track's data with one random clip of it, "clip", a float32 [clip_samples].

    Any index not below zero is valid: ``dataset[i]`` is track ``i % n_tracks``, with
    the clip that belongs to ``i`` alone. ``PassSampler`` yields indices beyond
    ``len(dataset)``, which is the number of tracks, for fresh clips. Iterating the data
    set itself gives each track once.

    The rest is SpeechBrain's ``DynamicItemDataset``: build it with ``from_csv``, add
    dynamic items, set output keys. Subsets made by its ``filtered_sorted`` cannot give
    "clip", as they do not know an item's index.

    Arguments
    ---------
    data : dict
        ID to a dict with "wav", path of a cached track, and "duration", in s.
    dynamic_items : list, optional
        More dynamic items.
    output_keys : list or dict, optional
        Keys to give out; "id" and "clip" unless told otherwise.
    clip_samples : int
        Length of a clip, in samples.
    seed : int
        Where clips start is a function of this and the index.
    cache : str
        "disk", or "memory": all tracks are read here and now, see ``TracksInMemory``.
        Clips are the same.

    Raises
    ------
    HparamError
        If ``cache`` is unknown.

    Example
    -------
    >>> import soundfile
    >>> path = str(getfixture("tmp_path") / "blues.00000.wav")
    >>> soundfile.write(path, np.arange(100) / 100, SAMPLE_RATE)
    >>> data = {"blues.00000": {"wav": path, "duration": 100 / SAMPLE_RATE}}
    >>> dataset = RandomClipDataset(data, clip_samples=50, seed=1)
    >>> dataset[0]["clip"].shape
    torch.Size([50])
    >>> [float(dataset[index]["clip"][0]) == 0.5 for index in range(3)]
    [False, False, False]
    """

    def __init__(
        self,
        data,
        dynamic_items=None,
        output_keys=None,
        *,
        clip_samples=48000,
        seed=0,
        cache="disk",
    ):
        if cache not in CACHES:
            raise HparamError(
                f"cache must be one of {', '.join(CACHES)}; got {cache!r}"
            )
        super().__init__(data)
        self.clip_samples = clip_samples
        self.seed = seed
        self.cache = cache
        self._read_clip = read_clip
        if cache == "memory":
            paths = [track["wav"] for track in data.values()]
            self._read_clip = TracksInMemory(paths).read_clip
        self.pipeline.add_static_keys(["clip_index"])
        self.add_dynamic_item(
            self._read_random_clip,
            takes=["wav", "duration", "clip_index"],
            provides="clip",
        )
        self.pipeline.add_dynamic_items(dynamic_items or [])
        self.set_output_keys(output_keys or ["id", "clip"])

    @classmethod
    def from_csv(cls, csv_path, replacements=None, **options):
        """Reads a manifest.

        Arguments
        ---------
        csv_path : str or pathlib.Path
            The manifest, with the columns ID, wav and duration at least.
        replacements : dict, optional
            What stands for ``$data_root`` in it: ``{"data_root": cache_folder}``.
        **options : dict
            As for the constructor.

        Returns
        -------
        dataset : RandomClipDataset
            A track a row.

        Example
        -------
        >>> path = getfixture("tmp_path") / "train.csv"
        >>> columns, row = "ID,duration,wav,genre", "a,30.0,$data_root/a.wav,blues"
        >>> _ = path.write_text(f"{columns}\\n{row}\\n")
        >>> dataset = RandomClipDataset.from_csv(
        ...     path, {"data_root": "cache"}, output_keys=["id", "wav", "genre"]
        ... )
        >>> dataset[0]
        {'id': 'a', 'wav': 'cache/a.wav', 'genre': 'blues'}
        """
        return cls(load_data_csv(csv_path, replacements), **options)

    def __getitem__(self, index):
        data_id = self.data_ids[index % len(self)]
        return self.pipeline.compute_outputs(
            {"id": data_id, "clip_index": index, **self.data[data_id]}
        )

    def __iter__(self):
        # Without this, Python would ask for indices until there are no more.
        return (self[index] for index in range(len(self)))

    def _read_random_clip(self, wav, duration, clip_index):
        """Reads the clip that belongs to an index."""
        n_samples = round(duration * SAMPLE_RATE)
        generator = np.random.default_rng([self.seed, clip_index])
        start = random_clip_start(n_samples, self.clip_samples, generator)
        return self._read_clip(wav, start, self.clip_samples)


class PassSampler(Sampler):
    """Indices of an epoch: some passes over the tracks, each in a fresh random order.

    One clip of every track, then another of every track, and so on: so the clips of
    a batch come from as many tracks as possible. Eight clips of two tracks a step
    teach the network nothing where eight clips of eight tracks do.

    The order is a function of (seed, epoch, pass). See the module's text on how
    SpeechBrain's ``Brain`` tells the epoch.

    Of several training processes each takes its share. They all must take part in
    every step, so a last step of fewer clips than processes is left out.

    Arguments
    ---------
    n_tracks : int
        Tracks in the data set.
    n_passes : int
        Clips of each track an epoch.
    seed : int
        Seed of the orders.
    batch_size : int
        Clips that a process takes a step; matters with several processes alone.
    rank : int
        Which of the processes this is, from 0.
    n_processes : int
        Processes that share the epoch.

    Example
    -------
    >>> sampler = PassSampler(n_tracks=3, n_passes=2, seed=0)
    >>> len(sampler)
    6
    >>> sampler.set_epoch(1)
    >>> [index % 3 for index in sampler]
    [2, 0, 1, 0, 1, 2]
    >>> sorted(sampler)  # those of epoch 1; epoch 0 has 0 to 5
    [6, 7, 8, 9, 10, 11]
    """

    def __init__(
        self, n_tracks, n_passes, seed, *, batch_size=1, rank=0, n_processes=1
    ):
        self.n_tracks = n_tracks
        self.n_passes = n_passes
        self.seed = seed
        self.epoch = 0
        n_clips = n_tracks * n_passes
        in_last_step = n_clips % (batch_size * n_processes)
        if in_last_step < n_processes:
            n_clips -= in_last_step
        self.share = range(rank, n_clips, n_processes)

    def __len__(self):
        return len(self.share)

    def __iter__(self):
        share = self.share
        return islice(self._epoch(), share.start, share.stop, share.step)

    def _epoch(self):
        """The indices of all processes."""
        for nth_pass in range(self.n_passes):
            generator = np.random.default_rng([self.seed, self.epoch, nth_pass])
            first_index = (self.epoch * self.n_passes + nth_pass) * self.n_tracks
            for track in generator.permutation(self.n_tracks).tolist():
                yield first_index + track

    def set_epoch(self, epoch):
        """Says which epoch the next iteration is.

        Arguments
        ---------
        epoch : int
            Not below zero. SpeechBrain counts from 1.
        """
        self.epoch = epoch


def clip_loader_options(dataset, sampler, **options):
    """Options of a fast loader of random clips, for ``Brain.fit``.

    Batches are SpeechBrain's, put together by ``clip_batch``.

    Arguments
    ---------
    dataset : RandomClipDataset
        The data set.
    sampler : PassSampler
        The sampler.
    **options : dict
        More options of the loader. Of tracks in memory, ``num_workers`` is set to 0: to
        hand a batch to another process takes longer than to make it.

    Returns
    -------
    options : dict
        All options.

    Example
    -------
    >>> data = {"blues.00000": {"wav": "00000.wav", "duration": 30.0}}
    >>> options = clip_loader_options(
    ...     RandomClipDataset(data), PassSampler(1, 4, seed=0), num_workers=2
    ... )
    >>> sorted(options), options["num_workers"]
    (['collate_fn', 'num_workers', 'sampler'], 2)
    """
    options = {**options, "sampler": sampler, "collate_fn": clip_batch}
    if dataset.cache == "memory":
        options["num_workers"] = 0
    return options


def clip_batch(examples):
    """As SpeechBrain's ``PaddedBatch``, for items that are equally long.

    Stacks and pads nothing, which nearly halves the time of a clip from memory.

    Arguments
    ---------
    examples : list of dict
        Items of a ``RandomClipDataset``.

    Returns
    -------
    batch : speechbrain.dataio.batch.PaddedBatch
        Of tensors, ``data`` [batch, ...] and ``lengths`` [batch], which are all 1.

    Example
    -------
    >>> clip_batch([{"clip": torch.zeros(4)}, {"clip": torch.ones(4)}]).clip
    PaddedData(data=tensor([[0., 0., 0., 0.],
            [1., 1., 1., 1.]]), lengths=tensor([1., 1.]))
    """
    return PaddedBatch(examples, padding_func=_stack)


def _stack(tensors):
    """Equally long tensors to one, and their relative lengths."""
    return torch.stack(tensors), torch.ones(len(tensors))
