"""Sharing on macOS: textures in an ``IOSurface``, events as ``MTLSharedEvent``.

**No Metal hardware has run this backend.** It is written after Apple's documentation and headers
and the metadata of pyobjc, and tested against a stand-in for them that keeps real bytes and
refuses calls out of order. Read it as such, and report what a Mac says.

A surface is memory that all processes and GPUs of the machine can use without a copy; Metal sees it
as a texture with one layer and one level (Apple, ``newTextureWithDescriptor:iosurface:plane:``).
What differs from the other backends:

- A handle is a number, without file descriptors. It keeps nothing alive: the texture it stands
  for must stay open until it is imported. And it has no control page: nothing keeps another
  process from writing during an access, and `signal_texture_ready` tells nobody else. Send a
  message of your own.
- For other processes to find it by its number, a surface has to be global
  (``kIOSurfaceIsGlobal``). Then every process of the machine that guesses the number sees the
  pixels. With ``system_wide=False`` only this process finds it.
- A shared event crosses processes through XPC alone: its ``MTLSharedEventHandle`` is coded by
  ``NSXPCConnection`` and by nothing else. So the handle of an event is good in this process, where
  it lets several managers wait for each other's GPU work. Between processes the hand-over is by
  CPU: an access that ends without a signal waits for the GPU.
- Semaphores, fences and buffers cannot be shared: there is nothing of Metal's to send for them.
"""

from pers.backends.metal.device import MetalShareDevice
from pers.backends.metal.manager import MetalTextureShareManager

__all__ = ["MetalShareDevice", "MetalTextureShareManager"]
