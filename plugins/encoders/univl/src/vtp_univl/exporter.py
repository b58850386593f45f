"""``vtp export antmmf CHECKPOINT OUT``: a vtp checkpoint with the names that AntMMF has, for its programs.

The way back of :mod:`vtp_univl.importer`: names that AntMMF has twice are written twice, tensors that nothing reads are
written as they were read, and where the folder still has its ``import_report.json``, prefixes and optional names are
those of the file that was imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vtp.cli.arguments import key_values
from vtp.components import check_options, refuse
from vtp.errors import ConfigError, DataError
from vtp_univl.keys import ALIASES, backbone_kind, copies_of, standard_prefix, to_theirs

if TYPE_CHECKING:
    from vtp.model.model import VTPModel

__all__ = ["antmmf_state", "main"]

USAGE = """vtp export antmmf: write a checkpoint for AntMMF.

usage: vtp export antmmf CHECKPOINT OUT [OPTION=VALUE ...]

  CHECKPOINT   a vtp checkpoint or run folder with a univl model
  OUT          a new file for torch.load: a dict of tensors by AntMMF's names

  form=pretraining|finetuning   what stands in front of the names; by default as they were imported, or pretraining
                                where the model has objectives of pre-training
  sequence=true                 number the stages of a ResNet, as AntMMF does with gradient_checkpointing: null
"""
OWN_STATE = (r".*\.updates", r".*_identity", r"encoders\.video\.carried\..*", r".*\.module\.carried\..*")
PRETRAINING = ("mlm", "mlm_text", "itm")


def main(arguments: list[str]) -> int:
    """Convert, and say how many tensors were written."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    paths = [argument for argument in arguments if "=" not in argument]
    if len(paths) != 2 or not all(path.strip() and not path.startswith("-") for path in paths):
        raise ConfigError(
            f"expected antmmf CHECKPOINT OUT, got antmmf {' '.join(arguments)}. `vtp export antmmf --help` explains."
        )
    options = key_values([argument for argument in arguments if "=" in argument])
    problems: list[str] = []
    check_options("", "antmmf", antmmf_state, options, problems, given=("model", "layout"))
    refuse(problems)
    out = Path(paths[1]).expanduser()
    if out.exists():
        raise DataError(f"{out} exists already. Give the name of a new file, or remove it first.")
    if not out.parent.is_dir():
        raise DataError(f"there is no folder {out.parent} to write {out.name} into.")
    model, layout = _read(Path(paths[0]).expanduser())
    state = antmmf_state(model, layout, **options)
    unfinished = out.with_name(f".{out.name}.part")
    torch.save(state, unfinished)
    unfinished.replace(out)
    unique = len({tensor.data_ptr() for tensor in state.values()})
    print(f"{len(state)} names of {unique} tensors written to {out}")
    return 0


def _read(path: Path) -> tuple[VTPModel, dict[str, Any]]:
    """A model, and how the file that it was imported from was laid out."""
    from vtp.model.build import lookup_in
    from vtp.model.weights import load_model
    from vtp.plugins import host
    from vtp.run.start import checkpoint_folder

    folder = checkpoint_folder(path)
    model = load_model(folder, lookup_in(host().registry))
    report = folder / "import_report.json"
    if not report.is_file():
        return model, {}
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{report} cannot be read ({error}). Copy it again, or remove it.") from error
    layout = found.get("layout") if isinstance(found, dict) else None
    return model, layout if isinstance(layout, dict) else {}


def antmmf_state(
    model: VTPModel, layout: Mapping[str, Any] | None = None, *, form: str | None = None, sequence: bool | None = None
) -> dict[str, Tensor]:
    """Tensors of a model by AntMMF's names; names of one tensor share it.

    Args:
        model: with the encoders ``univl``.
        layout: of the file that it was imported from, as the report of the import has it.
        form: ``pretraining`` or ``finetuning``, in place of the prefixes of ``layout``.
        sequence: number the stages of a ResNet.

    Raises:
        ConfigError: a part of the model has no place in AntMMF.
    """
    if form not in (None, "pretraining", "finetuning"):
        raise ConfigError(f"form={form} must be pretraining or finetuning.")
    layout = dict(layout or {})
    _check_parts(model)
    state = model.state_dict()
    kind = backbone_kind(
        n.removeprefix("encoders.video.backbone.net.") for n in state if n.startswith("encoders.video.")
    )
    if kind is None:
        raise ConfigError(
            f"AntMMF has no image encoder like backbone={model.spec['encoders']['video'].get('backbone')}. pvt_v2, "
            "swin3d and resnet50 can be exported."
        )
    as_sequence = bool(layout.get("sequence", False)) if sequence is None else sequence
    found, placeless = _renamed(model, state, kind, as_sequence)
    if placeless:
        raise ConfigError(
            f"{len(placeless)} tensors have no place in AntMMF: {', '.join(placeless[:4])}"
            f"{', ...' if placeless[4:] else ''}. Models with projections, a cross encoder of its own, or objectives "
            "of other packages cannot be exported."
        )
    _add_head_copies(found, layout)
    _add_copies(found, layout)
    for name in layout.get("position_ids", []):
        found[name] = torch.arange(len(found["text_encoder.embeddings.position_embeddings.weight"]))[None]
    pretraining = form == "pretraining" or (form is None and any(name in model.objectives for name in PRETRAINING))
    prefixes: Mapping[str, str] = {} if form else layout.get("prefixes", {})
    names = {n: prefixes.get(n.split(".")[0], standard_prefix(n, pretraining=pretraining)) + n for n in found}
    return {names[name]: tensor for name, tensor in found.items()}


def _check_parts(model: VTPModel) -> None:
    for slot in ("text", "video", "fusion"):
        options = (model.spec.get("encoders") or {}).get(slot) or {}
        if options.get("name") != "univl":
            raise ConfigError(f"only models whose text, video and fusion encoders are univl fit AntMMF; {slot} is not.")


def _renamed(
    model: VTPModel, state: Mapping[str, Tensor], kind: str, sequence: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """By their names without prefix, and our names that have none."""
    found: dict[str, Tensor] = {}
    placeless = []
    for name, tensor in state.items():
        if any(re.fullmatch(pattern, name) for pattern in OWN_STATE):
            continue
        theirs = to_theirs(name, kind, sequence=sequence)
        if theirs is None:
            placeless.append(name)
        else:
            found[theirs] = tensor
    for name in model.spec["encoders"]["video"].get("carried") or {}:
        found[name] = state[f"encoders.video.carried.{name.replace('.', '/')}"]
    return found, placeless


def _add_head_copies(found: dict[str, Tensor], layout: Mapping[str, Any]) -> None:
    """The bias of a word head is ``decoder.bias``; beside it stands one that nothing reads, or it alone as ``bias``."""
    for name in [n for n in found if n.endswith("cls.predictions.decoder.bias")]:
        plain = name.replace("decoder.bias", "bias")
        if "decoder_bias" in layout and name not in layout["decoder_bias"] and plain not in found:
            found[plain] = found.pop(name)
        else:
            found.setdefault(plain, found[name])


def _add_copies(found: dict[str, Tensor], layout: Mapping[str, Any]) -> None:
    """Further names of tensors: those of the file that was imported, or all that AntMMF writes."""
    wanted = layout.get("copies", [alias for alias, _ in ALIASES])
    heads = {n.split(".cls.")[0] for n in found if n.startswith("mlm_head.")}
    moco = any(name.startswith("moco_utils.") for name in found)
    for name in list(found):
        for copy in copies_of(name):
            if not any(copy.startswith(alias) for alias in wanted):
                continue
            if copy.startswith("mlm_head.") and copy.split(".cls.")[0] not in heads:
                continue
            if not copy.startswith("moco_utils.") or moco:
                found[copy] = found[name]
