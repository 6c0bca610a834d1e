"""Late fusion: several models name a song's genre together, by the sum rule.

J. Kittler, M. Hatef, R. P. W. Duin, J. Matas, "On combining classifiers", IEEE
Transactions on Pattern Analysis and Machine Intelligence 20(3), 1998: the genre with
the largest sum of the models' posteriors wins. It is how FusionNet combines its
features, which the paper's section 5 takes as the example for its future work.
"""

import math
from types import SimpleNamespace

import torch
from torch import nn

from ms_sincresnet.errors import ModelFolderError
from ms_sincresnet.inference.speechbrain_modules import SongEmbedding, VotingClassifier


def sum_rule(log_posteriors):
    """Log of the mean of several models' posteriors, without leaving the logarithms.

    Arguments
    ---------
    log_posteriors : torch.Tensor [models, ..., n_genres]
        Log-posteriors by the models.

    Returns
    -------
    torch.Tensor [..., n_genres]
        Log-posteriors by all of them.

    Example
    -------
    >>> sum_rule(torch.tensor([[0.9, 0.1], [0.4, 0.6]]).log()).exp()
    tensor([0.6500, 0.3500])
    """
    return log_posteriors.logsumexp(0) - math.log(len(log_posteriors))


class FusedEmbedding(SongEmbedding):
    """``embedding_model``: songs to the embeddings of several models, side by side.

    Songs are cut once, into batches of the first model's size, and each batch passes
    through all models before the next is cut.

    Arguments
    ---------
    models : list of SongEmbedding
        The models, which cut songs alike.

    Example
    -------
    >>> from ms_sincresnet import MSSincResNet
    >>> systems = [MSSincResNet(n_filters=8, pooling=name) for name in ("spp", "avg")]
    >>> embed = FusedEmbedding([SongEmbedding(system) for system in systems]).eval()
    >>> embed(torch.randn(1, 64000)).shape  # 2560 numbers a clip and 512
    torch.Size([1, 3, 3072])
    """

    def __init__(self, models):
        first, *others = models
        names = ("clip_samples", "hop_samples", "batch_size", "full_scale")
        super().__init__(first, **{name: getattr(first, name) for name in names})
        self.others = nn.ModuleList(others)

    def _embed_stretches(self, stretches):
        """Embeddings of the clips of some stretches of songs, as one batch."""
        models = [super()._embed_stretches, *(m._embed_stretches for m in self.others)]
        return torch.cat([embed(stretches) for embed in models], dim=1)


class FusedClassifier(nn.Module):
    """The classifiers of several models, for embeddings that stand side by side.

    Arguments
    ---------
    classifiers : list of torch.nn.Module
        Embeddings [batch, clips, size] to log-posteriors [batch, clips, n_genres].
    sizes : list of int
        Numbers of each model's embedding.
    orders : list of list of int
        For each model, which of its outputs is the first genre, the second …

    Example
    -------
    >>> from ms_sincresnet import GenreMLP
    >>> classifiers = [GenreMLP(2560, n_genres=2), GenreMLP(512, n_genres=2)]
    >>> classify = FusedClassifier(classifiers, [2560, 512], [[0, 1], [1, 0]])
    >>> classify(torch.randn(1, 55, 3072)).shape
    torch.Size([1, 55, 2])
    """

    def __init__(self, classifiers, sizes, orders):
        super().__init__()
        self.classifiers = nn.ModuleList(classifiers)
        self.sizes = sizes
        self.orders = orders

    def forward(self, embeddings):
        """Log-posteriors of embeddings.

        Arguments
        ---------
        embeddings : torch.Tensor [batch, clips, sum of sizes]
            What ``FusedEmbedding`` returns.

        Returns
        -------
        torch.Tensor [batch, clips, n_genres]
            Log-posteriors by all models.
        """
        parts = embeddings.split(self.sizes, dim=-1)
        models = zip(self.classifiers, parts, self.orders, strict=True)
        log_posteriors = [
            classify(part)[..., order] for classify, part, order in models
        ]
        return sum_rule(torch.stack(log_posteriors))


def fuse(sources, models):
    """Several models as one, which decides on songs by the mean of all posteriors.

    Arguments
    ---------
    sources : list of str or pathlib.Path
        What the models were loaded from, for the error.
    models : list of GenreClassifier
        The models. They may number the same genres differently.

    Returns
    -------
    modules : dict of str to torch.nn.Module
        The ``modules`` of a ``GenreClassifier``.
    hparams : dict
        Its ``hparams``: the first model's, with the voting "mean".

    Raises
    ------
    ModelFolderError
        If the models differ in sample rate, clips or genres.

    Example
    -------
    >>> from ms_sincresnet import GenreClassifier, MSSincResNet
    >>> from ms_sincresnet.pretrained.model_folder import save_model_folder
    >>> folder = getfixture("tmp_path") / "model"
    >>> save_model_folder(folder, MSSincResNet(2, n_filters=8), ["jazz", "rock"])
    >>> model = GenreClassifier.from_hparams(folder)
    >>> modules, hparams = fuse([folder, folder], [model, model])
    >>> modules["classifier"].classifier.sizes, hparams["voting"]
    ([2560, 2560], 'mean')
    """
    for source, model in zip(sources, models, strict=True):
        _check_alike(source, model, sources[0], models[0])
    names = _genres(models[0])
    embeddings = [model.mods.embedding_model for model in models]
    classifier = FusedClassifier(
        [model.mods.classifier.classifier for model in models],
        [embedding.embedding.embedding_size for embedding in embeddings],
        [[_genres(model).index(name) for name in names] for model in models],
    )
    modules = {
        **models[0].mods,
        "embedding_model": FusedEmbedding(embeddings),
        "classifier": VotingClassifier(SimpleNamespace(classifier=classifier), "mean"),
    }
    return modules, {**vars(models[0].hparams), "voting": "mean"}


def _check_alike(source, model, first_source, first):
    """Raises if a model cannot be fused with the first."""
    traits, expected = _traits(model), _traits(first)
    for name, trait in traits.items():
        if trait != expected[name]:
            raise ModelFolderError(
                f"{source}: cannot be fused with {first_source}: models must agree in "
                f"{name}; found {trait} here and {expected[name]} there"
            )


def _traits(model):
    """What models that are fused must agree in."""
    names = ("sample_rate", "clip_samples", "hop_samples")
    traits = {name: getattr(model.hparams, name) for name in names}
    return traits | {"genres": ", ".join(sorted(_genres(model)))}


def _genres(model):
    """Names of a model's genres, in the order of its outputs."""
    names = model.hparams.label_encoder.ind2lab
    return [names[number] for number in range(len(names))]
