"""The software drivers that the tests of the vulkan backend run on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pers import VulkanTextureShareManager
from tests.sharing.support import describe, picture

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHONPATH = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def _first(*patterns: str) -> str | None:
    found = [path for pattern in patterns for path in sorted(Path("/").glob(pattern.lstrip("/")))]
    return str(found[0]) if found else None


ICDS = {
    "lavapipe": _first("/usr/share/vulkan/icd.d/lvp_icd*.json", "/etc/vulkan/icd.d/lvp_icd*.json"),
    "swiftshader": _first(
        "/usr/lib/chromium/vk_swiftshader_icd.json",
        "/usr/lib*/chromium-browser/vk_swiftshader_icd.json",
        "/opt/google/chrome/vk_swiftshader_icd.json",
        "/usr/share/vulkan/icd.d/vk_swiftshader_icd.json",
    ),
}
NVIDIA = _first(
    "/usr/share/vulkan/icd.d/nvidia_icd*.json",
    "/etc/vulkan/icd.d/nvidia_icd*.json",
    "/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd*.json",
)
if NVIDIA is not None:  # not everybody can install that one
    ICDS["nvidia"] = NVIDIA
VALIDATION = _first(
    "/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json",
    "/etc/vulkan/explicit_layer.d/VkLayer_khronos_validation.json",
)


def need(driver: str) -> str:
    """Return the driver's file, or skip the test where it is not installed."""
    icd = ICDS[driver]
    if icd is None:
        pytest.skip(f"{driver} is not installed")
    return icd


def environment(driver: str) -> dict[str, str]:
    """Return the variables that make a driver the only one."""
    icd = need(driver)
    return {"VK_DRIVER_FILES": icd, "VK_ICD_FILENAMES": icd}


def start(
    driver: str, program: str, *arguments: str, fds: tuple[int, ...] = (), **variables: str
) -> subprocess.Popen[str]:
    """Start one of the programs in a process of its own."""
    return subprocess.Popen(
        [
            *(sys.executable, "-X", "faulthandler"),
            *("-m", f"tests.sharing.programs.{program}", *arguments),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": PYTHONPATH, **environment(driver), **variables},
        pass_fds=fds,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(driver: str, program: str, *arguments: str, timeout: float = 60, **variables: str) -> str:
    """Run a program to its end, which has to be a good one, and return what it printed."""
    return finish(start(driver, program, *arguments, **variables), timeout)


def finish(process: subprocess.Popen[str], timeout: float = 60) -> str:
    """Wait for a program, which has to end well, and return what it printed."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"hangs: {out}\n{err}")
    assert process.returncode == 0, f"{process.returncode}: {out}\n{err}"
    assert "Exception ignored" not in err, err
    return out + err


def open_on(driver: str, **options: Any) -> VulkanTextureShareManager:
    """Open a manager on one driver; the loader reads the variables at every new instance."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(driver).items():
            patch.setenv(name, value)
        return VulkanTextureShareManager(**options)


def shared(one: Any, other: Any, **changes: Any) -> tuple[Any, Any]:
    descriptor = describe(**changes)
    texture = one.create_shareable_texture(descriptor)
    with one.export_texture(texture) as handle:
        return texture, other.import_texture(handle, descriptor)


def write(texture: Any, seed: int) -> None:
    with texture.access(write=True) as view:
        view.upload(picture(texture.descriptor, seed))


def assert_holds(texture: Any, seed: int) -> None:
    with texture.access() as view:
        np.testing.assert_array_equal(view.download(), picture(texture.descriptor, seed))
