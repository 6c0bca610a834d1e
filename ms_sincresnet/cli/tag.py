"""``ms-sincresnet tag``: genres in the tags of songs."""

import argparse
import itertools
import logging
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from ms_sincresnet.cli import commands
from ms_sincresnet.cli.plot import OR_BUNDLED_HELP
from ms_sincresnet.errors import UserError
from ms_sincresnet.files import file_state, printable

logger = logging.getLogger(__name__)


def add_arguments(add: Callable, whole: Callable, share: Callable) -> None:
    """Adds the songs, the model, and what is written where."""
    add("songs", metavar="SONG|FOLDER", nargs="*", help="songs, playlists, folders")
    text = "playlist, or file with a song or folder per line; - is stdin"
    add("--files-from", metavar="LIST", help=text)
    text = "or tag the songs in an output of `classify` with the genres it has, and "
    text += "note their new size and time there"
    add("--results", metavar="FILE", help=text)
    text = "or restore the files in a log of an earlier run"
    add("--undo", metavar="LOG", help=text)
    add("--model", metavar="MODEL", help=OR_BUNDLED_HELP)
    add("--dry-run", action="store_true", help="show old and new genres, write nothing")
    add("--overwrite", action="store_true", help="tag songs that have a genre, too")
    text = "one genre for songs of the same album and album artist or, without album "
    text += "artist, of the same album and folder: that of their mean posteriors"
    add("--album", action="store_true", help=text)
    text = "most genres per song, of those that reach --min-posterior (default: 1)"
    add("--top", type=whole, default=1, metavar="N", help=text)
    text = "leave out genres whose posterior is less (0 to 1)"
    add("--min-posterior", type=share, default=0.0, metavar="P", help=text)
    text = "yaml file of names to write for the model's genres: `hiphop: [Rap, Trap]`"
    add("--genre-map", metavar="FILE", help=text)
    add("--id3v23", action="store_true", help="write ID3v2.3 into mp3s, not ID3v2.4")
    name = f"ms-sincresnet-tags-{datetime.now():%Y%m%d-%H%M%S}.jsonl"
    text = "the log for --undo (default: a new one in this folder)"
    add("--log", metavar="FILE", default=name, help=text)


def run(arguments: argparse.Namespace) -> int:
    """Writes genres into songs, or undoes it."""
    songs = arguments.songs or arguments.files_from
    given = [bool(way) for way in (songs, arguments.results, arguments.undo)]
    if sum(given) != 1 or "-" in arguments.songs or (given[2] and arguments.dry_run):
        arguments.error("name songs and folders; or --results FILE; or --undo LOG only")
    from ms_sincresnet.data import tags

    steps: Iterable = _tag(arguments)
    if arguments.undo:
        steps = (_attempt(tags.undo, entry) for entry in tags.read_log(arguments.undo))
    done: Counter = Counter()
    try:
        for step in steps:
            if isinstance(step, UserError):
                logger.error("%s", step)
                step = "failed"
            done[step] += 1
    except KeyboardInterrupt:
        advice = "run the same command again to resume"
        raise KeyboardInterrupt(f"interrupted; {advice}") from None
    finally:
        if done:
            logger.info(", ".join(f"{n} {what}" for what, n in done.items()))
        if done["tagged"]:
            logger.info("ms-sincresnet tag --undo %s undoes it", arguments.log)
    return 3 if done["failed"] else 0


def _attempt(function: Callable, *args: Any) -> Any:
    """The result of a function, or the error for the user that it raises."""
    try:
        return function(*args)
    except UserError as error:
        return error


def _tag(arguments: argparse.Namespace) -> Iterator[str | UserError]:
    """Tags songs; yields what was done with each."""
    from tqdm import tqdm

    from ms_sincresnet.data import labels, prepare, tags
    from ms_sincresnet.inference import batch, fusion, results

    file, log = arguments.genre_map, arguments.log
    genre_map = labels.read_genre_map(file) if file else {}
    known: dict[str, dict] = {}
    if arguments.results:
        known, save = results.read_results(arguments.results)
    songs: list[str] = [*known] or batch.find_songs(commands.list_sources(arguments))
    if not songs:
        raise UserError(batch.NO_SONGS)
    if not os.access(os.path.dirname(log) or ".", os.W_OK):
        raise UserError(f"{log}: cannot be written; name another file with --log")
    todo, paths = {}, {os.path.realpath(song): song for song in songs}
    for path, song in tqdm(paths.items(), "reading tags", disable=None, leave=False):
        found = _attempt(tags.read_tags, path)
        if isinstance(found, UserError):
            yield found
        elif found[0] and not arguments.overwrite:
            yield "had a genre"
        elif known and not results.is_current(known[song], file_state(song)):
            yield UserError(f"{song}: has an error in the results, or changed since")
        else:
            todo[song] = path, found[0], (arguments.album and found[1]) or path
    rows: Iterable = ((song, known[song]) for song in todo)
    if todo and not known:
        classifier = commands.load_classifier(arguments, arguments.device)
        genres = fusion.genres_of(classifier.hparams)
        ours = {*map(prepare.letters, genres)}
        if unknown := [n for n in genre_map if prepare.letters(n) not in ours]:
            reason = f"expected {', '.join(genres)}; found {', '.join(unknown)}"
            raise UserError(f"{file}: genres that the model does not know: {reason}")
        heard = batch.classify_songs(classifier, todo, jobs=arguments.jobs)
        rows = ((song, batch.song_row(song, x, top=999)) for song, x in heard)
    bar = tqdm(rows, total=len(todo), unit="song", disable=None)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        for song, row, ranking in _ranked(bar, {song: todo[song][2] for song in todo}):
            (path, old, _), least = todo[song], arguments.min_posterior
            sure = [name for name, posterior in ranking if posterior >= least]
            if row.get("unsure") or sure[:1] != [name for name, _ in ranking[:1]]:
                sure = []
            names = (tags.genre_names(x, genre_map) for x in sure[: arguments.top])
            new = [*dict.fromkeys(itertools.chain(*names))]
            if row["error"] is not None:
                yield UserError(f"{song}: {row['error']}")
            elif not new:
                yield "without a sure genre"
            else:
                change = f"{'; '.join(old) or 'no genre'} → {'; '.join(new)}"
                bar.write(printable(f"{song}: {change}"))
                if arguments.dry_run:
                    yield "to be tagged"
                    continue
                error = _attempt(tags.write_genres, path, new, log, arguments.id3v23)
                row |= {} if error else file_state(song)
                yield error or "tagged"
    finally:
        if known and not arguments.dry_run:
            save()


def _ranked(rows: Iterable, albums: dict[str, Any]) -> Iterator[tuple[str, dict, list]]:
    """Songs with their rows and the genres of their albums, the best first."""
    sizes, groups = Counter(albums.values()), defaultdict[Any, list](list)
    for song, row in rows:
        group = groups[albums[song]]
        group.append((song, row))
        if len(group) == sizes[albums[song]]:
            tops = [row["top"] for _, row in group if row["error"] is None]
            means: Counter = Counter()
            for best in itertools.chain(*tops):
                means[best["genre"]] += best["posterior"] / len(tops)
            # In a single song, the genre that won the vote comes first.
            ranking = means.most_common() if len(tops) > 1 else [*means.items()]
            for member in groups.pop(albums[song]):
                yield *member, ranking
