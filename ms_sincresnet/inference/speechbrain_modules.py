"""The modules by which SpeechBrain's ``EncoderClassifier`` classifies whole songs."""

from typing import Any

import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from torch import Tensor, nn

from ms_sincresnet.data.audio import AudioNormalizer
from ms_sincresnet.errors import AudioFileError, WeightsError
from ms_sincresnet.models import GenreModel
from ms_sincresnet.models.songs import Scored, Songs, embed_songs, failed, score_clips
from ms_sincresnet.nnet.voting import song_log_posteriors

BATCH_SIZE = 32
FAILED = "the model's output is not finite: weights are damaged, or it needs fp32"


class InputCheck(nn.Module):
    """``compute_features``: rejects waveforms that are empty, not mono or not finite.

    Example
    -------
    >>> InputCheck()(torch.zeros(1, 0))
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.AudioFileError: the audio is empty: 0 samples
    """

    def forward(self, wavs: Tensor) -> Tensor:
        """The waveforms [batch, time], unchanged."""
        if wavs.ndim != 2:
            raise AudioFileError(f"expected [batch, time], got shape {[*wavs.shape]}")
        if wavs.shape[1] == 0:
            raise AudioFileError("the audio is empty: 0 samples")
        if not wavs.isfinite().all():
            raise AudioFileError("the audio contains samples that are NaN or infinite")
        return wavs


class Identity(nn.Module):
    """``mean_var_norm``: no operation, since the front-end normalises each clip.

    Example
    -------
    >>> Identity()(torch.zeros(1, 2))
    tensor([[0., 0.]])
    """

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The features, unchanged."""
        return feats


class SongEmbedding(nn.Module):
    """``embedding_model``: embeds the clips of whole songs.

    Arguments
    ---------
    model
        A model such as ``MSSincResNet``; its front-end and trunk are used.
    clip_samples, hop_samples
        Clip length, and samples between the starts of neighbouring clips.
    batch_size
        Clips that pass through the model at once.
    full_scale
        Amplitude of a sample of 1 at the model's input.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> embed = SongEmbedding(MSSincResNet(n_filters=8)).eval()
    >>> embed(torch.randn(1, 64000)).shape  # 4 s: clips at 0, 0.5 and 1 s
    torch.Size([1, 3, 2560])
    """

    def __init__(
        self,
        model: Any,
        clip_samples: int = 48000,
        hop_samples: int = 8000,
        batch_size: int = BATCH_SIZE,
        full_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.frontend, self.embedding = model.frontend, model.embedding
        self.clip_samples, self.hop_samples = clip_samples, hop_samples
        self.batch_size, self.full_scale = batch_size, full_scale
        self.fused_with = nn.ModuleList()  # models whose embeddings are appended

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Embeddings [batch, clips, size] of songs [batch, time], NaN in silence.

        ``wav_lens`` [batch] are relative to the longest. NaN fills up shorter songs.
        """
        relative = wavs.new_ones(len(wavs)) if wav_lens is None else wav_lens
        lengths = (relative * wavs.shape[1]).round().int().tolist()
        if min(lengths) < 1:
            number = lengths.index(min(lengths))
            raise AudioFileError(f"song {number} of the batch is empty, by wav_lens")
        pieces: list[list[Tensor]] = [[] for _ in lengths]
        songs = ((n, [wavs[n, :length]]) for n, length in enumerate(lengths))
        for number, embeddings in self.embed_songs(songs):
            pieces[number].append(embeddings)
        rows = [torch.cat(song) for song in pieces]
        padded = nn.utils.rnn.pad_sequence(rows, True, torch.nan)
        if failed(padded).any():
            raise WeightsError(FAILED)
        return padded

    def embed_songs(self, songs: Songs) -> Scored:
        """As ``models.songs.embed_songs``."""
        names = "clip_samples hop_samples batch_size full_scale fused_with"
        options = {name: getattr(self, name) for name in names.split()}
        return embed_songs(self, songs, **options)


class VotingClassifier(nn.Module):
    """``classifier``: classifies songs by the votes of their clips.

    Arguments
    ---------
    model
        A model such as ``MSSincResNet``; its classifier is used.
    voting
        "majority" or "mean", as in ``vote``.
    temperature
        Divides a song's log-posteriors, which calibrates them; None leaves them.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> classify = VotingClassifier(MSSincResNet(n_filters=8))
    >>> classify(torch.randn(2, 55, 2560)).shape
    torch.Size([2, 1, 10])
    """

    def __init__(
        self, model: Any, voting: str = "majority", temperature: float | None = None
    ) -> None:
        super().__init__()
        self.classifier = model.classifier
        self.voting, self.temperature = voting, temperature

    def forward(self, embeddings: Tensor) -> Tensor:
        """Log-posteriors [batch, 1, n_genres]; equal for a silent song's genres."""
        scores = [score_clips(self.classifier, song) for song in embeddings]
        how = self.voting, self.temperature
        votes = [song_log_posteriors(song, *how) for song in scores]
        return torch.stack(votes)[:, None]


def song_parts(model: GenreModel) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """``modules`` and ``hparams`` of a ``GenreClassifier``, as in hyperparams.yaml."""
    settings = model.settings
    names = ("clip_samples", "hop_samples", "full_scale")
    clips = {"batch_size": BATCH_SIZE, **{name: settings[name] for name in names}}
    voting: Any = {name: settings.get(name) for name in ("voting", "temperature")}
    modules = {
        "compute_features": InputCheck(),
        "mean_var_norm": Identity(),
        "embedding_model": SongEmbedding(model, **clips),
        "classifier": VotingClassifier(model, *voting.values()),
    }
    label_encoder = CategoricalEncoder()
    label_encoder.update_from_iterable(settings["genres"])
    label_encoder.expect_len(len(settings["genres"]))
    rate, n_genres = model.config["sample_rate"], len(settings["genres"])
    hparams = {**clips, "sample_rate": rate, "n_genres": n_genres, "model": model}
    hparams |= {**voting, "label_encoder": label_encoder}
    hparams["usual_norm"] = settings.get("usual_norm")
    return modules, hparams | {"audio_normalizer": AudioNormalizer(rate)}
