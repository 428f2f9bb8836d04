#!/usr/bin/env bash
# uv in ~/.local/bin: of one version, from PyPI, and nothing that is fetched is run unless its bytes are
# those that were pinned; a uv of that version that is there already is kept.
#
# To take a newer one, change VERSION, and for both kinds of machine address and hash to what PyPI says of it:
#   python3 -m pip install --dry-run --ignore-installed --no-deps --only-binary=:all: --target /tmp/none --report - \
#       --platform manylinux_2_17_x86_64 uv==VERSION | grep -E '"(url|sha256)"'
# (and manylinux_2_17_aarch64). `pytest -m cluster` compares them with the index again.
set -euo pipefail

VERSION=0.13.9
case "$(uname -m)" in
    x86_64)
        WHEEL=3d/aa/26d64642d808de4a652579ef950d7cd2d37f080a8babf9c67c6b75fc4c3f/uv-$VERSION-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl
        SHA256=d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19
        ;;
    aarch64)
        WHEEL=57/15/94b6cd62ac3ff6550288328e8035288875197cbc183f51554b266a69877b/uv-$VERSION-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl
        SHA256=5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe
        ;;
    *)
        echo "error: $(uname -m): uv is pinned for x86_64 and aarch64 (sweeps/cluster/uv.sh)" >&2
        exit 1
        ;;
esac

UV=$HOME/.local/bin/uv
if [ -x "$UV" ] && [ "$("$UV" --version | cut -d ' ' -f 2)" = "$VERSION" ]; then
    exit 0
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
curl --silent --show-error --fail --location --proto '=https' --retry 5 --output "$folder/uv.whl" \
    "https://files.pythonhosted.org/packages/$WHEEL"
if ! echo "$SHA256  $folder/uv.whl" | sha256sum --check --status; then
    echo "error: what files.pythonhosted.org sent is not uv $VERSION: its SHA-256 is" \
        "$(sha256sum < "$folder/uv.whl" | cut -d ' ' -f 1), pinned is $SHA256 (sweeps/cluster/uv.sh)" >&2
    exit 1
fi
python3 -m zipfile -e "$folder/uv.whl" "$folder" # plain Ubuntu has no unzip
install -D -m 755 "$folder/uv-$VERSION.data/scripts/uv" "$UV"
