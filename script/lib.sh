# shellcheck shell=sh
# The set-up that script/setup, script/run and script/test share. Source it with $root set to the
# repository; it defines functions, does nothing by itself and never repeats finished work.

venv=${root:?}/.venv
stamp=$venv/pers-setup-stamp

say() {
    printf '==> %s\n' "$*" >&2
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# set_up [window [tests]]: everything the package needs; with "window", also a virtual display; with
# "tests", also what only tests use.
set_up() {
    if venv_is_current; then
        current=yes
        python=$venv/bin/python
    else
        current=no
        python=$(find_python) || fail "$(no_python)"
    fi

    packages=$(missing_packages "$python" "${1:-}" "${2:-}")
    if [ -n "$packages" ]; then
        install_packages "$packages"
        packages=$(missing_packages "$python" "${1:-}" "${2:-}")
        [ -z "$packages" ] || fail "$(still_missing "$packages")"
    fi

    [ "$current" = yes ] || make_venv "$python"
    use_venv
    set_up_runtime_dir
}

# --- Python ---------------------------------------------------------------------------------------

# Prints the path of a Python >= 3.11: $PYTHON if set, else the first that can also make virtual
# environments, else the first. Never one inside a virtual environment: that may be .venv itself.
find_python() {
    first=
    for name in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.14 python; do
        path=$("$name" -c '
import sys
if sys.version_info < (3, 11):
    sys.exit(1)
print(getattr(sys, "_base_executable", None) or sys.executable)' 2>/dev/null) || path=
        if [ -n "$path" ]; then
            if can_make_venv "$path"; then
                printf '%s\n' "$path"
                return 0
            fi
            first=${first:-$path}
        fi
        # A Python that was asked for by name is used or refused, never replaced by another.
        [ -z "${PYTHON:-}" ] || break
    done
    [ -n "$first" ] && printf '%s\n' "$first"
}

no_python() {
    if [ -n "${PYTHON:-}" ]; then
        echo "PYTHON=$PYTHON is no Python 3.11 or later"
    else
        cat <<EOF
Python 3.11 or later is needed, and none was found. Install it, then run the script again:
  Debian, Ubuntu  apt-get install python3 python3-venv     (as root, or with sudo)
Where it is installed under another name, give its path: PYTHON=/path/to/python
EOF
    fi
}

can_make_venv() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

# Prints a hash of all that the contents of the virtual environment depend on.
setup_key() {
    "$1" -c '
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
key = hashlib.sha256(f"{sys.version}\0{root}\0".encode())
for name in ("pyproject.toml", "constraints.txt"):
    key.update((root / name).read_bytes())
print(key.hexdigest())' "$root"
}

venv_is_current() {
    [ -f "$stamp" ] || return 1
    key=$(setup_key "$venv/bin/python" 2>/dev/null) || return 1
    [ "$key" = "$(cat "$stamp")" ]
}

# make_venv PYTHON: always from nothing, so that it is what a clean clone would get.
make_venv() {
    say "Setting up .venv with $("$1" --version), once; this takes a minute or two"
    "$1" -m venv --clear "$venv" || fail "$1 could not make $venv (see above)"
    # The build backend is installed like everything else, so that its version is pinned too.
    pip_install hatchling editables
    pip_install --no-build-isolation -e "${root}[cli,test,docs,vulkan]"
    setup_key "$venv/bin/python" >"$stamp.new"
    mv "$stamp.new" "$stamp"
}

# Twice -q: errors only.
pip_install() {
    "$venv/bin/python" -m pip install -qq --no-input --disable-pip-version-check \
        -c "$root/constraints.txt" "$@" ||
        fail "pip could not install the dependencies (see above). Run the script again to retry."
}

use_venv() {
    export VIRTUAL_ENV="$venv"
    export PATH="$venv/bin:$PATH"
    unset PYTHONHOME
}

# --- System packages ------------------------------------------------------------------------------

# Prints the Debian names of the packages that are missing, on one line.
missing_packages() {
    missing=
    can_make_venv "$1" || missing=$(venv_package "$1")
    if [ "$(uname -s)" = Linux ]; then
        has_vulkan_device "$1" || missing="$missing libvulkan1 mesa-vulkan-drivers"
        if [ "$2" = window ] && ! has_display; then
            command -v xvfb-run >/dev/null 2>&1 || missing="$missing xvfb"
            command -v xauth >/dev/null 2>&1 || missing="$missing xauth"
        fi
        # Without this layer a few tests are skipped: no reason to stop where it cannot be had.
        if [ "$3" = tests ] && ! has_validation_layer && can_install; then
            missing="$missing vulkan-validationlayers"
        fi
    fi
    printf '%s\n' "${missing# }"
}

venv_package() {
    "$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
}

has_display() {
    [ "$(uname -s)" != Linux ] || [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]
}

# has_vulkan_device PYTHON [LOADER]: whether Vulkan is there and a driver offers a device. The
# loader itself is asked: it knows the folders of the drivers and the variables that change them,
# and a driver's file can be present without a device for it.
has_vulkan_device() {
    "$1" -c '
import ctypes, struct, sys
try:
    vulkan = ctypes.CDLL(sys.argv[1])
except OSError:
    sys.exit(1)
# VkInstanceCreateInfo with nothing but its type, which is 1, on 32 and 64 bits.
info = ctypes.create_string_buffer(struct.pack("=i", 1), 64)
instance = ctypes.c_void_p()
if vulkan.vkCreateInstance(info, None, ctypes.byref(instance)) != 0:
    sys.exit(1)
count = ctypes.c_uint32()
vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
sys.exit(0 if count.value else 1)' "${2:-libvulkan.so.1}" >/dev/null 2>&1
}

has_validation_layer() {
    for folder in /usr/share /usr/local/share /etc; do
        [ ! -f "$folder/vulkan/explicit_layer.d/VkLayer_khronos_validation.json" ] || return 0
    done
    return 1
}

can_install() {
    command -v apt-get >/dev/null 2>&1 || return 1
    [ "$(id -u)" -eq 0 ] || { command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; }
}

# install_packages "NAME ...": with apt-get, or fails and says what to install.
install_packages() {
    command -v apt-get >/dev/null 2>&1 || fail "$(what_to_install "$1")"
    if [ "$(id -u)" -eq 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        as_root=sudo
    else
        fail "$(what_to_install "$1")"
    fi
    say "Installing with apt-get: $1"
    # Another package manager may be at work on a machine that has just started: wait for it.
    apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300"
    # Stale lists of a package source that is not needed here are no reason to stop.
    $apt update >&2 || say "apt-get update failed; going on with the package lists that are there"
    # shellcheck disable=SC2086
    $apt install -y --no-install-recommends $1 >/dev/null || fail "$(what_to_install "$1")"
}

what_to_install() {
    cat <<EOF
these system packages are missing: $1
(the names are Debian's). Install them, then run the script again:
  Debian, Ubuntu  apt-get install $1     (as root, or with sudo)
  Fedora          dnf install vulkan-loader mesa-vulkan-drivers xorg-x11-server-Xvfb xauth
  Arch            pacman -S vulkan-icd-loader vulkan-swrast xorg-server-xvfb xorg-xauth
EOF
}

still_missing() {
    cat <<EOF
this is installed now, and still does not work: $1
EOF
    for name in VK_DRIVER_FILES VK_ICD_FILENAMES \
        VK_LOADER_DRIVERS_SELECT VK_LOADER_DRIVERS_DISABLE; do
        value=$(printenv "$name") || continue
        echo "$name=$value limits the Vulkan drivers that are found: try without it."
    done
}

# --- Running --------------------------------------------------------------------------------------

# Mesa warns when there is no runtime folder. Sets $scratch, a private folder that goes at exit.
set_up_runtime_dir() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    if [ ! -d "${XDG_RUNTIME_DIR:-}" ]; then
        export XDG_RUNTIME_DIR="$scratch"
    fi
}
