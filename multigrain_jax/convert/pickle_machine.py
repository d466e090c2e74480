"""Reads a pickle's instructions as data: nothing that it names is imported or called.

Python's own unpickler calls what a file names, and asks for memory by numbers that the
file states. Here `pickletools` decodes the instructions of protocol 2, names stay
names, and the few that may be "called" are answered by functions that the reader of a
file format lists.
"""

import pickletools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import IO, Any

MAX_INSTRUCTIONS = 2_000_000  # a state dict takes about 32 for each tensor
# Calls with the same long list, over and over, are how a small file would take hours:
# they may copy this many times what the file has bytes.
MAX_COPIES = 16
MAX_KEY = 2**60  # above, any number of integers have the same hash
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT")
_STRINGS = ("BINUNICODE", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES")
_LITERALS = frozenset(_NUMBERS + _STRINGS)
_SIZED = (str, bytes, list, tuple, dict, set)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class UnreadableError(ValueError):
    """A file that is damaged, or does what a weight file does not."""


class ForbiddenName(UnreadableError):
    """A pickle that names something that is not listed."""

    def __init__(self, name: str):
        super().__init__(name)
        self.name = name if name.isprintable() and len(name) < 200 else ascii(name[:99])


@dataclass(frozen=True)
class Name:
    """A class or function as the pickle names it, `module.name`."""

    dotted: str


class Attributes(dict[str, Any]):
    """What is left of an object whose class is not loaded: its attributes."""


@dataclass(frozen=True)
class Rules:
    """What a pickle may do.

    Attributes:
        calls: dotted name -> what answers a call of it; None: it may be named only.
        reference: answers the pickle's references to what lies outside of it.
        attribute_classes: dotted names of classes, or patterns (`a.b.*`); an object of
            one becomes its `Attributes`.
        stateful: types of answers that take a state (`__setstate__`).
    """

    calls: Mapping[str, Callable[..., Any] | None]
    reference: Callable[[Any], Any] | None = None
    attribute_classes: Sequence[str] = ()
    stateful: tuple[type, ...] = ()

    def is_attribute_class(self, dotted: str) -> bool:
        """Whether objects of the class are read as their attributes."""
        return any(fnmatchcase(dotted, each) for each in self.attribute_classes)


def read_pickle(file: IO[bytes], rules: Rules) -> Any:
    """The object of the pickle that begins where `file` stands; it is read to its end.

    Raises:
        ForbiddenName: a name that is not listed.
        UnreadableError: damaged, too long, or an instruction that is not read here.
    """
    machine = _Machine(rules)
    start, number = file.tell(), 0
    try:
        for instruction, argument, position in pickletools.genops(file):
            number += 1
            if number > MAX_INSTRUCTIONS:
                raise UnreadableError(
                    f"a pickle of more than {number - 1:,} instructions"
                )
            if instruction.name == "STOP":
                return machine.result()
            machine.num_bytes = (position or 0) - start
            machine.step(instruction.name, argument)
    except UnreadableError:
        raise
    except Exception as error:
        # What is damaged may be wrong in any way: too few on the stack, no such entry
        # of the memo, an answer that is given the wrong things.
        reason = f"{type(error).__name__}: {error}"[:120]
        raise UnreadableError(f"instruction {number}, {reason}") from error
    raise UnreadableError("a pickle without an end")


def make_dict(content: Mapping[Any, Any] | Iterable[Any] = ()) -> dict[Any, Any]:
    """What a dictionary of any kind becomes, from a mapping or pairs."""
    pairs = content.items() if isinstance(content, Mapping) else content
    return {_checked_key(key): value for key, value in pairs}


def make_set(content: Iterable[Any] = ()) -> set[Any]:
    """What a set becomes."""
    return {_checked_key(value) for value in content}


def expect(value: Any, kind: type) -> Any:
    """The value, if it is of that kind."""
    if not isinstance(value, kind):
        raise UnreadableError(
            f"a {type(value).__name__} where a {kind.__name__} belongs"
        )
    return value


def _checked_key(key: Any) -> Any:
    # Not tuples: their hash recurses, and Python does not survive deep ones.
    is_plain = key is None or isinstance(key, str | int | float)
    if not is_plain or (isinstance(key, int) and abs(key) >= MAX_KEY):
        raise UnreadableError(f"a {type(key).__name__} as the key of a dictionary")
    return key


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, rules: Rules):
        self.rules = rules
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.num_bytes = 0
        self.num_copied = 0

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            items = [self.stack.pop() for _ in range(_TUPLES[name])]
            self.stack.append(tuple(reversed(items)))
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name != "PROTO":
            raise UnreadableError(f"the instruction {name}, which is not read here")

    def result(self) -> Any:
        if self.outer or len(self.stack) != 1:
            raise UnreadableError("an unfinished object")
        return self.stack.pop()

    def mark(self, _: None) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def pop_mark(self, _: None = None) -> list[Any]:
        items = self.stack
        self.stack = self.outer.pop()
        return items

    def make_tuple(self, _: None) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def append(self, _: None) -> None:
        item = self.stack.pop()
        expect(self.stack[-1], list).append(item)

    def appends(self, _: None) -> None:
        items = self.pop_mark()
        expect(self.stack[-1], list).extend(items)

    def set_item(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        expect(self.stack[-1], dict)[_checked_key(key)] = value

    def set_items(self, _: None) -> None:
        items = self.pop_mark()
        pairs = zip(items[::2], items[1::2], strict=True)
        expect(self.stack[-1], dict).update(make_dict(pairs))

    def push_name(self, argument: str) -> None:
        dotted = argument.replace(" ", ".", 1)
        if dotted not in self.rules.calls and not self.rules.is_attribute_class(dotted):
            raise ForbiddenName(dotted)
        self.stack.append(Name(dotted))

    def push_reference(self, _: None) -> None:
        if self.rules.reference is None:
            raise UnreadableError("a reference to what lies outside of the pickle")
        self.stack.append(self.rules.reference(self.stack.pop()))

    def reduce(self, _: None) -> None:
        arguments = expect(self.stack.pop(), tuple)
        dotted = expect(self.stack.pop(), Name).dotted
        if not arguments and self.rules.is_attribute_class(dotted):
            self.stack.append(Attributes())
            return
        call = self.rules.calls.get(dotted)
        if call is None:
            raise UnreadableError(f"a call of {dotted}")
        self.count(arguments)
        self.stack.append(call(*arguments))

    def build(self, _: None) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Attributes):
            self.count((state,))
            target.update(make_dict(expect(state, dict)))
        elif isinstance(target, self.rules.stateful):
            self.count(expect(state, tuple))
            target.__setstate__(state)
        else:  # what programs hang on a dictionary, as torch its `_metadata`
            expect(target, dict)

    def count(self, arguments: tuple[Any, ...]) -> None:
        """Adds what a call may copy to what was copied before."""
        sized = [value for value in arguments if isinstance(value, _SIZED)]
        self.num_copied += len(arguments) + sum(map(len, sized))
        if self.num_copied > MAX_COPIES * self.num_bytes:
            raise UnreadableError("calls that copy the same things over and over")


_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "MARK": _Machine.mark,
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": _Machine.pop_mark,
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "TUPLE": _Machine.make_tuple,
    "GLOBAL": _Machine.push_name,
    "BINPERSID": _Machine.push_reference,
    "NEWOBJ": _Machine.reduce,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
