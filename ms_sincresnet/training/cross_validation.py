"""Cross-validation: a recipe's train.py on fold after fold, and one summary of all.

The standard deviation and the interval of the mean are those of the folds' accuracies,
by Student's t. Folds share most of their training tracks, so they vary less than runs
on fresh data would, and the interval is rather too narrow (Y. Bengio, Y. Grandvalet,
"No unbiased estimator of the variance of K-fold cross-validation", JMLR 5, 2004).
Beside it stands the interval of Clopper and Pearson for the share of all tracks.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from scipy import stats
from tqdm import tqdm

from ms_sincresnet.errors import HparamError, ModelFolderError, UserError
from ms_sincresnet.files import atomic_path
from ms_sincresnet.plots.drawing import save_figure
from ms_sincresnet.plots.training import plot_confusion_matrix, read_confusion_matrix
from ms_sincresnet.pretrained.model_folder import check_model_folder
from ms_sincresnet.training.comparison import read_predictions
from ms_sincresnet.training.hparams import parse_arguments, plain_hparams

LEVEL = 0.95  # of the intervals
NOTE = "options.yaml"
TERMINAL = "terminal.txt"

# What each fold gets of its own, and what changes no figure.
OF_A_FOLD = ("fold", "output_folder", "save_folder", "model_folder", "manifest_folder")
IMMATERIAL = (
    *OF_A_FOLD,
    "cache",
    "cache_folder",
    "ckpt_interval_minutes",
    "ckpt_interval_steps",
    "device",
    "noprogressbar",
    "num_workers",
    "tensorboard",
)

POLL_S = 0.2  # between looks at the running folds
GRACE_S = 8  # for a fold that is interrupted, twice, until it is killed
LAST_LINES = 10  # of a failed fold's output, where it says no error of ours


def read_options(hparams_file, words):
    """What a command line of train.py comes to.

    Arguments
    ---------
    hparams_file : str or pathlib.Path
        The yaml file.
    words : list of str
        The rest of the command line.

    Returns
    -------
    given : dict
        Overrides and run options as they were given.
    hparams : dict
        The scalars of the yaml file with these in their places, and run options.

    Raises
    ------
    HparamError
        If the file is missing or not yaml, an override is no hparam of it, or it is
        one that each fold gets of its own.

    Example
    -------
    >>> path = getfixture("tmp_path") / "recipe.yaml"
    >>> _ = path.write_text("seed: 1234\\nn_folds: 10\\nhalf: !ref <n_folds> // 2\\n")
    >>> read_options(path, ["--n_folds=4", "--precision=bf16"])
    ({'n_folds': 4, 'precision': 'bf16'}, \
{'seed': 1234, 'n_folds': 4, 'half': 2, 'precision': 'bf16'})
    """
    _, run_opts, overrides = parse_arguments([str(hparams_file), *words])
    plain = plain_hparams(hparams_file, overrides)
    given = yaml.safe_load(overrides) or {}
    given |= {name: run_opts[name] for name in sorted(run_opts.overridden_args)}
    for name in OF_A_FOLD:
        if name in given:
            raise HparamError(
                f"--{name}: each fold gets its own, so leave it out; --folds chooses "
                "the folds, --output_folder the folder of them all"
            )
    return given, {k: v for k, v in plain.items() if v is not None} | given


def cross_validate(
    script, hparams_file, words, folder, *, n_folds, folds, jobs=1, system=None
):
    """Trains and tests on each fold that is not finished yet, and sums up.

    ``fold_0``, ``fold_1`` … in the folder are output folders of train.py; what a fold
    says goes to its ``terminal.txt``. After each fold the summary is written anew.

    The options are noted with the first fold that is run. From the first checkpoint on
    others are refused: their folds do not belong in one summary.

    Two calls on one folder share the work. Where a call was killed and its folds go on
    by themselves, the next one waits for them.

    Arguments
    ---------
    script : str or pathlib.Path
        The recipe's train.py. It goes on where it was stopped when it is run again.
    hparams_file : str or pathlib.Path
        The yaml file.
    words : list of str
        Its other options, none of which a fold gets of its own.
    folder : str or pathlib.Path
        Where the folds and the summary go.
    n_folds : int
        Folds of the split.
    folds : iterable of int
        Those to run.
    jobs : int
        Folds at a time. They share processors and GPUs.
    system : str, optional
        What is tested, for the summary; the name of the yaml file without it.

    Returns
    -------
    dict
        The summary, of all finished folds in the folder.

    Raises
    ------
    HparamError
        If the folder holds folds that were run with other options.
    UserError
        If a fold fails. What others reached is kept.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "a.yaml").write_text("fold: 0\\noutput_folder: x\\nn_folds: 2\\n")
    >>> _ = (folder / "train.py").write_text("raise SystemExit('error: no data')")
    >>> cross_validate(
    ...     folder / "train.py", folder / "a.yaml", [], folder, n_folds=2, folds=[0]
    ... )  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.UserError: fold 0 failed (exit status 1), the others keep \
what they reached; .../terminal.txt ends with
    error: no data
    """
    folder = Path(folder)
    given, hparams = read_options(hparams_file, words)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror})") from error
    hparams |= {"hparams_file": Path(hparams_file).name, "n_folds": n_folds}
    for fold in range(n_folds):
        _refuse_other_split(_of_fold(folder, fold), fold, hparams)
    unfinished = [fold for fold in folds if not is_finished(_of_fold(folder, fold))]
    noted = note_options(folder, hparams, write=bool(unfinished))
    more = {
        "system": system or Path(hparams_file).stem,
        "options": {k: v for k, v in given.items() if not k.endswith("_folder")}
        if noted
        else None,
    }
    jobs = max(1, min(jobs, len(unfinished)))
    environments = share_machine(jobs, given.get("device"))
    command = [sys.executable, str(script), str(hparams_file), *words]
    command.append(f"--n_folds={n_folds}")
    with closing(_run(command, folder, folds, environments)) as finished:
        for _ in finished:
            write_summary(folder, n_folds, **more)
    return write_summary(folder, n_folds, **more)


def is_finished(folder):
    """Whether a fold needs no more work.

    train.py writes the model folder last, and whole or not at all.

    Arguments
    ---------
    folder : str or pathlib.Path
        Output folder of train.py.

    Returns
    -------
    bool
        Whether the fold was tested and its model written.

    Example
    -------
    >>> is_finished("results/nowhere")
    False
    """
    folder = Path(folder)
    try:
        check_model_folder(folder / "model")
    except ModelFolderError:
        return False
    return (folder / "test_summary.json").is_file()


def note_options(folder, hparams, write=True):
    """Compares the options with those of earlier calls, or takes note of them.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder of the folds.
    hparams : dict
        Options by name. Those in ``IMMATERIAL`` do not count.
    write : bool
        Whether to write a note if there is none that binds.

    Returns
    -------
    bool
        Whether there is a note of these options now. Folds that train.py made without
        this module have none.

    Raises
    ------
    HparamError
        If a fold has been begun with others.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> note_options(folder, {"seed": 1, "device": "cpu"})
    True
    >>> (folder / "fold_0" / "save" / "CKPT+1").mkdir(parents=True)
    >>> note_options(folder, {"seed": 1, "device": "cuda"})
    True
    >>> note_options(folder, {"seed": 2})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.HparamError: ...: its folds were run with other options: \
seed was 1, is 2 now. Repeat them, or give another output_folder
    """
    note = Path(folder) / NOTE
    hparams = {k: v for k, v in hparams.items() if k not in IMMATERIAL}
    if hparams.get("data_folder"):
        hparams["data_folder"] = str(Path(hparams["data_folder"]).resolve())
    if note.is_file() and _has_begun(note.parent):
        noted = yaml.safe_load(note.read_text(encoding="utf-8"))
        differences = [
            f"{name} was {noted.get(name, 'not given')}, "
            f"is {hparams.get(name, 'not given')} now"
            for name in noted | hparams
            if noted.get(name) != hparams.get(name)
        ]
        if differences:
            raise HparamError(
                f"{folder}: its folds were run with other options: "
                f"{'; '.join(differences)}. Repeat them, or give another output_folder"
            )
    elif write:
        with atomic_path(note) as temporary_path:
            text = yaml.safe_dump(hparams, sort_keys=False, allow_unicode=True)
            temporary_path.write_text(text, encoding="utf-8")
    return note.is_file()


def _has_begun(folder):
    """Whether a fold has something that options had a part in."""
    patterns = ("fold_*/save/CKPT*", "fold_*/test_summary.json")
    return any(any(folder.glob(pattern)) for pattern in patterns)


def _refuse_other_split(folder, fold, hparams):
    """Raises if a fold was made for another place, by the report of its manifests."""
    report = folder / "manifests" / "report.json"
    if not report.is_file():
        return
    options = json.loads(report.read_text(encoding="utf-8"))["options"]
    for name, value in [
        ("fold", fold),
        ("n_folds", hparams["n_folds"]),
        ("seed", hparams.get("seed")),
    ]:
        if options.get(name, value) != value:
            raise HparamError(
                f"{folder}: it was split with {name}={options[name]}, expected "
                f"{value}; give another output_folder, or move it away"
            )


def _of_fold(folder, fold):
    """The output folder of a fold."""
    return Path(folder) / f"fold_{fold}"


def share_machine(jobs, device=None):
    """Environment variables of processes that share this machine.

    Each has its part of the processor's cores, unless OMP_NUM_THREADS is set already,
    and on a machine with several GPUs one of them, in turn.

    Arguments
    ---------
    jobs : int
        Processes at a time.
    device : str, optional
        The device that was asked for. One GPU by its number is nothing to share.

    Returns
    -------
    list of dict of str to str
        The environment of each.

    Example
    -------
    >>> len(share_machine(2))
    2
    """
    environment = dict(os.environ)
    if jobs == 1:
        return [environment]
    n_threads = max(1, torch.get_num_threads() // jobs)
    environment.setdefault("OMP_NUM_THREADS", str(n_threads))
    n_gpus = torch.cuda.device_count()
    if n_gpus < 2 or ":" in (device or ""):
        return [environment] * jobs
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(gpu) for gpu in range(n_gpus)]
    return [
        environment | {"CUDA_VISIBLE_DEVICES": gpus[job % n_gpus]}
        for job in range(jobs)
    ]


def _run(command, folder, folds, environments):
    """Runs the folds that are not finished, as many at a time as environments.

    Yields each when it is finished. Ends all when one fails, or on an interrupt.
    """
    waiting = [fold for fold in folds if not is_finished(_of_fold(folder, fold))]
    running = {}  # by slot: fold and process
    elsewhere = set()  # folds that another process is at work on
    bar = tqdm(
        total=len(folds), initial=len(folds) - len(waiting), unit="fold", disable=None
    )
    try:
        while waiting or running:
            ended = []
            for fold in list(waiting):
                free = [n for n in range(len(environments)) if n not in running]
                if is_finished(_of_fold(folder, fold)):  # by another process
                    waiting.remove(fold)
                    ended.append(fold)
                elif free:
                    process = _start(command, folder, fold, environments[free[0]])
                    if process:
                        running[free[0]] = fold, process
                        waiting.remove(fold)
                        tqdm.write(f"fold {fold}: see {_terminal(folder, fold)}")
                    elif fold not in elsewhere:
                        elsewhere.add(fold)
                        tqdm.write(
                            f"fold {fold}: another process is at work on it, see "
                            f"{_terminal(folder, fold)}"
                        )
            numbers = ", ".join(str(fold) for fold, _ in running.values())
            bar.set_description(f"fold {numbers}" if running else "waiting")
            time.sleep(POLL_S)
            for slot, (fold, process) in list(running.items()):
                if process.poll() is None:
                    continue
                if process.returncode or not is_finished(_of_fold(folder, fold)):
                    raise _failure(folder, fold, process.returncode)
                del running[slot]
                ended.append(fold)
            for fold in ended:
                tqdm.write(_result(folder, fold))
                bar.update()
                yield fold
    finally:
        bar.close()
        _stop([process for _, process in running.values()])


def _terminal(folder, fold):
    """The file that holds what a fold says."""
    return _of_fold(folder, fold) / TERMINAL


def _start(command, folder, fold, environment):
    """Starts a fold; None if another process is at work on it.

    Its output file is locked, and the lock is the child's: it holds as long as the
    child or a worker of it lives, also when this process is killed.
    """
    path = _terminal(folder, fold)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as terminal:
        try:
            fcntl.flock(terminal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError:
            pass  # a file system without locks
        options = [f"--output_folder={path.parent}", f"--fold={fold}"]
        print("$", *command, *options, file=terminal, flush=True)
        return subprocess.Popen(
            [*command, *options],
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def _stop(processes):
    """Interrupts processes, and kills those that do not end."""
    # Python loses an interrupt that comes while it frees an object: hence the second.
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
        for process in processes:
            process.send_signal(number)  # to those that have not ended
        deadline = time.monotonic() + GRACE_S
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0, deadline - time.monotonic()))


def _failure(folder, fold, status):
    """The error of a fold that failed: its own, or the last that it said."""
    path = _terminal(folder, fold)
    text = path.read_text(encoding="utf-8", errors="replace").rpartition("\n$ ")[2]
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [n for n, line in enumerate(lines) if line.startswith("error: ")]
    lines = lines[errors[-1] :] if errors else lines[-LAST_LINES:]
    said = "\n".join(lines)
    how = f"exit status {status}"
    if status < 0:
        how = f"killed by {signal.Signals(-status).name}"
    return UserError(
        f"fold {fold} failed ({how}), the others keep what they reached; {path} ends "
        f"with\n{said}"
    )


def _result(folder, fold):
    """A line about a finished fold."""
    summary = _read_json(_of_fold(folder, fold) / "test_summary.json")
    return (
        f"fold {fold}: {100 * summary['song_accuracy']:.1f} % of {summary['tracks']} "
        f"songs, {100 * summary['clip_accuracy']:.1f} % of {summary['clips']} clips"
    )


def student_interval(values):
    """The 95 % interval of a mean by Student's t.

    Arguments
    ---------
    values : list of float
        Two or more, such as the accuracies of the folds.

    Returns
    -------
    (float, float)
        Lower and upper end.

    Example
    -------
    >>> low, high = student_interval([0.8, 0.9])  # 0.85 ± 12.706 · 0.05
    >>> round(low, 3), round(high, 3)
    (0.215, 1.485)
    """
    quantile = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)
    mean, half = np.mean(values), quantile * stats.sem(values)
    return float(mean - half), float(mean + half)


def clopper_pearson_interval(right, tracks):
    """The exact 95 % interval of a share.

    C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated
    in the case of the binomial", Biometrika 26(4), 1934.

    Arguments
    ---------
    right, tracks : int
        Tracks that were named rightly, and all.

    Returns
    -------
    (float, float)
        Lower and upper end, from 0 to 1.

    Example
    -------
    >>> low, high = clopper_pearson_interval(16, 20)
    >>> round(low, 2), round(high, 2)
    (0.56, 0.94)
    """
    interval = stats.binomtest(right, tracks).proportion_ci(LEVEL, method="exact")
    return float(interval.low), float(interval.high)


def summarize_folds(folder, n_folds):
    """Sums up the finished folds in a folder.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder of the folds.
    n_folds : int
        Folds of the split.

    Returns
    -------
    summary : dict
        dataset; n_folds and folds_done; tracks and clips; song_accuracy and
        clip_accuracy, each with mean, sd (of a sample) and interval (of the mean, cut
        at 0 and 1) over the folds, the latter two None for one fold;
        pooled_song_accuracy, of all tracks, with accuracy, right and interval; and
        folds, the summaries of train.py.
    predictions : pandas.DataFrame
        The predictions of all folds, with a column fold.
    matrix : pandas.DataFrame
        The sum of their confusion matrices.

    Raises
    ------
    UserError
        If no fold is finished, a file is damaged, or two folds tested one track: then
        they are not of one split.

    Example
    -------
    >>> summarize_folds("results/nowhere", n_folds=10)
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.UserError: results/nowhere: no fold of 10 is finished there
    """
    folds = [n for n in range(n_folds) if is_finished(_of_fold(folder, n))]
    if not folds:
        raise UserError(f"{folder}: no fold of {n_folds} is finished there")
    folders = [_of_fold(folder, fold) for fold in folds]
    summaries = [_read_json(path / "test_summary.json") for path in folders]
    tables = [read_predictions(path) for path in folders]
    predictions = pd.concat(tables, keys=folds, names=["fold"]).reset_index()
    twins = predictions[predictions.ID.duplicated(keep=False)].sort_values("ID")
    if len(twins):
        first, second = twins.fold.iloc[:2]
        raise UserError(
            f"{folder}: folds {first} and {second} both tested {twins.ID.iloc[0]}, so "
            "they are not of one split: seed, n_folds or the data differ"
        )
    matrix = sum(
        read_confusion_matrix(path / "confusion_matrix.csv") for path in folders
    )
    right = int((predictions.genre == predictions.predicted).sum())
    summary = {
        "dataset": summaries[0]["dataset"],
        "n_folds": n_folds,
        "folds_done": len(folds),
        "tracks": len(predictions),
        "clips": sum(one["clips"] for one in summaries),
        "song_accuracy": _spread([one["song_accuracy"] for one in summaries]),
        "clip_accuracy": _spread([one["clip_accuracy"] for one in summaries]),
        "pooled_song_accuracy": {
            "accuracy": right / len(predictions),
            "right": right,
            "interval": list(clopper_pearson_interval(right, len(predictions))),
        },
        "folds": [
            {"fold": fold, **one} for fold, one in zip(folds, summaries, strict=True)
        ],
    }
    return summary, predictions, matrix


def _spread(values):
    """Mean, standard deviation and interval of the folds' accuracies."""
    several = len(values) > 1
    return {
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)) if several else None,
        "interval": np.clip(student_interval(values), 0, 1).tolist()
        if several
        else None,
    }


def write_summary(folder, n_folds, **more):
    """Writes the summary of the finished folds in a folder.

    ``summary.json`` (see ``summarize_folds``), ``predictions.csv`` (a row a track),
    ``confusion_matrix.csv`` and ``confusion_matrix.png``.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder of the folds.
    n_folds : int
        Folds of the split.
    **more : dict
        What else the summary says, such as the system.

    Returns
    -------
    dict
        The summary.

    Raises
    ------
    UserError
        As ``summarize_folds``.

    Example
    -------
    >>> write_summary("results/nowhere", n_folds=10)
    Traceback (most recent call last):
    ...
    ms_sincresnet.errors.UserError: results/nowhere: no fold of 10 is finished there
    """
    folder = Path(folder)
    summary, predictions, matrix = summarize_folds(folder, n_folds)
    summary |= more
    title = f"{summary['dataset']}, {_share_done(summary)}"
    save_figure(plot_confusion_matrix(matrix, title), folder / "confusion_matrix.png")
    with atomic_path(folder / "confusion_matrix.csv") as temporary_path:
        matrix.to_csv(temporary_path)
    with atomic_path(folder / "predictions.csv") as temporary_path:
        predictions.to_csv(temporary_path, index=False)
    with atomic_path(folder / "summary.json") as temporary_path:
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        temporary_path.write_text(text, encoding="utf-8")
    return summary


def describe(summary):
    """A summary in words.

    Arguments
    ---------
    summary : dict
        What ``summarize_folds`` returns.

    Returns
    -------
    str
        Lines for the screen.

    Example
    -------
    >>> spread = {"mean": 0.85, "sd": 0.05, "interval": [0.80, 0.90]}
    >>> pooled = {"accuracy": 0.85, "right": 85, "interval": [0.765, 0.914]}
    >>> done = {"n_folds": 10, "folds_done": 3, "tracks": 100}
    >>> accuracies = {"song_accuracy": spread, "clip_accuracy": spread}
    >>> print(describe(done | accuracies | {"pooled_song_accuracy": pooled}))
    3 of 10 folds: mean ± standard deviation, 95 % interval of the mean (Student's t)
      songs: 85.0 ± 5.0 %, 80.0 to 90.0 %
      clips: 85.0 ± 5.0 %, 80.0 to 90.0 %
    85 of 100 songs, 85.0 %, 95 % interval 76.5 to 91.4 % (Clopper-Pearson)
    """
    several = summary["folds_done"] > 1
    what = "mean ± standard deviation, 95 % interval of the mean (Student's t)"
    lines = [_share_done(summary) + (f": {what}" if several else "")]
    for name in ("song", "clip"):
        spread = summary[f"{name}_accuracy"]
        text = f"  {name}s: {100 * spread['mean']:.1f}"
        if several:
            low, high = spread["interval"]
            text += (
                f" ± {100 * spread['sd']:.1f} %, {100 * low:.1f} to {100 * high:.1f}"
            )
        lines.append(f"{text} %")
    pooled = summary["pooled_song_accuracy"]
    low, high = pooled["interval"]
    lines.append(
        f"{pooled['right']} of {summary['tracks']} songs, "
        f"{100 * pooled['accuracy']:.1f} %, 95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f} % (Clopper-Pearson)"
    )
    return "\n".join(lines)


def _share_done(summary):
    """How many folds of how many a summary is of."""
    return f"{summary['folds_done']} of {summary['n_folds']} folds"


def _read_json(path):
    """Reads a json file that train.py wrote."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path}: not json ({error}); delete its folder, and the fold is run again"
        ) from error
