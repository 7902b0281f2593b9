# Sourced by the other scripts. Sets $root, $venv and $python; `setup` makes the environment current.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="$root/.venv"
python="$venv/bin/python"
stamp="$venv/installed"

export PIP_DISABLE_PIP_VERSION_CHECK=1
export HF_HUB_OFFLINE=1
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # spinning threads cost a shared machine more than waking them does
export TOKENIZERS_PARALLELISM=false

# With stdin closed, the next opened file would become descriptor 0.
{ : <&0; } 2>/dev/null || exec </dev/null

say() { printf '%s\n' "$*" >&2; }

die() {
  local code=$1
  shift
  say "error: $*"
  exit "$code"
}

is_supported() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' </dev/null 2>/dev/null; }

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python; do
    if is_supported "$candidate"; then
      printf '%s' "$candidate"
      return
    fi
  done
  die 69 "no Python 3.11 or newer found; install one, or name it: PYTHON=path/to/python3.11 scripts/setup"
}

make_venv() {
  local base
  base="$(find_python)"
  say "setup: making .venv with $("$base" --version)"
  "$base" -m venv --clear "$venv" >&2 || die 69 "'$base -m venv' failed; on Debian and Ubuntu: install python3-venv"
}

pip_install() {
  local attempt
  for attempt in 1 2; do
    if (cd "$root" && "$python" -m pip install -qq -c constraints.txt "$@") >&2; then return; fi
    if [[ $attempt == 1 ]]; then
      say "setup: pip failed; trying once more in 5 s"
      sleep 5
    fi
  done
  die 69 "pip could not install $*; see its message above, then run the same command again"
}

# What the environment depends on: where it lies, and the two files that say what is in it.
wanted() {
  printf '%s\n' "$root"
  cat "$root/pyproject.toml" "$root/constraints.txt"
}

setup() {
  if is_supported "$python" && wanted | cmp -s - "$stamp" 2>/dev/null; then return; fi
  is_supported "$python" || make_venv
  rm -f "$stamp"
  say "setup: installing PyTorch, the largest part (elapsed ${SECONDS} s)"
  pip_install torch setuptools
  say "setup: installing rlhf and what it needs (elapsed ${SECONDS} s)"
  pip_install --no-build-isolation -e '.[dev]'
  wanted >"$stamp"
  say "setup: done (elapsed ${SECONDS} s)"
}
