"""Naming the genre of whole songs with a model folder."""

import logging
from collections import deque
from pathlib import Path
from urllib.parse import quote

import torch
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.utils.fetching import FetchSource

from ms_sincresnet.data.audio import read_blocks
from ms_sincresnet.data.clips import silent, split_clips
from ms_sincresnet.errors import AudioFileError, ModelFolderError, UserError
from ms_sincresnet.inference.fusion import fuse
from ms_sincresnet.inference.predictions import predict
from ms_sincresnet.pretrained.hub import fetch, local_path
from ms_sincresnet.pretrained.model_folder import check_model_folder, read_model_folder

logger = logging.getLogger(__name__)


class GenreClassifier(EncoderClassifier):
    """Names the genre of whole songs of any length, sample rate and channel count.

    SpeechBrain's ``EncoderClassifier`` with its arguments, methods and results, which
    also takes ``pathlib.Path``, reads local audio without links or copies, refuses a
    model folder that is missing or incomplete, shows how a song's clips voted, and
    fuses several models by the sum rule.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> from ms_sincresnet.pretrained.model_folder import save_model_folder
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
        savedir = kwargs.pop("savedir", None)

        def load(each):
            # SpeechBrain would take another model's files that it finds in savedir.
            own = savedir and Path(savedir, quote(str(each), safe=""))
            return cls._from_source(each, savedir=own, **kwargs)

        names = {"run_opts", "freeze_params"}.intersection(kwargs)
        return cls._fused(source, load, **{name: kwargs[name] for name in names})

    @classmethod
    def from_pretrained(
        cls,
        source,
        *,
        revision=None,
        token=None,
        cache_dir=None,
        local_files_only=False,
        run_opts=None,
    ):
        """Loads a model folder, or a repository of the Hub, without running its code.

        Only ``config.json`` and ``model.safetensors`` are read, so it may come from
        anyone. The classifier is the one of ``from_hparams``, and a list is fused in
        the same way.

        Arguments
        ---------
        source : str, pathlib.Path or list of them
            A model folder, or the name ``user/repository`` on the Hub; a list or tuple
            of such, to be fused.
        revision : str, optional
            Branch, tag or commit on the Hub.
        token : str or bool, optional
            The Hub's token; the one of ``hf auth login`` by default.
        cache_dir : str or pathlib.Path, optional
            Where downloads are kept.
        local_files_only : bool
            Whether to take what is in the cache and ask no server.
        run_opts : dict, optional
            SpeechBrain's run options: ``{"device": "cuda"}`` …

        Returns
        -------
        GenreClassifier
            The classifier.

        Raises
        ------
        ModelFolderError
            If there is no such model, if it has no ``config.json`` or a fault in it, if
            the list is empty, or if models do not agree.
        WeightsError
            If weights are damaged or do not fit.

        Example
        -------
        >>> from ms_sincresnet import MSSincResNet
        >>> from ms_sincresnet.pretrained.model_folder import save_model_folder
        >>> folder = getfixture("tmp_path") / "model"
        >>> save_model_folder(folder, MSSincResNet(2, n_filters=8), ["jazz", "rock"])
        >>> GenreClassifier.from_pretrained(folder).hparams.voting
        'majority'
        """

        def load(each):
            folder = fetch(
                each,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
            return cls(*read_model_folder(folder), run_opts=run_opts)

        if not isinstance(source, list | tuple):
            return load(source)
        return cls._fused(source, load, run_opts=run_opts)

    @classmethod
    def _fused(cls, sources, load, **options):
        """Several models as one, each loaded by a function of its source."""
        if not sources:
            raise ModelFolderError(
                "there is no model to fuse: expected one model folder or more; got "
                f"{sources}"
            )
        return cls(*fuse(sources, [load(each) for each in sources]), **options)

    @classmethod
    def _from_source(cls, source, **kwargs):
        """Loads one model folder, or a repository of the Hub."""
        folder = local_path(source, hub_parts=2)
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
        file = local_path(path, hub_parts=3)
        if file is None:
            yield super().load_audio(path, savedir)
        else:
            for block in read_blocks(file, self.hparams.sample_rate):
                yield torch.from_numpy(block).to(self.device)

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
        wav = self.load_audio(path, savedir)
        clips = split_clips(wav, self.hparams.clip_samples, self.hparams.hop_samples)
        if silent(clips).all():
            logger.warning("%s is silent: no genre is likelier than another", path)
        return self.classify_batch(wav[None])

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
            If the file cannot be used as audio, or is silent throughout.
        """
        ((_, prediction),) = self.predict_songs([(path, self._read_blocks(path))])
        if isinstance(prediction, UserError):
            raise prediction
        return prediction

    def predict_songs(self, songs):
        """Names the genres of songs that come in blocks, and that share batches.

        Arguments
        ---------
        songs : iterable of (object, iterable of torch.Tensor [time])
            A key, which errors call the song by, and the waveform of each song, mono,
            at the model's sample rate. Each is read when its turn comes.

        Yields
        ------
        key : object
            That of a song, in their order.
        prediction : SongPrediction or UserError
            As ``predict_song``, or why there is none: what reading the song raised.
        """
        waiting = deque()

        def read():
            for key, blocks in songs:
                waiting.append(_Song(key))
                yield waiting[-1], self._read_song(waiting[-1], blocks)

        pieces = self.mods.embedding_model.embed_songs(read())
        while True:
            # Not around a yield, which would hand these contexts to the caller.
            with torch.no_grad(), self.inference_ctx:
                song, embeddings = next(pieces, (None, None))
                if song is not None:
                    vote_of = self.mods.classifier.clip_log_posteriors
                    song.log_posteriors += [
                        each.cpu() for each in vote_of(embeddings[None])
                    ]
                    song.heard += (~embeddings[:, 0].isnan()).tolist()
            # Clips come in order: what stands before the song of these has all of its.
            while waiting and waiting[0] is not song:
                done = waiting.popleft()
                yield done.key, done.error or self._prediction(done)
            if song is None:
                return

    def _read_song(self, song, blocks):
        """Yields the blocks of a song up to where they cannot be read."""
        try:
            for block in blocks:
                song.n_samples += len(block)
                yield self.mods.compute_features(block[None].to(self.device))[0]
        except UserError as error:
            song.error = error

    def _prediction(self, song):
        """What a song, all of whose clips are there, was taken for."""
        if song.n_samples == 0:
            return AudioFileError(f"{song.key}: the audio is empty: 0 samples")
        if not any(song.heard):
            return AudioFileError(
                f"{song.key}: silent throughout, so no genre is likelier than another. "
                "Replace it, or leave it out."
            )
        hparams = self.hparams
        log_posteriors = torch.cat(song.log_posteriors)
        numbers = torch.arange(log_posteriors.shape[1])
        return predict(
            log_posteriors,
            song.heard,
            hparams.label_encoder.decode_torch(numbers),
            voting=hparams.voting,
            clip_s=hparams.clip_samples / hparams.sample_rate,
            hop_s=hparams.hop_samples / hparams.sample_rate,
            duration=song.n_samples / hparams.sample_rate,
        )


class _Song:
    """A song while its clips come in."""

    def __init__(self, key):
        self.key = key
        self.n_samples = 0
        self.error = None
        self.heard = []  # whether a clip is not silent
        self.log_posteriors = []  # of those clips
