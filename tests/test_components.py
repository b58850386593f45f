"""One builder for all components: look-up, names and types of options, old names, all problems at once."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import pytest

from vtp import components
from vtp.components import Choice, build, check_options, choose, refuse, renamed_option
from vtp.errors import ConfigError, DataError, PluginError
from vtp.registry import Entry, Registry
from vtp.values import fits, spell

if TYPE_CHECKING:
    from nowhere import Unknown


class Films:
    """A data set whose name is left to the option."""

    renamed: ClassVar[dict[str, str]] = {"folder": "dataset.root=...", "order=random": "dataset.order=shuffled"}

    def __init__(
        self,
        *,
        root: Path | str,
        lists: Sequence[str] = (),
        order: Literal["sorted", "shuffled"] = "sorted",
        share: float = 0.1,
        unknown: "Unknown | None" = None,
        seed: int = 0,
    ) -> None:
        if share > 1:
            raise DataError(f"share={share} is more than there is")
        self.root, self.seed = root, seed

    def samples(self, kind, split):
        return []


class Silent:
    def __init__(self, **anything: int) -> None:
        self.anything = anything

    def sampels(self, kind, split):
        return []


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    for name, cls in (("films", Films), ("silent", Silent)):
        registry.add(Entry("dataset", name, f"{__name__}:{cls.__name__}", "test", "test"))
    return registry


def test_a_component_is_built_with_its_options_and_what_is_given(registry):
    films = build("dataset", {"name": "films", "root": "x"}, registry, seed=7, dataset="not a parameter")
    assert (films.root, films.seed) == ("x", 7)
    assert build("dataset", {"name": "films", "root": "x", "seed": 3}, registry, seed=7).seed == 3


def test_a_data_set_without_a_name_gets_the_one_it_is_registered_under(registry):
    assert build("dataset", {"name": "films", "root": "x"}, registry).name == "films"


def test_everything_that_is_wrong_is_told_at_once(registry):
    options = {"name": "films", "lists": ["a", 3], "ordr": "sorted", "share": "much", "unknown": 1}
    with pytest.raises(ConfigError) as error:
        build("dataset", options, registry)
    assert str(error.value).splitlines() == [
        "4 problems:",
        "  dataset.lists: expected list of str, got ['a', 3]",
        "  dataset: films has no option 'ordr'. Did you mean 'order'? "
        "Options: root, lists, order, share, unknown, seed.",
        "  dataset.share: expected float, got 'much'",
        "  dataset: films needs a value for root. Give dataset.root=...",
    ]


def test_an_unknown_component_is_a_problem_like_others(registry):
    problems: list[str] = []
    load = components.find(registry, "dataset")
    assert choose("dataset", {"name": "flims"}, load, problems) is None
    assert "no plugin offers dataset 'flims'. Did you mean 'films'?" in problems[0]


@pytest.mark.parametrize(
    "options, answer",
    [
        ({"folder": "x"}, "dataset.folder is now dataset.root=..."),
        ({"order": "random"}, "dataset.order=random is now dataset.order=shuffled"),
        ({"order": "odd"}, "dataset.order: expected one of 'sorted', 'shuffled', got 'odd'"),
    ],
)
def test_what_is_renamed_answers_with_the_new_name(registry, options, answer):
    with pytest.raises(ConfigError) as error:
        build("dataset", {"name": "films", "root": "x"} | options, registry)
    assert str(error.value) == answer


def test_what_a_constructor_refuses_can_be_collected(registry):
    problems: list[str] = []
    options = {"name": "films", "root": "x", "share": 2.0}
    assert choose("dataset", options, components.find(registry, "dataset"), problems).build(problems) is None
    assert problems == ["dataset: share=2.0 is more than there is"]
    with pytest.raises(DataError, match=r"^share=2.0"):
        build("dataset", options, registry)


def test_a_component_that_lacks_a_member_is_a_fault_of_its_plugin(registry):
    with pytest.raises(PluginError, match="dataset: silent has no `samples`.*Is `sampels` meant to be it?"):
        build("dataset", {"name": "silent", "any": 3}, registry)


def test_options_that_stand_alone_are_named_alone():
    def read(path: Path, heads: int | None = None) -> None: ...

    problems: list[str] = []
    check_options("", "reader", read, {"heads": "many", "head": 3}, problems, given=("path",))
    assert problems == [
        "heads: expected int or null, got 'many'",
        "reader has no option 'head'. Did you mean 'heads'? Options: heads.",
    ]


def test_nothing_wrong_is_nothing_raised():
    refuse([])
    with pytest.raises(ConfigError, match=r"^one$"):
        refuse(["one"], "the model")
    with pytest.raises(ConfigError, match=r"^2 problems with the model:\n  one\n  two$"):
        refuse(["one", "two"], "the model")


FITTING = [
    (int, 3, True), (int, True, False), (int, 3.0, False), (float, 3, True), (float, False, False), (bool, 1, False),
    (str, "a", True), (str, None, False), (None, None, True), (int | None, None, True), (Any, {1, 2}, True),
    (Path, "a/b", True), (Path, 3, False), (str | Path | Sequence[str | Path], ["a", Path("b")], True),
    (list[str], ["a"], True), (list[str], ("a",), True), (list[str], ["a", 3], False), (list[str], "a", False),
    (Sequence[str], "a", False), (list, [1, "a"], True), (tuple[str, ...], ["a", "b"], True),
    (tuple[str, ...], [1], False), (tuple[float, float], [0.9, 0.95], True), (tuple[float, float], [0.9], False),
    (tuple[float, float], [0.9, "b"], False), (list[str] | tuple[str, ...], ["a"], True), (set[int], [1], True),
    (Mapping[str, float], {"a": 1}, True), (Mapping[str, float], {"a": "b"}, False), (dict[str, int], [1], False),
    (dict, {"a": 1}, True), (Literal["a", 1], "a", True), (Literal["a", 1], True, False), (Literal["a"], "b", False),
    (Annotated[int, "frames"], "a", False), (Callable[[], int], 3, True), (list[list[int]], [[1], ["a"]], False),
]  # fmt: skip


@pytest.mark.parametrize("hint, value, right", FITTING, ids=str)
def test_a_value_fits_its_annotation(hint, value, right):
    assert fits(value, hint) is right


@pytest.mark.parametrize(
    "hint, words",
    [
        (int | None, "int or null"),
        (Literal["a", "b"], "one of 'a', 'b'"),
        (list[str] | tuple[str, ...], "list of str"),
        (str | Path, "str or path"),
        (Mapping[str, float], "mapping of str to float"),
        (tuple[float, float], "list of 2: float, float"),
        (list, "list"),
        (Any, "anything"),
    ],
)
def test_an_annotation_is_told_in_words(hint, words):
    assert spell(hint) == words


def test_files_of_plugins_say_what_an_option_file_is_now(monkeypatch):
    moved = {"objective/old_vtc": "objective=vtc objectives.vtc.queue=0", "data.stride": "encoder.video.stride"}
    monkeypatch.setattr(components, "renamed_options", lambda: moved)
    assert renamed_option("objective/old_vtc") == "objective=old_vtc is now objective=vtc objectives.vtc.queue=0."
    assert renamed_option("objectives.old_vtc.temperature").startswith("objective=old_vtc is now objective=vtc")
    assert renamed_option("data.stride") == "data.stride is now encoder.video.stride."
    assert renamed_option("data.strid") == "" == renamed_option("objective/new")


def test_a_class_says_what_a_key_of_its_node_is_now(monkeypatch, registry):
    from vtp import plugins

    monkeypatch.setattr(plugins, "host", lambda: type("Host", (), {"registry": registry}))
    assert renamed_option("dataset.folder", {"name": "films"}) == "dataset.folder is now dataset.root=...."
    assert renamed_option("dataset.folder", {"name": "nobody"}) == renamed_option("dataset.folder", {}) == ""


def test_an_objective_that_is_not_chosen_says_what_its_key_is_now():
    assert renamed_option("objectives.mlm.probability") == "objectives.mlm.probability is now masks.text.probability."
    assert renamed_option("objectives.nobody.probability") == "" == renamed_option("objectives.mlm")


def test_a_choice_says_what_it_is(registry):
    problems: list[str] = []
    found = choose("dataset", {"name": "films", "root": "x"}, components.find(registry, "dataset"), problems)
    assert found == Choice("dataset", "dataset", "films", Films, {"root": "x"}) and problems == []
