"""A plugin of beets 2.7 or newer that stores the genres of songs by their sound."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Any

import confuse
from beets import ui
from beets.library import Album, Item, Library
from beets.plugins import BeetsPlugin

from ms_sincresnet.errors import UserError

if TYPE_CHECKING:  # PyTorch takes seconds to load: it is imported on the first use
    from ms_sincresnet import GenreClassifier, SongPrediction

SWITCHES = {"auto": True, "pretend": False, "force": False, "album": False}
DEFAULTS: dict = {**SWITCHES, "threshold": 0.0, "model": None, "genre_map": {}}

Group = tuple[Album | None, list[Item]]  # songs that get the same genre


class SincGenrePlugin(BeetsPlugin):
    """Stores predicted genres of songs that have none, at import and on command."""

    def __init__(self) -> None:
        super().__init__()
        if Item().get("genres") is None:
            raise UserError("ms_sincresnet needs beets 2.7 or newer")
        self.config.add(DEFAULTS)
        self._usable = True
        if self.config["auto"].get(bool):
            self.import_stages = [self._imported]

    def commands(self) -> list[ui.Subcommand]:
        """The command ``beet sincgenre``."""
        command = ui.Subcommand("sincgenre", help="name genres by the sound of songs")
        add: Any = command.parser.add_option
        on = {"action": "store_true"}
        # Without defaults: options that are not given leave the configuration alone.
        add("-p", "--pretend", help="show actions but do nothing", **on)
        add("-f", "--force", help="replace existing genres", **on)
        add("-a", "--albums", dest="album", help="match albums, one genre each", **on)
        add("-t", "--threshold", type="float", help="least posterior of a genre")
        command.func = self._command
        return [command]

    def _command(self, lib: Library, opts: Any, args: list[str]) -> None:
        """Stores the genres of the songs or albums that match a query."""
        self.config.set_args(vars(opts))
        groups: list[Group] = [(None, [item]) for item in lib.items(args)]
        if self.config["album"].get(bool):
            groups = [(album, [*album.items()]) for album in lib.albums(args)]
        try:
            self._classify(groups, write=ui.should_write())
        except UserError as error:
            raise ui.UserError(str(error)) from error

    def _imported(self, _: Any, task: Any) -> None:
        """Stores the genres of imported songs; beets writes files after this stage."""
        groups: list[Group] = [(None, [item]) for item in task.imported_items()]
        try:
            if task.is_album and self.config["album"].get(bool):
                groups = [(task.album, task.imported_items())]
            if self._usable:
                self._classify(groups, write=False)
        except Exception as error:  # would end the import
            self._usable = False  # the next songs would fail as well
            self._log.error("this import sets no more genres: {}", error)
            self._log.debug("it failed here:", exc_info=True)

    @cached_property
    def _classifier(self) -> GenreClassifier:
        """The classifier, loaded once."""
        from ms_sincresnet import GenreClassifier
        from ms_sincresnet.nnet.devices import fastest_precision

        model = os.path.expanduser(self.config["model"].get() or "") or None
        options = {"precision": fastest_precision()}
        return GenreClassifier.from_pretrained(model, run_opts=options)

    def _classify(self, groups: list[Group], write: bool) -> None:
        """Stores the genre of each group for those of its songs that have none."""
        pretend, force = (self.config[name].get(bool) for name in ("pretend", "force"))
        todo = [
            (album, [item for item in items if force or not item.genres])
            for album, items in groups
        ]
        if n_kept := sum(len(x) for _, x in groups) - sum(len(x) for _, x in todo):
            self._log.info("songs that keep their genres (no --force): {}", n_kept)
        outcomes = self._outcomes([item for _, items in todo for item in items])
        for album, items in todo:
            songs = [song for song in islice(outcomes, len(items)) if song]
            genres = self._genres(album or items[0], songs) if songs else []
            for item in items if genres else ():
                item.genres = genres
                ui.show_model_changes(item, fields=["genres"])
                if not pretend:
                    item.try_sync(write=write, move=False)
            if genres and album and not pretend and (force or not album.genres):
                album.genres = genres
                album.store(inherit=False)  # not into songs that keep their own

    def _outcomes(self, items: list[Item]) -> Iterator[SongPrediction | None]:
        """Predictions of songs, in order; None for those that fail, which it logs."""
        if not items:
            return
        from ms_sincresnet.inference.batch import classify_songs

        classifier, todo = self._classifier, [os.fsdecode(item.path) for item in items]
        try:
            for _, outcome in classify_songs(classifier, [*todo]):
                del todo[0]
                if isinstance(outcome, UserError):
                    self._log.warning("{}", outcome)
                yield None if isinstance(outcome, UserError) else outcome
        except Exception as error:
            if len(items) > 1:  # songs share batches: any that is left may have failed
                for item in items[len(items) - len(todo) :]:
                    yield from self._outcomes([item])
            else:
                self._log.error("{}: {!r}", items[0].filepath, error)
                self._log.debug("it failed here:", exc_info=True)
                yield from [None for _ in todo]

    def _genres(self, what: Album | Item, songs: list[SongPrediction]) -> list[str]:
        """Names of the genre of a song or an album; none if it is unsure."""
        from ms_sincresnet.data.prepare import letters
        from ms_sincresnet.data.tags import genre_names

        threshold, genre_map = self.config["threshold"], self.config["genre_map"]
        names, least = songs[0].posteriors, threshold.as_number()
        given = genre_map.get(confuse.MappingValues(confuse.StrSeq(split=False)))
        if not 0 <= least <= 1:
            raise UserError(f"{threshold.name}: expected 0 to 1; found {least:g}")
        known = {letters(name): name for name in names}
        if unknown := [name for name in given if letters(name) not in known]:
            expected = f"expected {', '.join(names)}"
            raise UserError(f"{genre_map.name}: {expected}; found {unknown}")
        mean = {name: fmean(song.posteriors[name] for song in songs) for name in names}
        genre = songs[0].genre if len(songs) == 1 else max(mean, key=mean.__getitem__)
        self._log.debug("{}: {}, posterior {:.3f}", what, genre, mean[genre])
        if mean[genre] < least:
            self._log.info("{}: unsure, so no genre is stored", what)
        return genre_names(genre, given) if mean[genre] >= least else []
