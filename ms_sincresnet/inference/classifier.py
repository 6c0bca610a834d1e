"""GenreClassifier: predicts the genre of whole songs with a model folder."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from traceback import walk_tb
from typing import Any
from urllib.parse import quote

import torch
from huggingface_hub.errors import HfHubHTTPError
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.utils.fetching import FetchSource
from torch import Tensor, nn

from ms_sincresnet.data.audio import read_blocks
from ms_sincresnet.data.clips import silent, split_clips
from ms_sincresnet.errors import (
    AudioFileError,
    ModelFolderError,
    UserError,
    WeightsError,
)
from ms_sincresnet.inference.fusion import fuse, genres_of
from ms_sincresnet.inference.predictions import SongPrediction, predict
from ms_sincresnet.inference.speechbrain_modules import FAILED, song_parts
from ms_sincresnet.models.hub import fetch, local_path
from ms_sincresnet.models.songs import Songs, failed, score_clips
from ms_sincresnet.nnet.devices import default_device
from ms_sincresnet.pretrained.model_folder import check_model_folder, read_model_folder

logger = logging.getLogger(__name__)

Sources = str | Path | list[str | Path]
Result = tuple[Tensor, Tensor, Tensor, list[str]]


class GenreClassifier(EncoderClassifier):
    """Predicts the genre of whole songs of any length, sample rate and channel count.

    A SpeechBrain ``EncoderClassifier`` that leaves no links or copies of local audio,
    shows how a song's clips voted, and fuses models.

    Arguments
    ---------
    *args, **kwargs
        As for SpeechBrain's ``Pretrained``. The loaders below supply them.
    run_opts
        Likewise, with the precision "winograd" besides, fp32 on a CPU with fewer
        multiplications in the ResNet (see ``WinogradTrunk``).

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> from ms_sincresnet.pretrained.model_folder import save_model_folder
    >>> folder = getfixture("tmp_path") / "model"
    >>> save_model_folder(folder, MSSincResNet(2, n_filters=8), ["jazz", "rock"])
    >>> classifier = GenreClassifier.from_pretrained(folder)
    >>> log_posteriors, _, _, genres = classifier.classify_batch(torch.randn(2, 64000))
    >>> log_posteriors.shape, len(genres)
    (torch.Size([2, 2]), 2)
    """

    HPARAMS_NEEDED = ["label_encoder"]  # hyperparams.yaml refers to all others

    @classmethod
    def from_hparams(cls, source: Sources, **kwargs: Any) -> "GenreClassifier":
        """Loads a model with SpeechBrain's loader, or several as one.

        Only load sources that you trust: ``hyperparams.yaml`` can run any code.

        Arguments
        ---------
        source
            Model folder, or ``user/repository`` on the Hub. A list of these is fused:
            they must agree in sample rate, clips and genres; a clip's posteriors are
            the mean of theirs, and a song's those of its clips.
        **kwargs
            As for SpeechBrain's ``from_hparams``: ``run_opts={"device": "cuda"}`` …
            ``savedir`` is only used for downloads.

        Raises
        ------
        ModelFolderError, WeightsError
            If a model cannot be loaded, or if models cannot be fused.
        """
        # SpeechBrain's FetchSource is a tuple, but a single source.
        if isinstance(source, FetchSource) or not isinstance(source, list | tuple):
            return cls._from_source(source, **kwargs)
        savedir = kwargs.pop("savedir", None)

        def load(each: str | Path) -> "GenreClassifier":
            # In a shared savedir SpeechBrain would find the files of another model.
            own = savedir and Path(savedir, quote(str(each), safe=""))
            return cls._from_source(each, savedir=own, **kwargs)

        names = {"run_opts", "freeze_params"}.intersection(kwargs)
        return cls(*fuse(source, load), **{name: kwargs[name] for name in names})

    @classmethod
    def from_pretrained(
        cls,
        source: Sources | list[str | Path | None] | None = None,
        *,
        run_opts: dict[str, Any] | None = None,
        **options: Any,
    ) -> "GenreClassifier":
        """Loads the same classifier as ``from_hparams`` without running any code.

        Arguments
        ---------
        source, run_opts
            As for ``from_hparams``, but a source need not be trusted, and None is the
            model that comes with the package.
        **options
            ``revision``, ``token``, ``cache_dir`` and ``local_files_only``, as for
            ``huggingface_hub.hf_hub_download``.
        """

        run_opts = {"device": default_device()} | (run_opts or {})

        def load(each: str | Path | None) -> "GenreClassifier":
            model = read_model_folder(fetch(each, **options))
            return cls(*song_parts(model), run_opts=run_opts)

        if not isinstance(source, list | tuple):
            return load(source)
        return cls(*fuse(source, load), run_opts=run_opts)

    @classmethod
    def _from_source(cls, source: str | Path, **kwargs: Any) -> "GenreClassifier":
        """Loads one model with SpeechBrain's loader."""
        folder = local_path(source, hub_parts=2)
        if folder is not None:
            check_model_folder(folder)
            kwargs["savedir"] = None  # for the same reason as above
            source = str(folder)
        try:
            return super().from_hparams(source=source, **kwargs)
        except UserError:
            raise
        except Exception as error:  # hyperparams.yaml runs whatever it names
            if _is_bug(error):
                raise
            hint = "" if folder else "no such folder here; as a repository of the Hub "
            reason = f"{hint}cannot be loaded ({type(error).__name__}: {error})"
            raise ModelFolderError(f"{source}: {reason}") from error

    def __init__(self, *args: Any, run_opts: Any = None, **kwargs: Any) -> None:
        options = run_opts if isinstance(run_opts, dict) else {}
        winograd = options.get("precision") == "winograd"
        if winograd:
            run_opts = options | {"precision": "fp32"}
        super().__init__(*args, run_opts=run_opts, **kwargs)
        if winograd:
            if self.device_type != "cpu":
                raise UserError(f"precision winograd needs a CPU; got {self.device}")
            # Only here: ncnn has an OpenMP of its own, and on macOS two may clash.
            from ms_sincresnet.nnet.winograd import use_winograd

            use_winograd(self.mods)
            self.precision = "winograd"

    @property
    def temperature(self) -> float | None:
        """The temperature in effect: it belongs to one model and its saved voting."""
        voter = self.mods.classifier
        return voter.temperature if voter.voting == self.hparams.voting else None

    def load_audio(self, path: str | Path, savedir: str | None = None) -> Tensor:
        """Mono waveform [time] of a file or address, at the model's sample rate."""
        return torch.cat(list(self._read_blocks(path, savedir)))

    def _read_blocks(self, path: Any, savedir: str | None = None) -> Iterator[Tensor]:
        """The waveform of ``load_audio`` in blocks of some seconds."""
        file = local_path(path, hub_parts=3)
        if file is None:
            yield super().load_audio(path, savedir)
            return
        for block in read_blocks(file, self.hparams.sample_rate):
            yield torch.from_numpy(block).to(self.device)

    @property
    def hop_s(self) -> float:
        """Time from the start of a clip to that of the next; at most a clip."""
        return self.hparams.hop_samples / self.hparams.sample_rate

    @hop_s.setter
    def hop_s(self, hop_s: float) -> None:
        """Sets it, for fused models as well."""
        hop, clip = round(hop_s * self.hparams.sample_rate), self.hparams.clip_samples
        if not 1 <= hop <= clip:
            most = f"a clip, {clip / self.hparams.sample_rate:g} s"
            raise UserError(f"expected a hop of at most {most}; got {hop_s:g} s")
        fused = getattr(self.hparams, "fused", [])
        for each in (self.mods.embedding_model, self.hparams, *fused):
            each.hop_samples = hop

    def classify_batch(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Result:
        """Log-posteriors of songs [batch, time]; the best one, its index and genre."""
        with torch.no_grad(), self.inference_ctx:
            return super().classify_batch(wavs, wav_lens)

    def classify_file(self, path: str | Path, savedir: str | None = None) -> Result:
        """As ``classify_batch``, for a file of any length, rate and channel count."""
        wav = self.load_audio(path, savedir)
        clips = split_clips(wav, self.hparams.clip_samples, self.hparams.hop_samples)
        if silent(clips).all():
            logger.warning("%s is silent: all genres are equally likely", path)
        return self.classify_batch(wav[None])

    def predict_song(self, path: str | Path) -> SongPrediction:
        """Predicts a file's genre and shows how its clips voted; refuses silence."""
        ((_, prediction),) = self.predict_songs([(path, self._read_blocks(path))])
        if isinstance(prediction, UserError):
            raise prediction
        return prediction

    def embed_song(self, path: str | Path) -> Tensor:
        """Embeds a file: the mean over its audible clips of the ResNet's output.

        The dot product of two songs' embeddings, their cosine, says how alike they are.

        Arguments
        ---------
        path
            An audio file of any length, sample rate and channel count.

        Returns
        -------
        The embedding [2560], of length 1, in float32 on the CPU.

        Raises
        ------
        AudioFileError
            If the file cannot be read, or is silent throughout.

        Example
        -------
        >>> import soundfile
        >>> path = getfixture("tmp_path") / "song.wav"
        >>> soundfile.write(path, torch.rand(64000).numpy() - 0.5, 16000)
        >>> embedding = GenreClassifier.from_pretrained().embed_song(path)
        >>> embedding.shape, round(embedding.norm().item(), 4)
        (torch.Size([2560]), 1.0)
        """
        ((_, embedding),) = self.embed_songs([(path, self._read_blocks(path))])
        if isinstance(embedding, UserError):
            raise embedding
        return embedding

    def predict_songs(
        self, songs: Songs
    ) -> Iterator[tuple[Any, SongPrediction | UserError]]:
        """Predictions, or errors, of songs (see ``models.songs``), by their keys."""
        for song in self._hear(songs):
            yield song.key, song.error or self._prediction(song)

    def embed_songs(self, songs: Songs) -> Iterator[tuple[Any, Tensor | UserError]]:
        """Embeddings, or errors, of songs (see ``models.songs``), by their keys."""
        for song in self._hear(songs):
            yield song.key, song.error or nn.functional.normalize(song.sum, dim=0)

    def _hear(self, songs: Songs) -> Iterator["_Song"]:
        """Songs of which all clips are embedded and scored, or have an error."""
        waiting: deque[_Song] = deque()

        def read() -> Iterator[tuple[_Song, Iterator[Tensor]]]:
            for key, blocks in songs:
                waiting.append(_Song(key))
                yield waiting[-1], self._read_song(waiting[-1], blocks)

        pieces = self.mods.embedding_model.embed_songs(read())
        while True:
            # Not around a yield, which would pass these contexts on to the caller.
            with torch.no_grad(), self.inference_ctx:
                song, embeddings = next(pieces, (None, torch.empty(0)))
                if song is not None:
                    scores = score_clips(self.mods.classifier.classifier, embeddings)
                    song.log_posteriors.append(scores.cpu())
                    heard = ~embeddings.isnan().any(1)
                    song.audible += heard.tolist()
                    song.sum = song.sum + embeddings[heard].float().sum(0).cpu()
                    if failed(embeddings).any():
                        song.error = WeightsError(f"{song.key}: {FAILED}")
            # Clips come in order, so the songs before this one are complete.
            while waiting and waiting[0] is not song:
                done = waiting.popleft()
                if done.error is None and not any(done.audible):
                    fault = "silent throughout, so there is nothing to hear"
                    fault = fault if done.n_samples else "the audio is empty: 0 samples"
                    done.error = AudioFileError(f"{done.key}: {fault}")
                yield done
            if song is None:
                return

    def _read_song(self, song: "_Song", blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """The blocks of a song, up to the first that cannot be read."""
        try:
            for block in blocks:
                song.n_samples += len(block)
                yield self.mods.compute_features(block[None].to(self.device))[0]
        except UserError as error:
            song.error = error

    def _prediction(self, song: "_Song") -> SongPrediction:
        """Prediction for a song of which all clips are scored."""
        hparams, log_posteriors = self.hparams, torch.cat(song.log_posteriors)
        lengths = hparams.clip_samples, hparams.hop_samples, song.n_samples
        times = [length / hparams.sample_rate for length in lengths]
        how = genres_of(hparams), hparams.voting, *times, self.temperature
        prediction = predict(log_posteriors, song.audible, *how)
        if usual := getattr(hparams, "usual_norm", None):
            norm = song.sum.norm().item() / sum(song.audible)
            prediction = prediction._replace(unlike=norm / usual)
        return prediction


@dataclass(eq=False)
class _Song:
    """A song while its clips are scored."""

    key: Any
    n_samples: int = 0
    error: UserError | None = None
    audible: list[bool] = field(default_factory=list)
    log_posteriors: list[Tensor] = field(default_factory=list)
    sum: Any = 0.0  # of its embeddings


def _is_bug(error: Exception) -> bool:
    """True if this package failed on what it was given, rather than refused it."""
    frames = [*walk_tb(error.__traceback__)][1:]
    modules = [frame.f_globals.get("__name__", "") for frame, _ in frames]
    ours = any(name.startswith("ms_sincresnet") for name in modules)
    return ours and not isinstance(error, ValueError | OSError | HfHubHTTPError)
