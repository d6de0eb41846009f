"""Dawn's ``SharedTextureMemoryTests``: textures shared between devices and processes."""

from __future__ import annotations

from pers.testing.case import not_applicable

for _name in (
    "DoubleBeginAccess",
    "ConcurrentWrite",
    "DoubleEndAccess",
    "EndAccessWithoutBegin",
    "UseWithoutBegin",
    "TextureAccessOutlivesMemory",
    "UninitializedTextureIsCleared",
    "CopyToTextureThenSample",
    "BeginEndWithoutUse",
    "RenderThenSample",
    "RenderThenLoseOrDestroyDevice",
    "SeparateDevicesWriteThenConcurrentReadThenWrite",
):
    not_applicable(f"dawn/SharedTextureMemoryTests:{_name}", "managers share, not devices")
