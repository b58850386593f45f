"""Every hook of vtp: the one file that a plugin author must read.

A plugin is an installable package with an entry point in the group ``vtp.plugins`` that names a module, by convention
``<package>.plugin``. The module holds functions marked with ``@hookimpl`` and named as below; each gets ``register``
and offers components as ``"module:Class"`` strings, so that listing what is installed imports none of them::

    # my_package/plugin.py
    from vtp import hookimpl

    @hookimpl
    def vtp_register_objectives(register):
        register("my_loss", "my_package.objective:MyLoss")

Options for the command line lie beside it, in ``my_package/conf/<group>/<name>.yaml``. Their keys are the keyword
arguments of the class; an unknown key is an error. What vtp reads of a component stands in :mod:`vtp.contracts`, and
:mod:`vtp.testing` checks it. A constructor with a parameter named ``context`` also gets a
:class:`vtp.model.build.BuildContext`. Two plugins that offer one name are an error that names both.
"""

from __future__ import annotations

from typing import Any, Protocol

import pluggy

__all__ = ["HOOKS", "Register", "hookimpl", "hookspec"]

hookspec = pluggy.HookspecMarker("vtp")
hookimpl = pluggy.HookimplMarker("vtp")

# hook name -> kind of component it registers
HOOKS = {
    "vtp_register_encoders": "encoder",
    "vtp_register_objectives": "objective",
    "vtp_register_datasets": "dataset",
    "vtp_register_tasks": "task",
    "vtp_register_forms": "form",
    "vtp_register_decoders": "decoder",
    "vtp_register_samplers": "sampler",
    "vtp_register_transforms": "transform",
    "vtp_register_importers": "importer",
    "vtp_register_callbacks": "callback",
    "vtp_register_commands": "command",
}


class Register(Protocol):
    """What a hook is given: ``register(name, target, **facts)`` with ``target`` a ``"module:attribute"`` string."""

    def __call__(self, name: str, target: str, **facts: Any) -> None: ...


@hookspec
def vtp_register_encoders(register: Register) -> None:
    """Offer encoders for the slots ``text``, ``video``, ``audio`` and ``fusion``.

    An encoder is an ``nn.Module`` that maps the tensors of its modality to :class:`vtp.types.Tokens`
    (:class:`vtp.contracts.Encoder`); a fusion encoder maps a dict of Tokens to :class:`vtp.types.Fused`
    (:class:`vtp.contracts.Fusion`). Options: ``conf/encoder/<slot>/<name>.yaml``.

    Example::

        register("videomae", "my_package.videomae:VideoMAE", slot="video")
    """


@hookspec
def vtp_register_objectives(register: Register) -> None:
    """Offer objectives (training losses): :class:`vtp.model.objective.Objective` modules with their own head, see
    :class:`vtp.contracts.Objective`.

    Options: ``conf/objective/<name>.yaml``, first line ``# @package objectives.<name>``; chosen with
    ``objective=[vtc,my_loss]`` and weighted with ``objectives.my_loss.weight=0.5``.

    Example::

        register("my_loss", "my_package.objective:MyLoss")
    """


@hookspec
def vtp_register_datasets(register: Register) -> None:
    """Offer data sets: classes with ``samples(kind, split)`` that give :class:`vtp.types.Sample` tables, see
    :class:`vtp.contracts.Dataset`. Options: ``conf/dataset/<name>.yaml``.

    Example::

        register("my_data", "my_package.data:MyData")
    """


@hookspec
def vtp_register_tasks(register: Register) -> None:
    """Offer tasks: what is trained on, how scores become predictions, and the protocol they are measured by, see
    :class:`vtp.contracts.Task`. Options: ``conf/task/<name>.yaml``.

    Several option files may use one task class: a new benchmark is one such file and a protocol file.

    Example::

        register("counting", "my_package.counting:CountingTask")
    """


@hookspec
def vtp_register_forms(register: Register) -> None:
    """Offer forms of tasks: what the ``kind`` of a task and of a protocol file may be, beside ``retrieval``, ``qa`` and
    ``mc``. A form is a function that gives the canonical lines of a sample, usually one; ``counted`` is the plural noun
    for them. By these lines a protocol recognises the items of a benchmark, see :mod:`vtp.eval.forms`.

    Example::

        register("caption", "my_package.forms:captions", counted="captions")
    """


@hookspec
def vtp_register_decoders(register: Register) -> None:
    """Offer media decoders for ``media.backend=<name>``: a class with ``name``, ``probe(ref)`` and
    ``read(ref, wanted)`` as :class:`vtp.contracts.Decoder` says; ``wanted`` is a :class:`vtp.media.Wanted`.

    Example::

        register("torchcodec", "my_package.decoder:TorchcodecBackend")
    """


@hookspec
def vtp_register_samplers(register: Register) -> None:
    """Offer frame samplers for ``data.sampler=<name>``: functions ``(info, *, frames, stride, generator)`` that choose
    the frames of a clip, as :class:`vtp.contracts.Sampler` says.

    They run in loader workers and must be picklable, as any function of a module is.

    Example::

        register("my_window", "my_package.sampling:my_window")
    """


@hookspec
def vtp_register_transforms(register: Register) -> None:
    """Offer transforms of frames, sound or texts (``modality="video"``, ``"audio"`` or ``"text"``) for
    ``data.transforms.video=[<name>]``: classes whose instances map ``(value, *, generator)`` to the changed value, as
    :class:`vtp.contracts.Transform` says. They run in loader workers, in training only unless they say otherwise.

    Example::

        register("hide_stretches", "my_package.sound:HideStretches", modality="audio")
    """


@hookspec
def vtp_register_importers(register: Register) -> None:
    """Offer importers of foreign checkpoints for ``vtp import <name> FILE OUT``: functions ``(path, **options)`` that
    give a specification, tensors and a report, see :class:`vtp.contracts.Importer`.

    Example::

        register("simvtp", "vtp_simvtp.importer:import_simvtp")
    """


@hookspec
def vtp_register_callbacks(register: Register) -> None:
    """Offer watchers of training: subclasses of :class:`vtp.train.callbacks.Callback`, which lists the events. Only
    those run that the configuration names: ``callbacks=[my_log]``, or ``'callbacks=[{name: my_log, every: 10}]'`` with
    options.

    Example::

        register("my_log", "my_package.watch:MyLog")
    """


@hookspec
def vtp_register_commands(register: Register) -> None:
    """Offer subcommands: ``target(arguments: list[str]) -> int`` is called for ``vtp <name> ...`` and returns the exit
    code.

    Example::

        register("reconstruct", "vtp_simvtp.reconstruct:main", help="picture what a masked autoencoder fills in")
    """
