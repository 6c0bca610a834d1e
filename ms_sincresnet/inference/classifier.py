"""Naming the genre of whole songs with a model folder."""

import logging
from pathlib import Path
from typing import NamedTuple

import torch
from speechbrain.inference.classifiers import EncoderClassifier

from ms_sincresnet.data.audio import read_audio
from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.inference.model_folder import check_model_folder
from ms_sincresnet.nnet.voting import vote

logger = logging.getLogger(__name__)


class ClipPrediction(NamedTuple):
    """What one clip of a song was taken for."""

    start_s: float
    end_s: float
    genre: str
    posterior: float


class SongPrediction(NamedTuple):
    """What a song was taken for, and by which of its clips."""

    genre: str
    shares: dict  # genre → share of the clips' votes; the largest is the decision
    posteriors: dict  # genre → mean of the clips' posteriors
    clips: list  # of ClipPrediction, in the order of time: the song's timeline
    duration: float  # s


class GenreClassifier(EncoderClassifier):
    """Names the genre of whole songs of any length, sample rate and channel count.

    SpeechBrain's ``EncoderClassifier`` with its arguments, methods and results, which
    also takes ``pathlib.Path``, reads local audio without links or copies, refuses a
    model folder that is missing or incomplete, and shows how a song's clips voted.

    Example
    -------
    >>> import tempfile
    >>> from ms_sincresnet import MSSincResNet
    >>> from ms_sincresnet.inference.model_folder import save_model_folder
    >>> folder = tempfile.mkdtemp() + "/model"
    >>> save_model_folder(folder, MSSincResNet(2, n_filters=8), ["jazz", "rock"])
    >>> classifier = GenreClassifier.from_hparams(folder)
    >>> log_posteriors, _, _, genres = classifier.classify_batch(torch.randn(2, 64000))
    >>> log_posteriors.shape, len(genres)
    (torch.Size([2, 2]), 2)
    """

    @classmethod
    def from_hparams(cls, source, **kwargs):
        """Loads a model folder, or a repository of the Hub.

        Arguments
        ---------
        source : str or pathlib.Path
            A model folder, or the name ``user/repository`` on the Hub.
        **kwargs : dict
            As in SpeechBrain's ``from_hparams``: ``run_opts={"device": "cuda"}`` …

        Returns
        -------
        GenreClassifier
            The classifier.

        Raises
        ------
        ModelFolderError
            If a folder is named that is not there or lacks a file.
        WeightsError
            If weights do not fit the model.
        """
        if isinstance(source, Path) or _is_local(source, hub_parts=2):
            check_model_folder(source)
            source = str(source)
        classifier = super().from_hparams(source=source, **kwargs)
        genres, outputs = classifier.hparams.label_encoder, classifier.hparams.n_genres
        if len(genres) != outputs:
            raise ModelFolderError(
                f"{source}: label_encoder.ckpt names {len(genres)} genres, the model "
                f"tells {outputs} apart"
            )
        genres.expect_len(outputs)
        return classifier

    def load_audio(self, path, savedir=None):
        """Loads a file as mono audio at the model's sample rate.

        Arguments
        ---------
        path : str or pathlib.Path
            A local file; SpeechBrain's addresses (http, Hub) work as well.
        savedir : str, optional
            Where SpeechBrain keeps what it downloads.

        Returns
        -------
        torch.Tensor [time]
            The waveform.

        Raises
        ------
        AudioFileError
            If the file cannot be used as audio.
        """
        if isinstance(path, Path) or _is_local(path, hub_parts=3):
            wav = read_audio(path, self.hparams.sample_rate)
            return torch.from_numpy(wav).to(self.device)
        return super().load_audio(path, savedir)

    def classify_batch(self, wavs, wav_lens=None):
        """Names the genres of a batch of songs.

        Arguments
        ---------
        wavs : torch.Tensor [batch, time]
            Whole songs, mono, at the model's sample rate, padded to the longest.
        wav_lens : torch.Tensor [batch], optional
            Lengths relative to the longest.

        Returns
        -------
        log_posteriors : torch.Tensor [batch, n_genres]
            Of the songs.
        score : torch.Tensor [batch]
            Log-posterior of the genre named.
        index : torch.Tensor [batch]
            Its number.
        genres : list of str
            Its name.
        """
        with torch.no_grad(), self.inference_ctx:
            return super().classify_batch(wavs, wav_lens)

    def classify_file(self, path, savedir=None):
        """Names the genre of a file.

        Arguments
        ---------
        path : str or pathlib.Path
            Audio of any length, sample rate and channel count.
        savedir : str, optional
            Where SpeechBrain keeps what it downloads.

        Returns
        -------
        tuple
            As ``classify_batch``, for a batch of one.
        """
        return self.classify_batch(self.load_audio(path, savedir)[None])

    def predict_song(self, path):
        """Names the genre of a file and shows how its clips voted.

        Arguments
        ---------
        path : str or pathlib.Path
            Audio of any length, sample rate and channel count.

        Returns
        -------
        SongPrediction
            Genre, shares of the votes, mean posteriors, clips and duration.

        Raises
        ------
        AudioFileError
            If the file cannot be used as audio.
        """
        wav = self.load_audio(path)
        if not wav.any():
            logger.warning("%s is silent: its genre is a guess about silence", path)
        with torch.no_grad(), self.inference_ctx:
            embeddings = self.encode_batch(wav)
            (clips,) = self.mods.classifier.clip_log_posteriors(embeddings)
        index, shares = vote(clips, self.hparams.voting)
        sample_rate = self.hparams.sample_rate
        duration = len(wav) / sample_rate
        posteriors, winners = clips.exp().max(1)
        timeline = []
        for clip, (posterior, winner) in enumerate(
            zip(posteriors.tolist(), winners, strict=True)
        ):
            start_s = clip * self.hparams.hop_samples / sample_rate
            end_s = min(start_s + self.hparams.clip_samples / sample_rate, duration)
            timeline.append(
                ClipPrediction(start_s, end_s, self._genre(winner), posterior)
            )
        return SongPrediction(
            genre=self._genre(torch.tensor(index)),
            shares=self._by_genre(shares),
            posteriors=self._by_genre(clips.exp().mean(0)),
            clips=timeline,
            duration=duration,
        )

    def _genre(self, index):
        """Name of a genre."""
        return self.hparams.label_encoder.decode_torch(index[None])[0]

    def _by_genre(self, values):
        """Values [n_genres] by the names of the genres."""
        names = self.hparams.label_encoder.decode_torch(torch.arange(len(values)))
        return dict(zip(names, values.tolist(), strict=True))


def _is_local(address, hub_parts):
    """Whether an address means this machine; ``user/repository[/file]`` may not.

    SpeechBrain asks the Hub for every folder that it does not find here, a mistyped
    one too.
    """
    if "://" in str(address):
        return False
    path = Path(address).expanduser()
    parts = path.parts
    return (
        path.exists()
        or path.is_absolute()
        or len(parts) != hub_parts
        or parts[0] in (".", "..", "~")
        or Path(parts[0]).is_dir()
    )
