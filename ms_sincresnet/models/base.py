"""GenreModel: what all systems of Table 1 are, and their way to the Hub."""

from pathlib import Path

from huggingface_hub import PyTorchModelHubMixin
from torch import nn


class GenreModel(nn.Module, PyTorchModelHubMixin):
    """What all systems are: front-end, embedding and classifier in a row.

    A subclass sets these three, and ``config``, the arguments that rebuild it.

    A model of the Hub as well: ``config.json`` and ``model.safetensors``, no pickle and
    no code. The methods are those of huggingface_hub's mixin, and stricter: what does
    not fit to the last name is refused.

    Attributes
    ----------
    settings : dict
        Genres, clips and voting of the model folder that it was loaded from, which are
        saved with it again; else empty.

    Example
    -------
    >>> import torch
    >>> system = GenreModel()
    >>> system.frontend = system.embedding = nn.Identity()
    >>> system.classifier = nn.Linear(3, 10)
    >>> system(torch.randn(2, 1, 3)).shape
    torch.Size([2, 10])
    """

    def __init__(self):
        super().__init__()
        self.settings = {}

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *,
        force_download=False,
        token=None,
        cache_dir=None,
        local_files_only=False,
        revision=None,
        **model_kwargs,
    ):
        """Builds the network that a folder or a repository of the Hub holds.

        Only ``config.json`` and ``model.safetensors`` are read, so it may come from
        anyone.

        Arguments
        ---------
        pretrained_model_name_or_path : str or pathlib.Path
            What ``save_pretrained`` wrote, a model folder, or the name
            ``user/repository`` on the Hub.
        force_download : bool
            Whether to download again what is in the cache.
        token : str or bool, optional
            The Hub's token; the one of ``hf auth login`` by default.
        cache_dir : str or pathlib.Path, optional
            Where downloads are kept.
        local_files_only : bool
            Whether to take what is in the cache and ask no server.
        revision : str, optional
            Branch, tag or commit.
        **model_kwargs : dict
            Arguments of the class that replace the saved ones, such as ``backend``.

        Returns
        -------
        GenreModel
            The network in evaluation mode, on the CPU.

        Raises
        ------
        ModelFolderError
            If there is no such model, or it is another system.
        WeightsError
            If its weights are damaged or do not fit.
        """
        # Files are for the layers above, which stand on this one.
        from ms_sincresnet.models.weights import read_network
        from ms_sincresnet.pretrained.hub import fetch

        folder = fetch(
            pretrained_model_name_or_path,
            force_download=force_download,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            revision=revision,
        )
        return read_network(folder, cls, **model_kwargs)

    def save_pretrained(
        self, save_directory, *, push_to_hub=False, repo_id=None, **options
    ):
        """Writes ``config.json``, ``model.safetensors`` and ``README.md``, or nothing.

        Arguments
        ---------
        save_directory : str or pathlib.Path
            The folder. A ``README.md`` that is there stays.
        push_to_hub : bool
            Whether to push it to the Hub as well.
        repo_id : str, optional
            The repository, named like the folder by default.
        **options : dict
            As in the mixin.

        Returns
        -------
        str or None
            The commit's address if it was pushed.

        Raises
        ------
        ModelFolderError
            If the folder holds files of SpeechBrain's, which would disagree.
        """
        from ms_sincresnet.models.weights import whole_files

        with whole_files(save_directory) as folder:
            super().save_pretrained(folder, **options)
        if push_to_hub:
            return self.push_to_hub(repo_id or Path(save_directory).name, **options)
        return None

    def push_to_hub(self, repo_id, **options):
        """Pushes what ``save_pretrained`` writes to the Hub.

        Arguments
        ---------
        repo_id : str
            The repository, ``user/repository``. It is made if there is none.
        **options : dict
            As in the mixin: ``private``, ``token``, ``commit_message``, ``branch`` …

        Returns
        -------
        str
            The commit's address.

        Raises
        ------
        ModelFolderError
            If the repository holds a model folder, of which SpeechBrain's files would
            disagree, or the Hub cannot be reached or refuses it.
        """
        from ms_sincresnet.pretrained.hub import hub_errors, refuse_model_folder

        with hub_errors(repo_id):
            refuse_model_folder(repo_id, options.get("branch"), options.get("token"))
            return super().push_to_hub(repo_id, **options)

    def generate_model_card(self):
        """The ``README.md`` of a network that is saved without a model folder.

        Returns
        -------
        huggingface_hub.ModelCard
            How to install and load it.
        """
        from ms_sincresnet.pretrained.card import network_card

        return network_card(self)

    def _save_pretrained(self, save_directory):
        """The mixin's hook: writes the network's two files."""
        from ms_sincresnet.models.weights import write_network

        write_network(save_directory, self, self.settings)

    def forward(self, wavs):
        """Log-posteriors of a batch of clips.

        Arguments
        ---------
        wavs : torch.Tensor [batch, time]
            Clips at the system's sample rate, on any scale.

        Returns
        -------
        torch.Tensor [batch, n_genres]
            Log-posteriors.
        """
        return self.classifier(self.embedding(self.frontend(wavs)))[:, 0]
