"""``vcell doctor``: show what this machine has, and how to get what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import time
from importlib import metadata

import click

from vcell import __version__, bytecode, console, plugin
from vcell.cores import cores

OK, NOTE, BAD = "ok", "note", "MISSING"
_PACKAGES = [
    "torch",
    "anndata",
    "h5py",
    "zarr",
    "numba",
    "numpy",
    "scipy",
    "pandas",
    "safetensors",
    "textual",
    "rich",
    "click",
    "nvidia-ml-py",
]


@click.command()
@click.option(
    "--compile", "ahead", is_flag=True,
    help="Compile what is missing now: kernels for this processor, on all cores, and bytecode.",
)  # fmt: skip
@click.pass_context
def doctor(ctx: click.Context, *, ahead: bool) -> None:
    r"""Show what this machine has, and how to get what is missing.

    A wheel brings compiled kernels, and pip writes bytecode. If any are missing, --compile makes
    them, and no command has to wait for a compiler.

    \b
    Example: vcell doctor --json
    """
    findings = [*_machine(), *_packages(), *_kernels(compile_now=ahead)]
    findings += [*_bytecode(compile_now=ahead), *_torch(), *_gpus(), *_plugins()]
    rows = [[f["state"], f["what"], f["found"], f["advice"]] for f in findings]
    text = console.table(rows, ["", "what", "found", "what to do"])
    console.result({"vcell": __version__, "findings": findings}, text)
    if any(f["state"] == BAD for f in findings):
        ctx.exit(1)


def _finding(what: str, found: object, state: str = OK, advice: str = "") -> dict[str, str]:
    return {"what": what, "found": str(found), "state": state, "advice": advice}


def _kernels(*, compile_now: bool) -> list[dict[str, str]]:
    """Compile the kernels that are missing, if asked to; say which there are."""
    try:
        from vcell.kernels import ahead, targets
    except ImportError:  # numpy or numba is listed as missing
        return []
    started = time.monotonic()
    n = ahead.compile_all(cores()) if compile_now else 0
    every, left = (sum(map(len, one().values())) for one in (ahead.listed, ahead.missing))
    found = f"{every - left} of {every} compiled for {targets.chosen().name}"
    if n:
        found += f", {n} of them in {console.duration(time.monotonic() - started)}"
    advice = "vcell doctor --compile, or commands compile them when first used" if left else ""
    return [_finding("kernels", found, NOTE if left else OK, advice)]


def _bytecode(*, compile_now: bool) -> list[dict[str, str]]:
    """Write the bytecode that is missing, if asked to; say how much there is."""
    if compile_now:
        bytecode.write()
    current = list(bytecode.sources().values())
    found = f"{sum(current):,} of {len(current):,} sources"
    if all(current) or not sys.dont_write_bytecode:  # Python writes the rest at their first import
        return [_finding("bytecode", found)]
    advice = (
        "PYTHONDONTWRITEBYTECODE is set, so every command starts slowly: vcell doctor --compile"
    )
    return [_finding("bytecode", found, NOTE, advice)]


def _machine() -> list[dict[str, str]]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = shutil.disk_usage(".").free
    few = free < 2 << 30
    return [
        _finding("vcell", __version__),
        _finding("Python", f"{platform.python_version()} on {platform.platform(terse=True)}"),
        _finding("cores", cores()),
        _finding("memory", console.bytes_text(pages)),
        _finding(
            "disk free here",
            console.bytes_text(free),
            NOTE if few else OK,
            "runs and stores need room" if few else "",
        ),
    ]


def _packages() -> list[dict[str, str]]:
    findings = []
    for name in _PACKAGES:
        try:
            findings.append(_finding(name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            findings.append(_finding(name, "not installed", BAD, f"pip install {name}"))
    return findings


def _torch() -> list[dict[str, str]]:
    if importlib.util.find_spec("torch") is None:
        return []  # reported among the packages
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        devices = _finding("torch devices", ", ".join(names))
    elif torch.backends.mps.is_available():
        devices = _finding("torch devices", "Apple GPU (mps)")
    else:
        devices = _finding(
            "torch devices",
            f"CPU only, {torch.get_num_threads()} threads",
            NOTE,
            "enough for the demo; train base models on a GPU",
        )
    return [devices, _attention(cuda=torch.cuda.is_available())]


def _attention(*, cuda: bool) -> dict[str, str]:
    if importlib.util.find_spec("flash_attn") is not None and cuda:
        return _finding("attention", "flash-attn " + metadata.version("flash-attn"))
    used = "torch's own scaled_dot_product_attention is used"
    advice = "pip install 'vcell[flash]' (builds from source)" if cuda else ""
    why = "flash-attn is not installed" if cuda else "no CUDA device"
    return _finding("attention", f"{used} ({why})", NOTE if cuda else OK, advice)


def _gpus() -> list[dict[str, str]]:
    from vcell.gpu.agreement import ask_torch, disagreement
    from vcell.gpu.nvml import devices

    seen = devices()
    if not seen.devices:
        return [_finding("NVIDIA GPUs", f"none: {seen.reason}", NOTE, seen.remedy)]
    sizes = [console.bytes_text(d.memory) if d.memory else "memory unknown" for d in seen.devices]
    texts = [f"{d.name} ({size})" for d, size in zip(seen.devices, sizes, strict=True)]
    findings = [_finding("NVIDIA GPUs", f"{', '.join(texts)}; driver {seen.driver}")]
    findings += [_finding("NVIDIA GPUs", problem, NOTE) for problem in seen.problems]
    if importlib.util.find_spec("torch") is not None:
        problem, remedy = disagreement(seen, ask_torch())
        if problem:
            findings.append(_finding("torch and the driver", problem, BAD, remedy))
    return findings


def _plugins() -> list[dict[str, str]]:
    findings = []
    for name in plugin.discover().plugins:
        loaded = plugin.load(name)
        if isinstance(loaded, plugin.Broken):
            advice = f"vcell plugins check {name}"
            findings.append(_finding(f"plugin {name}", loaded.reason, BAD, advice))
        elif missing := plugin.missing_needs(loaded):
            advice = f"pip install {' '.join(missing)}"
            findings.append(_finding(f"plugin {name}", f"needs {missing}", BAD, advice))
    working = len(plugin.discover().plugins) - len(findings)
    findings.insert(0, _finding("plugins", f"{working} load"))
    return findings + [_finding("plugins", problem, NOTE) for problem in plugin.discover().problems]
