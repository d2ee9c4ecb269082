"""Pickles read as data: a machine for the opcodes that `torch.save` emits, which calls nothing the pickle names.

Python's own unpickler is no place for hostile input even with `find_class` overridden: BUILD writes attributes, a memo
index of four billion allocates as much. This one makes plain values, and asks its caller what a name or a call stands
for. Memory is bounded by counting: see `_Machine.charge`.

Reference for the opcodes: the module `pickletools` of Python.
"""

import struct
from collections.abc import Callable
from typing import Any, NoReturn

from namedtensor.checkpoint._reject import quoted, reject

MAX_BYTES = 16 << 20
_MAX_STACK = 1 << 16
_MARK = object()
Resolve = Callable[[str, str], Any]
Call = Callable[[Any, tuple[Any, ...]], Any]


def load(data: bytes, file: str, *, resolve: Resolve, call: Call, persistent: Callable[[Any], Any]) -> Any:
    """The value that a pickle describes.

    `resolve(module, name)` gives the stand-in for a global, `call(stand_in, arguments)` what calling it makes,
    `persistent(id)` what a persistent id refers to. Each raises for what it does not know.

    Raises `CheckpointError` of one line for anything that a state dict does not need.
    """
    if len(data) > MAX_BYTES:
        reject(file, f"its pickle takes {len(data):,} bytes, more than {MAX_BYTES:,}")
    return _Machine(data, file, resolve, call, persistent).run()


class _Machine:
    def __init__(self, data: bytes, file: str, resolve: Resolve, call: Call, persistent: Callable[[Any], Any]) -> None:
        self.data = data
        self.file = file
        self.at = 0
        self.stack: list[Any] = []
        self.memo: list[Any] = []
        # torch.save makes one object for every seven bytes or more. A pickle of more than one in five has no purpose
        # but to fill memory.
        self.budget = 1000 + len(data) // 5
        self.resolve, self.call, self.persistent = resolve, call, persistent

    def run(self) -> Any:
        operations = _OPERATIONS
        while True:
            code = self.byte()
            if code == _STOP:
                if len(self.stack) != 1 or self.stack[0] is _MARK:
                    self.fail("does not end with one value")
                return self.stack[0]
            operation = operations.get(code)
            if operation is None:
                self.fail(f"uses opcode {code:#04x}, which no state dict needs")
            operation(self)
            if len(self.stack) > _MAX_STACK:
                self.fail(f"holds more than {_MAX_STACK:,} values at once")

    def fail(self, problem: str) -> NoReturn:
        reject(self.file, f"its pickle {problem} (at byte {self.at:,})", "nothing of it was executed")

    # -- input --------------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            self.fail("ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def unsigned(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def signed(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little", signed=True)

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 512)
        if end < 0:
            self.fail("has a name that does not end")
        return self.text(self.take(end + 1 - self.at)[:-1])

    def text(self, raw: bytes) -> str:
        self.charge()
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.fail("has a text that is not UTF-8")

    # -- stack --------------------------------------------------------------------------------------------------

    def charge(self) -> None:
        """Count one object more."""
        self.budget -= 1
        if self.budget < 0:
            self.fail(f"describes too many objects for its {len(self.data):,} bytes")

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            self.fail("takes a value that is not there")
        return self.stack.pop()

    def top(self, kind: type, what: str) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            self.fail(f"{what} something that is not a {kind.__name__}")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        index = len(self.stack) - 1
        while index >= 0 and self.stack[index] is not _MARK:
            index -= 1
        if index < 0:
            self.fail("has no mark where one is needed")
        items = self.stack[index + 1 :]
        del self.stack[index:]
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    # -- operations ---------------------------------------------------------------------------------------------

    def make(self, value: Any) -> None:
        self.charge()
        self.push(value)

    def tuple_of(self, count: int) -> None:
        self.make(tuple(reversed([self.pop() for _ in range(count)])))

    def put(self, index: int) -> None:
        # Picklers number the memo from zero on. This keeps it a list no longer than the pickle.
        if index > len(self.memo):
            self.fail("numbers its memo out of order")
        if not self.stack or self.stack[-1] is _MARK:
            self.fail("remembers a value that is not there")
        self.memo[index : index + 1] = [self.stack[-1]]

    def get(self, index: int) -> None:
        if index >= len(self.memo):
            self.fail("recalls a value that it never remembered")
        self.push(self.memo[index])

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict, "sets items of")
        if len(items) % 2:
            self.fail("sets an item without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float | None):
                self.fail(f"has a key of type {type(key).__name__}")
            if key in target:
                self.fail(f"has the key {quoted(str(key))} twice in one dict")
            target[key] = value

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def append(self, items: list[Any]) -> None:
        self.top(list, "appends to").extend(items)

    def append_one(self) -> None:
        item = self.pop()
        self.append([item])

    def global_(self, module: str, name: str) -> None:
        self.make(self.resolve(module, name))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            self.fail("names something by what is not text")
        self.global_(module, name)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(arguments, tuple):
            self.fail("calls something with what is not a tuple")
        self.make(self.call(function, arguments))

    def build(self) -> None:
        state = self.pop()
        # An OrderedDict of torch carries `_metadata`, versions of modules: nothing that weights need.
        self.top(dict, "sets attributes of")
        if not isinstance(state, dict):
            self.fail("sets attributes from what is not a dict")

    def protocol(self) -> None:
        version = self.byte()
        if version > 5:
            self.fail(f"has protocol {version}")

    def long(self, width: int) -> None:
        length = self.unsigned(width)
        if length > 16:
            self.fail(f"has a number of {length:,} bytes")
        self.push(self.signed(length))


_STOP = ord(".")
_OPERATIONS: dict[int, Callable[[_Machine], Any]] = {
    0x80: _Machine.protocol,
    0x95: lambda m: m.take(8),  # FRAME: how much a reader should fetch at once
    ord("("): lambda m: m.push(_MARK),
    ord("0"): lambda m: m.pop(),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.signed(4)),
    ord("K"): lambda m: m.push(m.unsigned(1)),
    ord("M"): lambda m: m.push(m.unsigned(2)),
    0x8A: lambda m: m.long(1),
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    ord("X"): lambda m: m.push(m.text(m.take(m.unsigned(4)))),
    0x8C: lambda m: m.push(m.text(m.take(m.unsigned(1)))),
    ord("B"): lambda m: m.make(m.take(m.unsigned(4))),
    ord("C"): lambda m: m.make(m.take(m.unsigned(1))),
    ord("}"): lambda m: m.make({}),
    ord("]"): lambda m: m.make([]),
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.make(tuple(m.since_mark())),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("q"): lambda m: m.put(m.unsigned(1)),
    ord("r"): lambda m: m.put(m.unsigned(4)),
    0x94: lambda m: m.put(len(m.memo)),
    ord("h"): lambda m: m.get(m.unsigned(1)),
    ord("j"): lambda m: m.get(m.unsigned(4)),
    ord("s"): _Machine.set_item,
    ord("u"): lambda m: m.set_items(m.since_mark()),
    ord("a"): _Machine.append_one,
    ord("e"): lambda m: m.append(m.since_mark()),
    ord("c"): lambda m: m.global_(m.line(), m.line()),
    0x93: _Machine.stack_global,
    ord("R"): _Machine.reduce,
    ord("Q"): lambda m: m.make(m.persistent(m.pop())),
    ord("b"): _Machine.build,
}
