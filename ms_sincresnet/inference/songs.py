"""The modules that SpeechBrain's ``EncoderClassifier`` calls, for whole songs.

``EncoderClassifier`` passes a song's waveform through ``compute_features``,
``mean_var_norm``, ``embedding_model`` and ``classifier``. Cutting, batching and voting
live in these modules, so the stock class names the voted genre of a whole song.
"""

import torch
from speechbrain.utils.checkpoints import mark_as_transfer, register_checkpoint_hooks
from torch import nn

from ms_sincresnet.data.audio import repeat_to_length
from ms_sincresnet.data.clips import split_clips
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
            raise WeightsError(f"{path}: not a file of weights ({error})") from error
        try:
            self.load_state_dict(state)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None
        except (RuntimeError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"{path}: these weights do not fit the model of hyperparams.yaml: "
                f"{error}"
            ) from error


class Waveforms(nn.Module):
    """``compute_features``: refuses what is no audio, and passes the rest.

    Example
    -------
    >>> Waveforms()(torch.zeros(1, 0))
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


class Unchanged(nn.Module):
    """``mean_var_norm``: nothing, since each clip is normalised by the front-end.

    Example
    -------
    >>> Unchanged()(torch.ones(1, 2), torch.ones(1))
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
    so that the memory needed does not grow with the song.

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

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> embed = SongEmbedding(MSSincResNet(n_filters=8)).eval()
    >>> embed(torch.randn(1, 64000)).shape  # 4 s: clips at 0, 0.5 and 1 s
    torch.Size([1, 3, 2560])
    """

    def __init__(self, model, clip_samples=48000, hop_samples=8000, batch_size=32):
        super().__init__()
        self.frontend = model.frontend
        self.embedding = model.embedding
        self.clip_samples = clip_samples
        self.hop_samples = hop_samples
        self.batch_size = batch_size

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
            Embeddings of the clips; NaN where a song has fewer clips than the longest.

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
        songs = [
            torch.cat(list(self.embed_blocks([wav[:n]])))
            for wav, n in zip(wavs, n_samples, strict=True)
        ]
        return nn.utils.rnn.pad_sequence(songs, True, float("nan"))

    def embed_blocks(self, blocks):
        """Embeds a song that comes in blocks, of which no more are held than needed.

        Arguments
        ---------
        blocks : iterable of torch.Tensor [time]
            The song, block by block; a sample at least.

        Yields
        ------
        torch.Tensor [clips, embedding_size]
            Embeddings of the next clips, at most ``batch_size``.

        Example
        -------
        >>> from ms_sincresnet import MSSincResNet
        >>> embed = SongEmbedding(MSSincResNet(n_filters=8)).eval()
        >>> blocks = [torch.randn(30000), torch.randn(34000)]
        >>> [embeddings.shape for embeddings in embed.embed_blocks(blocks)]
        [torch.Size([3, 2560])]
        """
        stretch, done = None, False
        hops = self.batch_size * self.hop_samples
        full = hops - self.hop_samples + self.clip_samples
        for block in blocks:
            stretch = block if stretch is None else torch.cat([stretch, block])
            while len(stretch) >= full:
                yield self._embed_stretch(stretch[:full])
                stretch, done = stretch[hops:], True
        if not done:
            stretch = repeat_to_length(stretch, self.clip_samples)
        if len(stretch) >= self.clip_samples:
            yield self._embed_stretch(stretch)

    def _embed_stretch(self, stretch):
        """Embeddings of the clips of a stretch of a song."""
        return self.embedding(self._maps(stretch))[:, 0]

    def _maps(self, stretch):
        """What the front-end makes of the clips of a stretch of a song."""
        if hasattr(self.frontend, "clip_maps"):  # which does for all what it can
            return self.frontend.clip_maps(stretch, self.clip_samples, self.hop_samples)
        return self.frontend(split_clips(stretch, self.clip_samples, self.hop_samples))


class SongVote(StrictlyLoaded):
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
    >>> classify = SongVote(MSSincResNet(n_filters=8))
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
            Log-posteriors of the songs.
        """
        clips = self.clip_log_posteriors(embeddings)
        songs = [song_log_posteriors(song, self.voting) for song in clips]
        return torch.stack(songs)[:, None]

    def clip_log_posteriors(self, embeddings):
        """Log-posteriors of the clips that each song has.

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
        >>> classify = SongVote(MSSincResNet(n_filters=8))
        >>> classify.clip_log_posteriors(torch.randn(1, 55, 2560))[0].shape
        torch.Size([55, 10])
        """
        return [
            self.classifier(song[~song[:, 0].isnan()][None])[0] for song in embeddings
        ]
