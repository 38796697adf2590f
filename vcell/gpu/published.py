"""Published figures of GPUs, for estimates on machines that have none.

Peak rates are for dense matrices, from the data sheets named next to each card; training reaches a
share of them. Nothing here was measured by vcell.
"""

from __future__ import annotations

from dataclasses import dataclass

from vcell.errors import UserError
from vcell.suggest import did_you_mean


@dataclass(frozen=True)
class Sheet:
    """One card's data sheet.

    Attributes
    ----------
    name
        Full name.
    half, single
        TFLOP/s in bf16 or fp16, and in float32 without tensor cores.
    bandwidth
        Bandwidth of its memory in GB/s.
    memory
        Size of its memory in GB.
    watts
        Maximum power.
    capability
        CUDA's compute capability.
    """

    name: str
    half: float
    single: float
    bandwidth: float
    memory: float
    watts: float
    capability: tuple[int, int]

    def peak(self, precision: str) -> float:
        """Return FLOP/s in a precision; tf32 is half of bf16 on every card that has it.

        Cards before Ampere have neither, and use float32 instead.
        """
        rate = {"bf16": self.half, "fp16": self.half, "tf32": self.half / 2}
        if self.capability < (8, 0):
            rate = {"fp16": self.half}
        return 1e12 * rate.get(precision, self.single)


# Sources: NVIDIA's data sheet of each product (V100 2020, T4 2019, A10 2021, A100, L4
# and L40S 2023, H100, H200, HGX B200 in the Blackwell brief; the GeForce
# cards in the whitepapers of GA102 and AD102). Sheets of Ampere and later print rates with
# sparsity: halved here. Compared in November 2026 with tables that quote them:
# glennklockwood.com/garden (A100; B200: 2,250 dense, 1,000 W), docs.vultr.com (HGX B200: 179 GB,
# 8 TB/s; the 180 GB edition has 7.7), gigagpu.com (4090: 165.2 with float32 sums), manuals.plus
# (H100 PCIe: 350 W, 2 TB/s). GeForce rates are those with float32 sums, which training takes.
SHEETS = {
    "v100": Sheet("Tesla V100 SXM2 32GB", 125, 15.7, 900, 32, 300, (7, 0)),
    "t4": Sheet("Tesla T4", 65, 8.1, 320, 16, 70, (7, 5)),
    "a10": Sheet("NVIDIA A10", 125, 31.2, 600, 24, 150, (8, 6)),
    "a100-40": Sheet("NVIDIA A100 SXM4 40GB", 312, 19.5, 1555, 40, 400, (8, 0)),
    "a100": Sheet("NVIDIA A100 SXM4 80GB", 312, 19.5, 2039, 80, 400, (8, 0)),
    "l4": Sheet("NVIDIA L4", 121, 30.3, 300, 24, 72, (8, 9)),
    "l40s": Sheet("NVIDIA L40S", 362, 91.6, 864, 48, 350, (8, 9)),
    "rtx3090": Sheet("NVIDIA GeForce RTX 3090", 71, 35.6, 936, 24, 350, (8, 6)),
    "rtx4090": Sheet("NVIDIA GeForce RTX 4090", 165, 82.6, 1008, 24, 450, (8, 9)),
    "h100": Sheet("NVIDIA H100 SXM5 80GB", 989, 67, 3350, 80, 700, (9, 0)),
    "h100-pcie": Sheet("NVIDIA H100 PCIe 80GB", 756, 51, 2000, 80, 350, (9, 0)),
    "h200": Sheet("NVIDIA H200 SXM5 141GB", 989, 67, 4800, 141, 700, (9, 0)),
    "b200": Sheet("NVIDIA B200 180GB", 2250, 75, 7700, 180, 1000, (10, 0)),
}
#: Shares of the peak that training of transformers reaches, from careless to well tuned.
REACHED = (0.2, 0.5)
ESTIMATED = (
    f"estimated from the card's published rates, at {REACHED[0]:.0%} to {REACHED[1]:.0%} of its "
    "peak: not measured, and without data loading, validation and communication"
)


def sheet(name: str) -> Sheet:
    """Return a card's sheet; the error for an unknown card lists the known ones."""
    key = name.lower().replace(" ", "").replace("_", "-")
    if key not in SHEETS:
        raise UserError(
            f"no published figures are known of a GPU {name!r}{did_you_mean(key, SHEETS)}",
            hint=f"--gpu takes {', '.join(SHEETS)}",
        )
    return SHEETS[key]


def seconds(card: Sheet, flops: float, moved: float, precision: str) -> tuple[float, float]:
    """Return lower and upper estimates of the seconds of some work.

    Parameters
    ----------
    card
        The sheet of the card.
    flops, moved
        FLOPs of matrix products, and bytes of other memory traffic.
    precision
        Precision of the products.
    """
    memory = moved / (1e9 * card.bandwidth)
    least, most = (flops / (card.peak(precision) * share) for share in reversed(REACHED))
    return least + memory, most + 2 * memory


def bill(card: Sheet, least: float, most: float, n: int = 1) -> dict[str, str]:
    """Describe the cost of work that takes `least` to `most` seconds on each of `n` cards."""
    hours = [least / 3600, most / 3600]
    kwh = [one * n * card.watts / 1000 for one in hours]
    return {
        "hours": f"{hours[0]:.2g} to {hours[1]:.2g}, on {n} x {card.name}",
        "GPU-hours": f"{hours[0] * n:.2g} to {hours[1] * n:.2g}",
        "kWh": f"{kwh[0]:.2g} to {kwh[1]:.2g}, at {card.watts:.0f} W each",
    }
