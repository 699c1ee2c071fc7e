# What the scripts beside this one need on a bare Debian machine. To be sourced in the repository's root.

step() { printf '\n== %s\n' "$*"; }

# Installs what is missing of these Debian packages, or names it where it may not.
debian_packages() {
  local package status missing=()
  for package in "$@"; do
    status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  step "install Debian packages: ${missing[*]}"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
      as_root=(sudo)
    else
      printf 'These Debian packages are missing: %s\nInstall them as root, then run this again:\n  apt-get update && apt-get install -y %s\n' \
        "${missing[*]}" "${missing[*]}" >&2
      return 1
    fi
  fi
  "${as_root[@]}" apt-get update -q </dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" </dev/null
}

rust() {
  command -v cargo >/dev/null || { echo "Rust is missing: install it from https://rustup.rs, then run this again" >&2; return 1; }
}

# Python packages, pinned, in an environment of their own: $venv.
python_packages() {
  venv="$target/venv"
  local wanted
  wanted=$( (python3 --version; cat tests/requirements.txt) | sha256sum | cut -d' ' -f1)
  [ "$(cat "$venv/.requirements" 2>/dev/null || true)" != "$wanted" ] || return 0
  step "install Python packages"
  rm -rf "$venv"
  mkdir -p "$target"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --no-input --disable-pip-version-check -r tests/requirements.txt
  echo "$wanted" >"$venv/.requirements"
}
