"""A reader of pickles that can make plain values and nothing else: it has no way to import or call anything.

`pickletools.genops` of the standard library separates the steps of a pickle; the interpreter below executes those
that build numbers, strings, lists, tuples and dictionaries. A name such as `torch._utils._rebuild_tensor_v2` is looked
up in a table that the caller gives; an unknown name ends the reading, with the name in the error.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

# A tensor takes about forty steps, so this is for some 50,000 of them; the bound keeps a hostile file from filling
# the memory, since one byte can ask for a whole list.
MAX_STEPS = 2_000_000
_MAX_KEY = 2**53  # whole numbers beyond may be chosen to collide in a dictionary


class PickleError(ValueError):
    """The pickle is damaged, or asks for more than plain values."""


class _Mark:
    """Stands on the stack where a list, tuple or dictionary begins."""


_MARK = _Mark()
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(
    file: io.BytesIO,
    makers: Mapping[str, Callable[..., Any] | Any],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value of the pickle that begins where `file` stands; `file` is left behind it.

    Args:
        file: the bytes.
        makers: the objects of global names such as `collections.OrderedDict`. A function is called when the pickle
            calls the name; any other value is only ever passed on.
        persistent: makes a value out of a persistent id (PyTorch: a storage).

    Raises:
        PickleError: damaged, or not made of plain values and `makers` alone.
    """
    return _Interpreter(makers, persistent).run(file)


class _Interpreter:
    def __init__(self, makers: Mapping[str, Any], persistent: Callable[[Any], Any] | None) -> None:
        self.makers = makers
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: io.BytesIO) -> Any:
        try:
            for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
                if step >= MAX_STEPS:
                    raise PickleError(f"it takes more than {MAX_STEPS:,} steps to build")
                if opcode.name == "STOP":
                    return self._pop()
                self._step(opcode.name, argument)
        except PickleError:
            raise
        except (ValueError, IndexError, KeyError, OverflowError, UnicodeError) as error:
            raise PickleError(f"its pickle is damaged ({error})") from None
        raise PickleError("its pickle has no end")

    def _step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _SHORT_TUPLES:
            items = [self._pop() for _ in range(_SHORT_TUPLES[name])]
            self.stack.append(tuple(reversed(items)))
        else:
            step = _STEPS.get(name)
            if step is None:
                raise PickleError(f"its pickle uses {name}, which no tensor needs")
            step(self, argument)

    # ── the stack ──

    def _pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise PickleError("its pickle is damaged (a mark where a value should be)")
        return value

    def _to_mark(self) -> list[Any]:
        """Remove the values above the last mark, and the mark."""
        items: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            items.append(value)
        return items[::-1]

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise PickleError(f"its pickle is damaged (no {kind.__name__} where one should be)")
        return self.stack[-1]

    def _remember(self, slot: int) -> None:
        if self.stack[-1] is _MARK:
            raise PickleError("its pickle is damaged (a mark where a value should be)")
        self.memo[slot] = self.stack[-1]

    def _fill(self, items: list[Any]) -> None:
        target = self._top(dict)
        if len(items) % 2:
            raise PickleError("its pickle is damaged (a key without a value)")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys could be made to collide, or contain themselves; no checkpoint has them.
            if not isinstance(key, str | int) or (isinstance(key, int) and abs(key) > _MAX_KEY):
                raise PickleError(f"it has a dictionary with a {type(key).__name__} as a key")
            target[key] = value

    # ── the steps that are more than a value ──

    def append(self, _: Any) -> None:
        value = self._pop()
        self._top(list).append(value)

    def appends(self, _: Any) -> None:
        items = self._to_mark()
        self._top(list).extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._fill([key, value])

    def set_items(self, _: Any) -> None:
        self._fill(self._to_mark())

    def make_dict(self, _: Any) -> None:
        items = self._to_mark()
        self.stack.append({})
        self._fill(items)

    def make_list(self, _: Any) -> None:
        self.stack.append(self._to_mark())

    def make_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._to_mark()))

    def mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def pop(self, _: Any) -> None:
        self.stack.pop()

    def pop_mark(self, _: Any) -> None:
        self._to_mark()

    def put(self, slot: Any) -> None:
        self._remember(int(slot))

    def memoize(self, _: Any) -> None:
        self._remember(len(self.memo))

    def get(self, slot: Any) -> None:
        self.stack.append(self.memo[int(slot)])

    def look_up(self, name: Any) -> None:
        self._push_named(str(name).replace(" ", ".", 1))

    def stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise PickleError("its pickle is damaged (a global without a name)")
        self._push_named(f"{module}.{name}")

    def reduce(self, _: Any) -> None:
        arguments, maker = self._pop(), self._pop()
        if not isinstance(arguments, tuple) or not callable(maker):
            raise PickleError("its pickle is damaged (a call of something that is not a function)")
        try:
            self.stack.append(maker(*arguments))
        except TypeError:
            raise PickleError("its pickle is damaged (a call with the wrong number of arguments)") from None

    def build(self, _: Any) -> None:
        # PyTorch hangs a note on the versions of the modules on a state dict; nothing here needs it.
        state = self._pop()
        self._top(dict)
        if not isinstance(state, dict):
            raise PickleError("its pickle is damaged (a state that is not a dictionary)")

    def persistent_id(self, _: Any) -> None:
        if self.persistent is None:
            raise PickleError("its pickle is damaged (a storage where none can be)")
        self.stack.append(self.persistent(self._pop()))

    def nothing(self, _: Any) -> None:
        """The protocol's number and the frames: a hint to faster readers."""

    def _push_named(self, name: str) -> None:
        if name not in self.makers:
            raise PickleError(f"it refers to {name[:200]!r}, which is not part of a tensor, so nothing of it is read")
        self.stack.append(self.makers[name])


_STEPS: dict[str, Callable[[_Interpreter, Any], None]] = {
    "PROTO": _Interpreter.nothing, "FRAME": _Interpreter.nothing,
    "MARK": _Interpreter.mark, "POP": _Interpreter.pop, "POP_MARK": _Interpreter.pop_mark,
    "APPEND": _Interpreter.append, "APPENDS": _Interpreter.appends, "LIST": _Interpreter.make_list,
    "SETITEM": _Interpreter.set_item, "SETITEMS": _Interpreter.set_items, "DICT": _Interpreter.make_dict,
    "TUPLE": _Interpreter.make_tuple,
    "PUT": _Interpreter.put, "BINPUT": _Interpreter.put, "LONG_BINPUT": _Interpreter.put,
    "MEMOIZE": _Interpreter.memoize,
    "GET": _Interpreter.get, "BINGET": _Interpreter.get, "LONG_BINGET": _Interpreter.get,
    "GLOBAL": _Interpreter.look_up, "STACK_GLOBAL": _Interpreter.stack_global,
    "REDUCE": _Interpreter.reduce, "BUILD": _Interpreter.build, "BINPERSID": _Interpreter.persistent_id,
}  # fmt: skip
