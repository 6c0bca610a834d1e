"""``ms-sincresnet similar``: the songs of an index that sound like a song."""

import sys
from argparse import ArgumentParser, Namespace

from ms_sincresnet.cli import commands
from ms_sincresnet.cli.plot import OR_BUNDLED_HELP
from ms_sincresnet.errors import UserError
from ms_sincresnet.files import printable


def add_arguments(command: ArgumentParser) -> None:
    """Adds the song, the index, the playlist and the model."""
    add = command.add_argument
    add("song", metavar="SONG", help="an audio file")
    text = "output of `embed`: a parquet file, or a folder of them"
    add("--index", metavar="FILE", required=True, help=text)
    add("--playlist", metavar="FILE", help="m3u8 file to write the songs to")
    text = f"the model of the index: {OR_BUNDLED_HELP}"
    add("--model", metavar="MODEL", help=text)
    command.set_defaults(fuse=[], voting=None)


def similar(arguments: Namespace) -> None:
    """Prints the songs that are nearest to a song, and writes a playlist of them."""
    from ms_sincresnet.data import playlists
    from ms_sincresnet.inference import neighbours

    index, song = neighbours.Index(arguments.index), arguments.song
    query = index.find(song)
    if query is None:
        from ms_sincresnet.inference import batch

        classifier = commands.load_classifier(arguments, arguments.device)
        identity = batch.model_identity(classifier)
        if identity != index.model:
            reason = f"its model is {index.model}; this one is {identity}"
            advice = "name its --model, --hop and --precision, or embed the songs anew"
            raise UserError(f"{arguments.index}: {reason}; {advice}")
        ((_, outcome),) = batch.classify_songs(classifier, [song], embeds=True)
        if isinstance(outcome, UserError):
            raise outcome
        query = outcome.numpy()
    found = index.search(query, arguments.top, song)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    print("rank  cosine  path")
    for rank, (cosine, path) in enumerate(found, 1):
        print(f"{rank:4}  {cosine:6.3f}  {printable(path)}")
    if arguments.playlist is not None:
        songs = [(path, None) for _, path in found]
        playlists.write_playlist(arguments.playlist, songs)
