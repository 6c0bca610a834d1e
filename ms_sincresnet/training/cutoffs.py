"""Cut-off frequencies of a model's filters, epoch by epoch."""

from pathlib import Path

import pandas as pd
import torch
from torch import nn

from ms_sincresnet.files import atomic_path
from ms_sincresnet.nnet.filterbank import SincFilterbank

CUTOFFS = "cutoffs.csv"
EDGES = ["low_hz", "high_hz"]


def filterbanks(model: nn.Module) -> list[SincFilterbank]:
    """The filterbanks of a model, one per scale; none in a mel front-end."""
    return [part for part in model.modules() if isinstance(part, SincFilterbank)]


def cutoff_table(model: nn.Module) -> pd.DataFrame:
    """Scale, taps, number and cut-offs in Hz of each filter; empty without filters."""
    tables = []
    for scale, bank in enumerate(filterbanks(model)):
        cutoffs = torch.stack(bank.cutoffs(), dim=1).detach().cpu().numpy()
        table = pd.DataFrame(cutoffs.round(3), columns=EDGES)
        table.insert(0, "filter", table.index)
        table.insert(0, "taps", bank.kernel_size)
        table.insert(0, "scale", scale)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def record_cutoffs(run: str | Path, model: nn.Module, epoch: int) -> dict[str, float]:
    """Adds the cut-offs of an epoch to a run's csv, and returns their shifts in Hz.

    Epoch 0 is the start. A filter's shift is the larger one of its two cut-offs.
    """
    table = cutoff_table(model)
    if table.empty:
        return {}
    path = Path(run, CUTOFFS)
    table.insert(0, "epoch", epoch)
    if epoch > 0 and path.exists():  # an epoch that was killed is repeated
        before = pd.read_csv(path).query("epoch < @epoch")
        table = pd.concat([before, table], ignore_index=True)
    with atomic_path(path) as temporary_path:
        table.to_csv(temporary_path, index=False)
    first = table[table.epoch == table.epoch.min()]
    last = table[table.epoch == epoch]
    shifts = abs(last[EDGES].to_numpy() - first[EDGES].to_numpy()).max(1)
    return {
        "median_shift_hz": float(pd.Series(shifts).median()),
        "largest_shift_hz": float(shifts.max()),
    }
