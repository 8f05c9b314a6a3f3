"""A network with all that another machine needs to use it, saved and loaded by huggingface_hub.

A folder holds `config.json`, `model.safetensors` with the network's own names, and `README.md`, the
model card. Nothing in it is ever unpickled or run, whoever wrote it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, snapshot_download
from jaxtyping import Float
from torch import Tensor, nn

from towernet import files
from towernet.engine.checkpoint import weights_digest, write_weights
from towernet.engine.device import Policy
from towernet.errors import ConfigError, DataError, EnvironmentFault, in_one_line
from towernet.hub.card import model_card
from towernet.hub.config import SavedConfig, read_config, write_config
from towernet.hub.evidence import Evidence, evidence
from towernet.models.catalogue import build
from towernet.models.foreign import fit, read_foreign
from towernet.names import NetworkName
from towernet.predict import Predictor, Trained, load_trained
from towernet.records.contract import Contract

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
_META = {"format": files.FORMAT}


class HubNetwork(nn.Module, PyTorchModelHubMixin, library_name="towernet"):
    """Any network by name, with its class contract, to save, load and publish.

    `save_pretrained(folder)`, `from_pretrained(folder)` and `push_to_hub("me/name")` are
    huggingface_hub's. `from_run` takes a trained run, and tells in the model card what is known of
    its data and accuracy. One of our own networks is also read by timm (see `register_with_timm`):
    `timm.create_model("local-dir:folder", pretrained=True)`.

    Args:
        name: As `towernet models` calls it, or with attention: "resnet18+se".
        contract: Class names, image size, and how an image becomes the network's input.
        temperature: What logits are divided by, so that it is as sure as it is right.
        threshold: Below this probability it had better not be believed; None where nobody knows.
        card: The model card these weights came with; it is kept while they are as they were.

    Raises:
        UnknownNameError: no network or block has the name.
        ConfigError: the network cannot take images of the contract's size.

    Example:
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
        """Take the network of a trained run, or of a comparison's winner.

        Raises:
            DataError: the folder holds no finished run, or a damaged one.
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
    def from_pretrained(  # type: ignore[override]  # nothing else of a network is to be chosen
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
        """Load what `save_pretrained` wrote; without `download` the network is never asked.

        Args:
            pretrained_model_name_or_path: A folder, or a name on the hub.
            download: Look for what is no folder on the hub.
            force_download: Fetch it although it was fetched before.
            token: For the hub.
            cache_dir: Where it is kept; huggingface_hub's usual place.
            local_files_only: Take what is kept from an earlier download.
            revision: A branch, tag or commit on the hub.

        Raises:
            DataError: there is no such folder, or what it holds is damaged or not ours.
            EnvironmentFault: the hub cannot be asked, or does not have it.
        """
        name = str(pretrained_model_name_or_path)
        folder = Path(name)
        if not folder.is_dir():
            if not (download or local_files_only):
                raise DataError(
                    f"{name} is not a folder; give one that save_pretrained wrote, or say"
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
            except Exception as error:  # a wrong name, no connection, no right: a dozen kinds
                raise EnvironmentFault(
                    f"the Hugging Face hub did not give {name} ({in_one_line(error)[:160]}); check"
                    " the name and the connection, or give a folder"
                ) from error
        return cls._from_folder(folder)

    @classmethod
    def _from_folder(cls, folder: Path) -> HubNetwork:
        if not (folder / CONFIG_FILE).exists():
            raise DataError(
                f"{folder} holds no {CONFIG_FILE}; give a folder that save_pretrained wrote"
            )
        config = read_config(folder / CONFIG_FILE)
        name, contract = config.name, config.contract
        weights = folder / WEIGHTS_FILE
        # Before anything is built: a network is as large as its weights, and those are here.
        num_classes, size_px = len(contract.class_names), contract.size_px
        state = fit(read_foreign(weights), name, num_classes, size_px, path=weights)
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
        """Write the network into a folder; a model card that is there is kept.

        Raises:
            ConfigError: the card that is there speaks of other weights.
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
                    f"{path} does not speak of these weights; choose another folder, or move it"
                    " away and copy what you wrote into the new one"
                )
        saved: str | None = super().save_pretrained(save_directory, **options)
        return saved

    def _save_pretrained(self, save_directory: Path) -> None:
        write_weights(save_directory / WEIGHTS_FILE, self.network.state_dict(), _META)
        saved = SavedConfig(self.name, self.contract, self.temperature, self.threshold)
        write_config(save_directory / CONFIG_FILE, saved)

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """Return the card: what it is, how right, on what data; the licence is left to fill in.

        One that speaks of other weights, as before they were trained further, is not used again.
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
        """Return it made ready for `towernet.predict.predict_files`."""
        policy = Policy("cpu", "float32", True, torch.get_num_threads(), "predict")
        trained = Trained(
            Path(self.name), self.name, self.network, self.contract, policy,
            self.temperature, self.threshold,
        )  # fmt: skip
        return trained.ready()
