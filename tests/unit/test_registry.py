import pytest

from east.errors import EastError
from east.parameters import Epochs, Fraction
from east.registry import Facts, Kind, described_arguments


class Colours(Facts):
    colour: str = "grey"


def kind():
    return Kind("things", "thing", "things", home="east.registry", takes=("layer",), gives="a thing", facts=Colours)


def test_what_follows_the_star_of_a_function_is_the_schema_of_its_entry():
    things = kind()

    @things(paper="a paper", colour="red")
    def first(layer, *, share: Fraction = 0.5, length: Epochs):
        """What it does.

        Args:
            layer: not a parameter.
            share: of something
                in two lines.
        """
        return layer, share, length

    entry = things["first"]
    share, length = entry.parameters
    assert (entry.summary, entry.paper, entry.facts.colour) == ("What it does.", "a paper", "red")
    assert (share.name, share.default, share.meaning) == ("share", 0.5, "of something in two lines")
    assert (length.name, length.is_required, length.unit) == ("length", True, "epochs")
    assert entry.bind({"length": 3})("layer") == ("layer", 0.5, 3)
    assert entry.place == f"{__file__}:{first.__code__.co_firstlineno}"
    assert entry.checked({"share": 0.5, "length": 3}) == {"length": 3}


def test_a_parameter_without_a_default_must_be_given():
    things = kind()

    @things
    def first(layer, *, length: Epochs):
        return length

    with pytest.raises(ValueError, match="'length' of thing 'first' must be given"):
        things["first"].bind({})


def test_an_object_of_a_class_is_called_and_its_constructor_has_the_parameters():
    things = kind()

    @things
    class BigThing:
        """A class."""

        def __init__(self, *, size: int = 2) -> None:
            self.size = size

        def __call__(self, layer):
            return self.size * layer

    assert things["big_thing"].bind({"size": 5})(2) == 10


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"share": 2}, "share"),
        ({"share": True}, "share"),
        ({"share": "some"}, "share"),
        ({"shares": 0.1}, "no parameter 'shares'; it has share"),
    ],
)
def test_parameters_are_checked(given, said):
    things = kind()

    @things
    def first(layer, *, share: Fraction = 0.5):
        return share

    with pytest.raises(ValueError, match=said):
        things["first"].bind(given)


@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        lambda layer, other: None,
        type("Thing", (), {"__init__": lambda self, size: None, "__call__": lambda self, layer: None}),
        type("Thing", (), {}),
    ],
    ids=["nothing", "too many", "a class with positional parameters", "a class that is not called"],
)
def test_a_signature_that_a_kind_does_not_call_is_refused_with_its_place(function):
    with pytest.raises(EastError, match=r"is called with \(layer\)"):
        kind()(function, name="thing")


def test_names_and_facts_are_checked():
    things = kind()
    things(lambda layer: None, name="thing")
    with pytest.raises(ValueError, match="two things called 'thing'"):
        things(lambda layer: None, name="thing")
    with pytest.raises(EastError, match="small letters"):
        things(lambda layer: None, name="A thing")
    with pytest.raises(EastError, match="shape"):
        things(name="other", shape="round")(lambda layer: None)
    with pytest.raises(EastError, match="'plugin'"):
        things(lambda layer, *, plugin=1: None, name="other")
    with pytest.raises(EastError, match="no thing 'other'"):
        things.find("other")
    with pytest.raises(EastError, match=r"0{12}.* not loaded"):
        things.find("thing", "0" * 64)


def test_a_docstring_without_arguments_says_nothing_of_them():
    assert described_arguments("What it does.") == {}
    assert described_arguments("What.\n\nArgs:\n    one (int): first.\n\nReturns:\n    two: no.") == {"one": "first"}
