"""The modules that SpeechBrain's ``EncoderClassifier`` calls, for whole songs.

``EncoderClassifier`` passes a song's waveform through ``compute_features``,
``mean_var_norm``, ``embedding_model`` and ``classifier``. Cutting, batching and voting
live in these modules, so the stock class names the voted genre of a whole song.
"""

import torch
from speechbrain.utils.checkpoints import mark_as_transfer, register_checkpoint_hooks
from torch import nn

from ms_sincresnet.data.clips import repeat_to_length, silent, split_clips
from ms_sincresnet.errors import AudioFileError, WeightsError
from ms_sincresnet.nnet.voting import song_log_posteriors


@register_checkpoint_hooks
class StrictlyLoaded(nn.Module):
    """A module that refuses weights with missing or unexpected names.

    SpeechBrain's pretrainer logs a warning for these and leaves the parameters random.

    Example
    -------
    >>> class Layer(StrictlyLoaded):
    ...     pass
    >>> Layer().load("nowhere.ckpt")
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.WeightsError: nowhere.ckpt: no such file of weights
    """

    @mark_as_transfer
    def load(self, path):
        """Loads a state dict that torch.save wrote.

        Arguments
        ---------
        path : str or pathlib.Path
            The file.

        Raises
        ------
        WeightsError
            If it is missing, cannot be read, or does not fit the module.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise WeightsError(f"{path}: no such file of weights") from None
        except Exception as error:  # torch.load raises whatever the bytes provoke
            # Its text is not quoted: it advises to run whatever the file holds.
            raise WeightsError(
                f"{path}: not a file of weights; nothing in it was run"
            ) from error
        try:
            self.load_state_dict(state)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None
        except (RuntimeError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"{path}: these weights do not fit the model of hyperparams.yaml: "
                f"{error}"
            ) from error


class InputCheck(nn.Module):
    """``compute_features``: refuses what is no audio, and passes the rest.

    Example
    -------
    >>> InputCheck()(torch.zeros(1, 0))
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.AudioFileError: the audio is empty: 0 samples
    """

    def forward(self, wavs):
        """Checks waveforms.

        Arguments
        ---------
        wavs : torch.Tensor [batch, time]
            Whole songs.

        Returns
        -------
        torch.Tensor [batch, time]
            The same.

        Raises
        ------
        AudioFileError
            If there are no samples, or samples that are no numbers.
        """
        if wavs.ndim != 2:
            raise AudioFileError(
                f"waveforms must be mono, [batch, time]; got shape {list(wavs.shape)}"
            )
        if wavs.shape[1] == 0:
            raise AudioFileError("the audio is empty: 0 samples")
        if not wavs.isfinite().all():
            raise AudioFileError("the audio holds samples that are NaN or infinite")
        return wavs


class Identity(nn.Module):
    """``mean_var_norm``: nothing, since each clip is normalised by the front-end.

    Example
    -------
    >>> Identity()(torch.ones(1, 2), torch.ones(1))
    tensor([[1., 1.]])
    """

    def forward(self, feats, lengths=None):
        """Passes features.

        Arguments
        ---------
        feats : torch.Tensor
            Features of any shape.
        lengths : torch.Tensor [batch], optional
            Not used.

        Returns
        -------
        torch.Tensor
            The same.
        """
        return feats


class SongEmbedding(StrictlyLoaded):
    """``embedding_model``: songs to one embedding a clip.

    Songs are cut into clips, which pass front-end and trunk in batches of fixed size,
    so that the memory needed does not grow with the song. Several songs share a batch.

    Arguments
    ---------
    model : torch.nn.Module
        A system with ``frontend`` and ``embedding``, such as ``MSSincResNet``.
    clip_samples : int
        Samples of a clip.
    hop_samples : int
        Samples from the start of one clip to the next.
    batch_size : int
        Clips a batch.
    full_scale : float
        What a full-scale sample, 1 in the waveform, is to the model: 32768 if it was
        trained on 16-bit integers.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> embed = SongEmbedding(MSSincResNet(n_filters=8)).eval()
    >>> embed(torch.randn(1, 64000)).shape  # 4 s: clips at 0, 0.5 and 1 s
    torch.Size([1, 3, 2560])
    """

    def __init__(
        self,
        model,
        clip_samples=48000,
        hop_samples=8000,
        batch_size=32,
        full_scale=1.0,
    ):
        super().__init__()
        self.frontend = model.frontend
        self.embedding = model.embedding
        self.clip_samples = clip_samples
        self.hop_samples = hop_samples
        self.batch_size = batch_size
        self.full_scale = full_scale

    def forward(self, wavs, wav_lens=None):
        """Embeds songs.

        Arguments
        ---------
        wavs : torch.Tensor [batch, time]
            Whole songs, padded to the longest.
        wav_lens : torch.Tensor [batch], optional
            Lengths relative to the longest.

        Returns
        -------
        torch.Tensor [batch, clips, embedding_size]
            Embeddings of the clips; NaN for silent clips, and where a song has fewer
            clips than the longest.

        Raises
        ------
        AudioFileError
            If a song has no samples.
        """
        if wav_lens is None:
            wav_lens = wavs.new_ones(len(wavs))
        n_samples = (wav_lens * wavs.shape[1]).round().int().tolist()
        if min(n_samples) < 1:
            raise AudioFileError(
                f"song {n_samples.index(min(n_samples))} of the batch is empty: its "
                f"length in wav_lens is {wav_lens.min().item():g}"
            )
        songs = [[] for _ in n_samples]
        blocks = ([wav[:n]] for wav, n in zip(wavs, n_samples, strict=True))
        for song, embeddings in self.embed_songs(zip(songs, blocks, strict=True)):
            song.append(embeddings)
        songs = [torch.cat(song) for song in songs]
        return nn.utils.rnn.pad_sequence(songs, True, float("nan"))

    def embed_songs(self, songs):
        """Embeds songs that come in blocks, of which no more are held than needed.

        Arguments
        ---------
        songs : iterable of (object, iterable of torch.Tensor [time])
            A key and the blocks of each song. Each is read when its turn comes.

        Yields
        ------
        key : object
            That of a song. A song without samples is passed over.
        embeddings : torch.Tensor [clips, embedding_size]
            Embeddings of its next clips, at most ``batch_size``; NaN for silent clips.

        Raises
        ------
        WeightsError
            If the model makes NaN of clips, so that they would pass for silent ones.

        Example
        -------
        >>> from ms_sincresnet import MSSincResNet
        >>> embed = SongEmbedding(MSSincResNet(n_filters=8)).eval()
        >>> songs = {"a": [torch.randn(30000), torch.randn(34000)]}
        >>> songs["b"] = [torch.randn(9)]
        >>> [(key, len(clips)) for key, clips in embed.embed_songs(songs.items())]
        [('a', 3), ('b', 1)]
        """
        batch, free = [], self.batch_size
        for key, blocks in songs:
            rest, n_cut = None, 0
            for block in blocks:
                rest = block if rest is None else torch.cat([rest, block])
                while self._clips_of(rest) >= free:
                    end = (free - 1) * self.hop_samples + self.clip_samples
                    yield from self._embed_batch([*batch, (key, rest[:end])])
                    rest, n_cut = rest[free * self.hop_samples :], n_cut + free
                    batch, free = [], self.batch_size
            if rest is None:
                continue
            if n_cut == 0:
                rest = repeat_to_length(rest, self.clip_samples)
            if self._clips_of(rest):
                batch.append((key, rest))
                free -= self._clips_of(rest)
            if free == 0:  # as a song was repeated
                yield from self._embed_batch(batch)
                batch, free = [], self.batch_size
        yield from self._embed_batch(batch)

    def _clips_of(self, stretch):
        """How many whole clips a stretch of a song has."""
        return max(0, (len(stretch) - self.clip_samples) // self.hop_samples + 1)

    def _embed_batch(self, batch):
        """Yields the embeddings of the clips of each stretch of a batch."""
        if not batch:
            return
        keys, stretches = zip(*batch, strict=True)
        quiet = [silent(self._cut(stretch)) for stretch in stretches]
        embeddings = self._embed_stretches(stretches)
        if embeddings.isnan().any():
            raise WeightsError(
                "the model makes NaN of audio: its weights hold NaN, or the precision "
                "is too low for it; run it in fp32"
            )
        embeddings = embeddings.masked_fill(torch.cat(quiet)[:, None], float("nan"))
        yield from zip(keys, embeddings.split([*map(len, quiet)]), strict=True)

    def _embed_stretches(self, stretches):
        """Embeddings of the clips of some stretches of songs, as one batch."""
        maps = torch.cat([self._maps(self.full_scale * each) for each in stretches])
        return self.embedding(maps)[:, 0]

    def _maps(self, stretch):
        """What the front-end makes of the clips of a stretch of a song."""
        if hasattr(self.frontend, "clip_maps"):  # which does for all what it can
            return self.frontend.clip_maps(stretch, self.clip_samples, self.hop_samples)
        return self.frontend(self._cut(stretch))

    def _cut(self, stretch):
        """The clips of a stretch of a song."""
        return split_clips(stretch, self.clip_samples, self.hop_samples)


class VotingClassifier(StrictlyLoaded):
    """``classifier``: a song's embeddings to its log-posteriors, by voting.

    Arguments
    ---------
    model : torch.nn.Module
        A system with ``classifier``, such as ``MSSincResNet``.
    voting : str
        "majority" or "mean", as in ``vote``.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> classify = VotingClassifier(MSSincResNet(n_filters=8))
    >>> classify(torch.randn(2, 55, 2560)).shape
    torch.Size([2, 1, 10])
    """

    def __init__(self, model, voting="majority"):
        super().__init__()
        self.classifier = model.classifier
        self.voting = voting

    def forward(self, embeddings):
        """Votes.

        Arguments
        ---------
        embeddings : torch.Tensor [batch, clips, embedding_size]
            What ``SongEmbedding`` returns.

        Returns
        -------
        torch.Tensor [batch, 1, n_genres]
            Log-posteriors of the songs; for a silent one, all genres are as likely.
        """
        clips = self.clip_log_posteriors(embeddings)
        songs = [song_log_posteriors(song, self.voting) for song in clips]
        return torch.stack(songs)[:, None]

    def clip_log_posteriors(self, embeddings):
        """Log-posteriors of the clips that each song has and that are not silent.

        Arguments
        ---------
        embeddings : torch.Tensor [batch, clips, embedding_size]
            What ``SongEmbedding`` returns.

        Returns
        -------
        list of torch.Tensor [clips of the song, n_genres]
            One tensor a song.

        Example
        -------
        >>> from ms_sincresnet import MSSincResNet
        >>> classify = VotingClassifier(MSSincResNet(n_filters=8))
        >>> classify.clip_log_posteriors(torch.randn(1, 55, 2560))[0].shape
        torch.Size([55, 10])
        """
        return [
            self.classifier(song[~song[:, 0].isnan()][None])[0] for song in embeddings
        ]
