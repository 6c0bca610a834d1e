"""Naming the genre of whole songs with a model folder."""

import logging
import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import torch
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.utils.fetching import FetchSource

from ms_sincresnet.data.audio import read_blocks
from ms_sincresnet.errors import ModelFolderError, UserError
from ms_sincresnet.inference.fusion import fuse
from ms_sincresnet.inference.model_folder import check_model_folder
from ms_sincresnet.nnet.voting import vote

logger = logging.getLogger(__name__)


class ClipPrediction(NamedTuple):
    """What one clip of a song was taken for.

    Arguments
    ---------
    start_s : float
        Where the clip starts, in s.
    end_s : float
        Where it ends, in s, or where the song does.
    genre : str
        Its most likely genre.
    posterior : float
        How likely, from 0 to 1.
    """

    start_s: float
    end_s: float
    genre: str
    posterior: float


class SongPrediction(NamedTuple):
    """What a song was taken for, and by which of its clips.

    Arguments
    ---------
    genre : str
        The genre voted for.
    shares : dict of str to float
        Each genre's share of the clips' votes; with the voting "mean", the same as
        ``posteriors``.
    posteriors : dict of str to float
        Each genre's posterior, the mean of the clips'.
    clips : list of ClipPrediction
        The clips in the order of time: the song's timeline.
    duration : float
        Length of the song, in s.
    """

    genre: str
    shares: dict
    posteriors: dict
    clips: list
    duration: float


class GenreClassifier(EncoderClassifier):
    """Names the genre of whole songs of any length, sample rate and channel count.

    SpeechBrain's ``EncoderClassifier`` with its arguments, methods and results, which
    also takes ``pathlib.Path``, reads local audio without links or copies, refuses a
    model folder that is missing or incomplete, shows how a song's clips voted, and
    fuses several models by the sum rule.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> from ms_sincresnet.inference.model_folder import save_model_folder
    >>> folder = getfixture("tmp_path") / "model"
    >>> save_model_folder(folder, MSSincResNet(2, n_filters=8), ["jazz", "rock"])
    >>> classifier = GenreClassifier.from_hparams(folder)
    >>> log_posteriors, _, _, genres = classifier.classify_batch(torch.randn(2, 64000))
    >>> log_posteriors.shape, len(genres)
    (torch.Size([2, 2]), 2)
    """

    # SpeechBrain checks these, and does not check MODULES_NEEDED.
    HPARAMS_NEEDED = [
        "sample_rate",
        "clip_samples",
        "hop_samples",
        "voting",
        "n_genres",
        "label_encoder",
    ]

    @classmethod
    def from_hparams(cls, source, **kwargs):
        """Loads a model folder, or a repository of the Hub, or several as one model.

        Several models are fused by the sum rule: the posteriors of a clip are the mean
        of the models', those of a song the mean of its clips', and the song's largest
        wins, whatever voting the models were saved with. They may be of any system, but
        must agree in sample rate, clips and names of the genres.

        Load what you trust: ``hyperparams.yaml`` can name any code to be run.

        Arguments
        ---------
        source : str, pathlib.Path or list of them
            A model folder, or the name ``user/repository`` on the Hub; a list or tuple
            of such, to be fused.
        **kwargs : dict
            As in SpeechBrain's ``from_hparams``: ``run_opts={"device": "cuda"}`` …
            A folder is read where it lies; ``savedir`` is for what is downloaded.
            They apply to each model that is fused.

        Returns
        -------
        GenreClassifier
            The classifier.

        Raises
        ------
        ModelFolderError
            If a folder is named that is not there, lacks a part or cannot be loaded,
            if the list is empty, or if models do not agree.
        WeightsError
            If weights do not fit the model.
        """
        # SpeechBrain's FetchSource is a tuple, and one source.
        if isinstance(source, FetchSource) or not isinstance(source, list | tuple):
            return cls._from_source(source, **kwargs)
        if not source:
            raise ModelFolderError(
                "there is no model to fuse: expected one model folder or more; got "
                f"{source}"
            )
        savedir = kwargs.pop("savedir", None)
        models = []
        for each in source:
            # SpeechBrain would take another model's files that it finds in savedir.
            own = savedir and Path(savedir, quote(str(each), safe=""))
            models.append(cls._from_source(each, savedir=own, **kwargs))
        names = {"run_opts", "freeze_params"}.intersection(kwargs)
        return cls(*fuse(source, models), **{name: kwargs[name] for name in names})

    @classmethod
    def _from_source(cls, source, **kwargs):
        """Loads one model folder, or a repository of the Hub."""
        folder = _local_path(source, hub_parts=2)
        if folder is not None:
            check_model_folder(folder)
            # SpeechBrain would take the weights of another folder that it finds there.
            kwargs["savedir"] = None
            source = str(folder)
        try:
            classifier = super().from_hparams(source=source, **kwargs)
        except UserError:
            raise
        except Exception as error:  # hyperparams.yaml runs whatever it names
            found = "" if folder else "no such folder here; as a repository of the Hub "
            raise ModelFolderError(
                f"{source}: {found}cannot be loaded ({type(error).__name__}: {error})"
            ) from error
        missing = [name for name in cls.MODULES_NEEDED if name not in classifier.mods]
        if missing:
            raise ModelFolderError(
                f"{source}: hyperparams.yaml lacks the modules {', '.join(missing)}"
            )
        genres, outputs = classifier.hparams.label_encoder, classifier.hparams.n_genres
        numbers = sorted(genres.ind2lab)
        if numbers != list(range(outputs)):
            raise ModelFolderError(
                f"{source}: label_encoder.ckpt names {len(genres)} genres, numbered "
                f"{numbers}; expected one for each of the model's {outputs} outputs"
            )
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
        return torch.cat(list(self._read_blocks(path, savedir)))

    def _read_blocks(self, path, savedir=None):
        """Yields the waveform, as ``load_audio`` loads it, some seconds at a time."""
        file = _local_path(path, hub_parts=3)
        if file is None:
            blocks = [super().load_audio(path, savedir)]
        else:
            blocks = map(torch.from_numpy, read_blocks(file, self.hparams.sample_rate))
        silent = True
        for block in blocks:
            silent = silent and not block.any()
            yield block.to(self.device)
        if silent:
            logger.warning("%s is silent: its genre is a guess about silence", path)

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
        n_samples = []

        def blocks():
            for block in self._read_blocks(path):
                n_samples.append(len(block))
                yield self.mods.compute_features(block[None])[0]

        with torch.no_grad(), self.inference_ctx:
            clips = torch.cat(
                [
                    self.mods.classifier.clip_log_posteriors(embeddings[None])[0]
                    for embeddings in self.mods.embedding_model.embed_blocks(blocks())
                ]
            )
        index, shares = vote(clips, self.hparams.voting)
        sample_rate = self.hparams.sample_rate
        duration = sum(n_samples) / sample_rate
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


def _local_path(address, hub_parts):
    """What an address means on this machine, or None: ``user/repository[/file]``.

    SpeechBrain asks the Hub for every folder that it does not find here, a mistyped
    one too.
    """
    if not isinstance(address, str | os.PathLike) or "://" in str(address):
        return None
    path = Path(os.path.expanduser(address))
    parts = path.parts
    if (
        isinstance(address, os.PathLike)
        or len(parts) != hub_parts
        or str(address).startswith(".")
        or Path(parts[0]).is_dir()
    ):
        return path
    return None
