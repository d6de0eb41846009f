"""Ways to end a program that uses Vulkan.

``unclosed`` ends with everything open, ``threads`` with daemon threads in the driver, ``garbage``
after dropping all of it, ``stuck`` after waiting for a semaphore that nobody signals, and
``interrupted`` after SIGINT in the middle of such a wait.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time

from pers import OperationNotSupportedError, VulkanTextureShareManager, WaitTimeoutError
from tests.sharing.support import describe, picture


def use(manager: VulkanTextureShareManager) -> list[object]:
    texture = manager.create_shareable_texture(describe())
    buffer = manager.create_shareable_buffer(100)
    handle = manager.export_texture(texture)
    imported = manager.import_texture(handle, describe())
    with texture.access(write=True) as view:
        view.upload(picture(describe(), 1))
    with buffer.access(write=True) as view:
        try:
            array = view.as_array()
        except OperationNotSupportedError:  # a discrete GPU
            array = None
    return [texture, buffer, handle, imported, view, array]


def hammer(manager: VulkanTextureShareManager) -> None:
    while True:
        use(manager)


def stuck(manager: VulkanTextureShareManager) -> None:
    texture = manager.create_shareable_texture(describe())
    never = manager.create_semaphore("binary")
    for _ in range(2):
        try:
            with texture.access(wait=[never]) as view:
                view.download()
        except WaitTimeoutError as error:
            print(error)
        else:
            print("no error")
    texture.close()
    manager.close()


def interrupted(manager: VulkanTextureShareManager) -> None:
    globals()["kept"] = manager  # to close it would wait for the GPU
    texture = manager.create_shareable_texture(describe())
    never = manager.create_semaphore("binary")
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with texture.access(wait=[never]) as view:
            view.download()
    except KeyboardInterrupt:
        print("interrupted")


def main() -> None:
    logging.basicConfig()
    kind = sys.argv[1]
    limits = {"stuck": 10**9, "interrupted": 10**12}
    manager = VulkanTextureShareManager(timeout_ns=limits.get(kind, 10**10))
    if kind in limits:
        globals()[kind](manager)
        return
    globals()["kept"] = kept = [manager, *use(manager)]
    if kind == "threads":
        threading.excepthook = lambda _: None  # at exit they find their textures closed
        for _ in range(4):
            threading.Thread(target=hammer, args=(manager,), daemon=True).start()
        time.sleep(0.2)
    if kind == "garbage":
        del globals()["kept"], manager
        kept.clear()
        gc.collect()
    print("end")


if __name__ == "__main__":
    main()
