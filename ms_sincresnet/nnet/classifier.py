"""Embedding to log-posteriors."""

import torch
from torch import nn


class GenreMLP(nn.Module):
    """The fully-connected layers that name the genre of a clip.

    The paper's Fig. 1: two linear layers, a ReLU between them.

    Arguments
    ---------
    input_size : int
        Numbers of an embedding.
    hidden_size : int or None
        Units of the hidden layer; None leaves one linear layer, as in the authors'
        released code.
    n_genres : int
        Number of genres.

    Example
    -------
    >>> GenreMLP()(torch.zeros(4, 1, 2560)).shape
    torch.Size([4, 1, 10])
    """

    def __init__(self, input_size=2560, hidden_size=512, n_genres=10):
        super().__init__()
        if hidden_size is None:
            self.layers = nn.Linear(input_size, n_genres)
        else:
            self.layers = nn.Sequential(
                nn.Linear(input_size, hidden_size),
                nn.ReLU(),
                nn.Linear(hidden_size, n_genres),
            )

    def forward(self, embeddings):
        """Log-posteriors of embeddings.

        Arguments
        ---------
        embeddings : torch.Tensor [batch, clips, input_size]
            One embedding a clip.

        Returns
        -------
        torch.Tensor [batch, clips, n_genres]
            Log-posteriors, in float32 at least, also under autocast.
        """
        scores = self.layers(embeddings)
        dtype = torch.promote_types(scores.dtype, torch.float32)
        return scores.log_softmax(-1, dtype=dtype)
