"""What can be rented: a few GPU types with their pools, a few data centers, and CPU flavors' memory.

Names of pools and types are real; prices and stock are made up and stay as they are.
"""

from __future__ import annotations

from typing import Any


POOLS = {
    "AMPERE_16": ("NVIDIA RTX A4000", "NVIDIA RTX A4500", "NVIDIA RTX 4000 Ada Generation"),
    "AMPERE_24": ("NVIDIA L4", "NVIDIA RTX A5000", "NVIDIA GeForce RTX 3090"),
    "ADA_24": ("NVIDIA GeForce RTX 4090",),
    "AMPERE_48": ("NVIDIA A40", "NVIDIA RTX A6000"),
    "ADA_48_PRO": ("NVIDIA L40", "NVIDIA L40S", "NVIDIA RTX 6000 Ada Generation"),
    "AMPERE_80": ("NVIDIA A100 80GB PCIe", "NVIDIA A100-SXM4-80GB"),
    "ADA_80_PRO": ("NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3"),
    "HOPPER_141": ("NVIDIA H200",),
}
DATA_CENTERS = {
    "EU-RO-1": "EUROPE",
    "EU-CZ-1": "EUROPE",
    "US-KS-2": "NORTH_AMERICA",
    "US-TX-3": "NORTH_AMERICA",
}
CUDA_VERSIONS = ("12.4", "12.6", "12.8", "13.0")
FLAVOR_GB_PER_VCPU = {"cpu3c": 2, "cpu3g": 4, "cpu5c": 2, "cpu5g": 4}


def gpu_types(*, has_stock: bool) -> list[dict[str, Any]]:
    """Return the GPU types, with availability where the request includes it."""
    return [_gpu_type(name, pool, has_stock=has_stock) for pool, names in POOLS.items() for name in names]


def data_centers() -> list[dict[str, Any]]:
    """Return the data centers."""
    return [
        {
            "id": name,
            "name": name,
            "region": region,
            "globalNetwork": True,
            "networkVolumeTypes": ["STANDARD", "HIGH_PERFORMANCE"],
            "compliance": ["SOC_2_TYPE_2"],
        }
        for name, region in DATA_CENTERS.items()
    ]


def _gpu_type(name: str, pool: str, *, has_stock: bool) -> dict[str, Any]:
    stock = {
        "availability": "HIGH",
        "dataCenters": [{"id": place, "name": place, "availability": "HIGH"} for place in DATA_CENTERS],
        "cudaVersions": [{"version": version, "available": True} for version in CUDA_VERSIONS],
    }
    return {
        "id": name,
        "name": name.removeprefix("NVIDIA "),
        "pool": pool,
        "manufacturer": "NVIDIA",
        "memory": int(pool.split("_")[1]),
        "secure": True,
        "community": False,
        "price": {"secure": 0.5, "community": 0.0, "serverless": 1.0},
        "maxCount": {"secure": 8, "community": 0},
    } | (stock if has_stock else {})
