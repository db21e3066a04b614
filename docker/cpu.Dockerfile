# The runtime on a CPU. Not built by CI: see the support table of the README.
#   docker build -f docker/cpu.Dockerfile -t perception:cpu .
#   docker run --rm -v "$PWD:/data" perception:cpu run /data/drive.mp4 --out /data/out
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
# The CPU build of ONNX Runtime has the same Python package at a fraction of the size.
RUN pip install --no-cache-dir /wheels/*.whl \
 && pip uninstall --yes onnxruntime-gpu \
 && pip install --no-cache-dir onnxruntime
RUN useradd --create-home perception
USER perception
WORKDIR /home/perception
ENTRYPOINT ["perception"]
CMD ["--help"]
