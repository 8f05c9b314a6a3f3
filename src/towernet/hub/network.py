"""A network with all that another machine needs to use it, saved and loaded with huggingface_hub.

A folder holds `config.json`, `model.safetensors` with the network's own names, and `README.md`, the
model card. Nothing in it is unpickled or run, so it can come from anyone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, PyTorchModelHubMixin, snapshot_download
from jaxtyping import Float
from torch import Tensor, nn

from towernet import files
from towernet.engine.checkpoint import weights_digest, write_weights
from towernet.engine.device import Policy, default_threads
from towernet.errors import ConfigError, DataError, EnvironmentFault, first_line_of
from towernet.hub.card import model_card
from towernet.hub.config import SavedConfig, read_config, write_config
from towernet.hub.evidence import Evidence, evidence
from towernet.models.catalogue import build
from towernet.models.foreign import read_foreign
from towernet.models.foreign_fit import fit
from towernet.names import NetworkName
from towernet.predict import Predictor, Trained, load_trained
from towernet.records.contract import Contract

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
_META = {"format": files.FORMAT}


class HubNetwork(nn.Module, PyTorchModelHubMixin, library_name="towernet"):
    """Any network by name, with its class contract, to save, load and publish.

    `save_pretrained(folder)`, `from_pretrained(folder)` and `push_to_hub("me/name")` are
    huggingface_hub's. `from_run` takes a trained run, and describes its data and accuracy in the
    model card. timm can also load the built-in networks (see `register_with_timm`):
    `timm.create_model("local-dir:folder", pretrained=True)`.

    Args:
        name: A name from `towernet models`, optionally with attention: "resnet18+se".
        contract: Class names, image size, and how an image becomes the network's input.
        temperature: Divisor of the logits that calibrates the probabilities.
        threshold: Predictions below this probability are flagged "(not sure)"; None if not
            calibrated.
        card: The model card of these weights; it is used as long as they do not change.

    Raises:
        UnknownNameError: no network or block has the name.
        ConfigError: the network cannot take images of the contract's size.

    Example:
        >>> import torch
        >>> mean, std = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
        >>> contract = Contract(("cat", "dog"), 64, "crop", mean, std)
        >>> network = HubNetwork("shufflenet_v2_x0_5+se", contract)
        >>> network(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        name: str,
        contract: Contract,
        *,
        temperature: float = 1.0,
        threshold: float | None = None,
        card: str | None = None,
    ) -> None:
        super().__init__()
        self.name, self.contract = NetworkName(name), contract
        self.temperature, self.threshold, self.card = temperature, threshold, card
        self.network = build(name, len(contract.class_names), contract.size_px)
        self.eval()

    def forward(self, images_B3SS: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B K"]:
        """Return the network's logits for normalised images."""
        logits_BK: Tensor = self.network(images_B3SS)
        return logits_BK

    @classmethod
    def from_run(cls, folder: str | Path) -> HubNetwork:
        """Return the network of a trained run, or of a comparison's winner.

        Raises:
            DataError: the folder contains no finished run, or a damaged one.
        """
        trained = load_trained(Path(folder))
        found = cls(
            trained.name,
            trained.contract,
            temperature=trained.temperature,
            threshold=trained.threshold,
        )
        found.network = trained.model
        found.card = found._new_card(evidence(trained.folder))
        return found

    @classmethod
    def from_pretrained(  # type: ignore[override]  # a saved network has no further options
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        download: bool = False,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
    ) -> HubNetwork:
        """Load a network that `save_pretrained` wrote; only `download=True` uses the internet.

        Args:
            pretrained_model_name_or_path: A folder, or a name on the hub.
            download: Look on the hub for a name that is not a folder.
            force_download: Download it even if it is in the cache.
            token: Access token for the hub.
            cache_dir: Folder of the cache; default: huggingface_hub's.
            local_files_only: Use only the cache.
            revision: A branch, tag or commit on the hub.

        Raises:
            DataError: there is no such folder, or its content is damaged or not from towernet.
            EnvironmentFault: the hub cannot be reached, or does not have it.
        """
        name = str(pretrained_model_name_or_path)
        folder = Path(name)
        if not folder.is_dir():
            if not (download or local_files_only):
                raise DataError(
                    f"{name} is not a folder; give one that save_pretrained wrote, or pass"
                    " download=True to look for it on the Hugging Face hub"
                )
            try:
                folder = Path(
                    snapshot_download(
                        name,
                        allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, CARD_FILE],
                        force_download=force_download,
                        token=token,
                        cache_dir=cache_dir,
                        local_files_only=local_files_only,
                        revision=revision,
                    )
                )
            except Exception as error:  # many kinds: a wrong name, no connection, no permission
                raise EnvironmentFault(
                    f"{name} could not be downloaded from the Hugging Face hub"
                    f" ({first_line_of(error)[:160]}); check the name and the connection, or give a"
                    " folder"
                ) from error
        return cls._from_folder(folder)

    @classmethod
    def _from_folder(cls, folder: Path) -> HubNetwork:
        if not (folder / CONFIG_FILE).exists():
            raise DataError(
                f"{folder} contains no {CONFIG_FILE}; give a folder that save_pretrained wrote"
            )
        config = read_config(folder / CONFIG_FILE)
        name, contract = config.name, config.contract
        weights = folder / WEIGHTS_FILE
        # Checked before the network is built: the size of the file limits the size of the network.
        num_classes, size_px = len(contract.class_names), contract.size_px
        state = fit(read_foreign(weights)[""], name, num_classes, size_px, path=weights)
        found = cls(
            name,
            contract,
            temperature=config.temperature,
            threshold=config.threshold,
        )
        found.network.load_state_dict(state)
        if (path := folder / CARD_FILE).exists():
            found.card = path.read_text(encoding="utf-8", errors="replace")
        return found

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write the network into a folder; an existing model card is kept.

        Raises:
            ConfigError: the existing card describes other weights.
            EnvironmentFault: the system refuses to write.
        """
        path = Path(save_directory) / CARD_FILE
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.refused(path, error) from error
        if path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            if self._digest() not in text:
                raise ConfigError(
                    f"{path} describes other weights; save to another folder, or move this"
                    f" file away and copy your edits into the new {path.name}"
                )
        saved: str | None = super().save_pretrained(save_directory, **options)
        return saved

    def _save_pretrained(self, save_directory: Path) -> None:
        write_weights(save_directory / WEIGHTS_FILE, self.network.state_dict(), _META)
        saved = SavedConfig(self.name, self.contract, self.temperature, self.threshold)
        write_config(save_directory / CONFIG_FILE, saved)

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """Return the model card; the licence is left to fill in.

        An existing card is not used if it describes other weights, for example those before
        further training.
        """
        text = self.card
        if text is None or self._digest() not in text:
            text = self._new_card(None)
        return ModelCard(text, ignore_metadata_errors=True)

    def _new_card(self, known: Evidence | None) -> str:
        num_parameters = sum(parameter.numel() for parameter in self.network.parameters())
        return model_card(self.name, self.contract, known, num_parameters, self._digest())

    def _digest(self) -> str:
        return weights_digest(self.network.state_dict(), _META)

    def predictor(self) -> Predictor:
        """Return a predictor for `towernet.predict.predict_files`."""
        policy = Policy("cpu", "float32", True, default_threads(), "predict")
        trained = Trained(
            Path(self.name), self.name, self.network, self.contract, policy,
            self.temperature, self.threshold,
        )  # fmt: skip
        return trained.ready()
