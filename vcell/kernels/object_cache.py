"""Cache the object code of kernels, and run it without importing numba.

numba writes an object file for every kernel it compiles, with a function in it that Python can
call. To run it, LLVM's loader (llvmlite) and three of numba's extension modules are enough; these
load without the package, in 35 ms instead of 300. This depends on internals of one version of
numba, so a file records the versions and sources that it was made for, and its name the level of
processors (`vcell.kernels.targets`). Code that does not match, or cannot be loaded, is left to
numba. Before a file is written, every symbol that its code uses is looked up, because LLVM would
end the process over a missing one.

A wheel carries such files in `SHIPPED`; others are written where kernels are compiled later. A file
is a line of JSON, with a digest of the rest, and the object code.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import blake2b
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import numpy as np

from vcell.cache import root
from vcell.kernels import targets

_HERE = Path(__file__).parent
#: The folder of code that was compiled when the wheel was built.
SHIPPED = _HERE / "compiled"
#: Settings of numba that do not affect compiled code; with any other, cached code is not used.
_HARMLESS = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER"}
_ENVIRONMENT = "_ZN08NumbaEnv"  # prefix of symbols that hold a function's environment


class _Runtime:
    """LLVM's loader with numba's helpers, and what cached code must have been made for."""

    def __init__(self) -> None:
        if sys.platform != "linux" or struct.calcsize("P") != 8:
            raise OSError("object files are read as ELF of 64 bits")
        if Path(".numba_config.yaml").exists() or _settings():
            raise OSError("numba is configured")
        spec = find_spec("numba")
        if spec is None or spec.origin is None:
            raise ImportError("numba")
        numba = Path(spec.origin).parent
        dynfunc, helpers, memory = (
            _extension(numba, name)
            for name in ("numba._dynfunc", "numba._helperlib", "numba.core.runtime._nrt_python")
        )
        import llvmlite.binding as llvm

        self.symbols = {"_Py_NoneStruct": id(None)}
        for found in (helpers.c_helpers, dynfunc.c_helpers):
            self.symbols |= {f"numba_{name}": address for name, address in found.items()}
        self.symbols |= memory_symbols(memory)
        for name, kind in vars(sys.modules["builtins"]).items():
            if isinstance(kind, type) and issubclass(kind, BaseException):
                self.symbols[f"PyExc_{name}"] = id(kind)
        for name, address in self.symbols.items():
            llvm.add_symbol(name, address)
        memory.memsys_use_cpython_allocator()
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        target = llvm.Target.from_triple(llvm.get_process_triple())
        machine = target.create_target_machine(
            opt=0, jit=True, reloc="static", codemodel="jitdefault"
        )
        self.llvm, self.dynfunc = llvm, dynfunc
        self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        self.made_for = _made_for(numba, Path(llvm.__file__).parents[1])
        self._alive: list[Any] = []

    def function(self, function: Callable[..., Any], code: dict[str, Any]) -> Callable[..., Any]:
        """Make cached code callable."""
        self.engine.add_object_file(self.llvm.ObjectFileRef.from_data(code["object"]))
        self.engine.finalize_object()
        own = None
        for name, constants in code["environments"].items():
            environment = self.dynfunc.Environment(vars(sys.modules[function.__module__]))
            environment.consts[:] = map(np.dtype, constants)
            place = self.engine.get_global_value_address(name)
            ctypes.c_void_p.from_address(place).value = id(environment)
            self._alive.append(environment)
            own = environment if name == code["environment"] else own
        address = self.engine.get_function_address(code["wrapper"])
        if not address:
            raise OSError("the code has no function to call")
        made: Callable[..., Any] = self.dynfunc.make_function(
            sys.modules[function.__module__], function.__name__, function.__doc__ or "", address,
            own or self.dynfunc.Environment({}), (self,),
        )  # fmt: skip
        return made

    def defines(self, name: str) -> bool:
        """Return whether a symbol can be resolved."""
        return name in self.symbols or self.llvm.address_of_symbol(name) is not None


def memory_symbols(memory: Any) -> dict[str, int]:
    """Return the addresses of numba's memory functions by the names that code asks for."""
    return {
        name if name.startswith("_") else f"NRT_{name}": address
        for name, address in memory.c_helpers.items()
    }


def _settings() -> set[str]:
    return {name for name in os.environ if name.startswith("NUMBA_")} - _HARMLESS


def _extension(numba: Path, name: str) -> Any:
    """Load one of numba's extension modules without the package (which uses it, if imported)."""
    if name in sys.modules:
        return sys.modules[name]
    folder = numba.joinpath(*name.split(".")[1:-1])
    spec = PathFinder.find_spec(name, [str(folder)])
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return module


def _made_for(numba: Path, llvmlite: Path) -> str:
    """Return a digest of what compiled code depends on, apart from its target.

    Code calls numba's runtime, whose structures change between versions. Of Python and numpy it
    uses what their minor (numpy: major) versions keep.
    """
    parts = [sys.implementation.cache_tag.encode(), np.__version__.partition(".")[0].encode()]
    parts += [(package / "_version.py").read_bytes() for package in (numba, llvmlite)]
    return _digest_of([*parts, sources().encode()])


@cache
def sources() -> str:
    """Return a digest of the sources of all kernels: functions of one module are part of others."""
    return _digest_of([path.read_bytes() for path in sorted(_HERE.glob("*.py"))])


def _digest_of(parts: list[bytes]) -> str:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


@cache
def runtime() -> _Runtime | None:
    """Return what runs object code, or None if that is left to numba."""
    try:
        return _Runtime()
    except (OSError, ImportError, AttributeError, TypeError, RuntimeError):
        return None


def _folders() -> Iterator[Path]:
    """Yield the folders that code is looked for in."""
    yield SHIPPED
    yield from _writeable()


def _writeable() -> Iterator[Path]:
    """Yield the folders for code that is compiled here; it is written to the first that can be."""
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(named) / "vcell"
        return
    yield _HERE / "__pycache__"
    yield root() / "kernels"


def file_name(kernel: str, signature: str) -> str:
    """Return the name of the file of a kernel, of ``module.name``, for this target."""
    module, _, name = kernel.rpartition(".")
    told = blake2b(f"{module} {signature}".encode(), digest_size=6).hexdigest()
    made_by = f"{targets.chosen().name}.{sys.implementation.cache_tag}"
    return f"{module.rpartition('.')[2]}.{name}-{told}.{made_by}.kernel"


def _full_name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__name__}"


def load(function: Callable[..., Any], signature: str) -> Callable[..., Any] | None:
    """Return a kernel's code for the types of its arguments, or None if there is none."""
    able = runtime()
    if able is None:
        return None
    name = file_name(_full_name(function), signature)
    for folder in _folders():
        try:
            code = read(folder / name)
            if code["made for"] == able.made_for:
                return able.function(function, code)
        except (OSError, KeyError, TypeError, ValueError):
            continue
    return None


def is_saved(kernel: str, signature: str) -> bool:
    """Return whether a process could load a kernel's code for the types of its arguments."""
    able, name = runtime(), file_name(kernel, signature)
    return able is not None and any(_usable(folder / name, able) for folder in _folders())


def _usable(path: Path, able: _Runtime) -> bool:
    try:
        return bool(read(path)["made for"] == able.made_for)
    except (OSError, KeyError, TypeError, ValueError):
        return False


def read(path: Path) -> dict[str, Any]:
    """Read a file that `save` wrote; raise ValueError if it is damaged."""
    head, _, code = path.read_bytes().partition(b"\n")
    told: dict[str, Any] = json.loads(head)
    if told["digest"] != _digest(code):
        raise ValueError("damaged")
    return told | {"object": code}


def _write(path: Path, told: dict[str, Any], code: bytes) -> None:
    head = json.dumps(told | {"digest": _digest(code)})
    path.write_bytes(head.encode() + b"\n" + code)


def _digest(code: bytes) -> str:
    return blake2b(code, digest_size=16).hexdigest()


def save(function: Callable[..., Any], signature: str, code: bytes, result: Any) -> None:
    """Save the object code that numba made for a kernel, if it can run without numba."""
    able = runtime()
    told = None if able is None else _described(able, code, result)
    if able is None or told is None:
        return
    kernel = _full_name(function)
    told |= {"made for": able.made_for, "kernel": kernel, "signature": signature}
    name = file_name(kernel, signature)
    for folder in _writeable():
        aside = folder / f".{name}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(aside, told, code)
            aside.replace(folder / name)
        except OSError:
            aside.unlink(missing_ok=True)
            continue
        return


def _described(able: _Runtime, code: bytes, result: Any) -> dict[str, Any] | None:
    """Return what object code needs to run; None if it needs more of numba."""
    from numba.core.environment import Environment

    memo: Any = Environment._memo
    if result.reload_init or code[:5] != b"\x7fELF\x02":
        return None
    undefined, defined = symbols(code)
    environments: dict[str, list[str]] = {}
    for name in defined:
        if name.startswith(_ENVIRONMENT):
            held = memo.get(name)
            constants = [] if held is None else list(held.consts)
            if not all(isinstance(one, np.dtype) for one in constants):
                return None
            environments[name] = [one.str for one in constants]
    if not all(map(able.defines, undefined)):
        return None
    return {
        "wrapper": result.fndesc.llvm_cpython_wrapper_name,
        "environment": result.fndesc.env_name, "environments": environments,
    }  # fmt: skip


def symbols(code: bytes) -> tuple[set[str], set[str]]:
    """Return the undefined and the defined symbols of an ELF object."""
    (sections_at,) = struct.unpack_from("<Q", code, 40)
    size, number = struct.unpack_from("<HH", code, 58)
    sections = [
        struct.unpack_from("<IIQQQQIIQQ", code, sections_at + i * size) for i in range(number)
    ]
    undefined: set[str] = set()
    defined: set[str] = set()
    for _, kind, _, _, begin, length, link, *_ in sections:
        if kind != 2:  # the table of symbols
            continue
        names = sections[link][4]
        for at in range(begin, begin + length, 24):
            name, _, _, section = struct.unpack_from("<IBBH", code, at)
            text = code[names + name : code.index(b"\0", names + name)].decode()
            if text:
                (defined if section else undefined).add(text)
    return undefined, defined
