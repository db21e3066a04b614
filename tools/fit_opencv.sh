#!/usr/bin/env bash
# A server without a screen may lack libGL or libglib, which opencv-python's windows need. Then the headless build
# of the same version takes its place: same functions, no windows.
set -eu
python=$1
if "$python" -c 'import cv2' 2>/dev/null; then exit 0; fi
version=$("$python" -m pip list --format=freeze --disable-pip-version-check | sed -n 's/^opencv-python==//p')
echo "opencv-python cannot load here (libGL or libglib is missing): using opencv-python-headless $version instead" >&2
"$python" -m pip uninstall --quiet --yes opencv-python
"$python" -m pip install --quiet --disable-pip-version-check "opencv-python-headless==$version"
"$python" -c 'import cv2'
