# The runtime on an NVIDIA GPU. Not built by CI: see the support table of the README.
#   docker build -f docker/cuda.Dockerfile -t perception:cuda .
#   docker run --rm --gpus all -v "$PWD:/data" perception:cuda run /data/drive.mp4 --device cuda --out /data/out
# The host needs the NVIDIA driver and the NVIDIA Container Toolkit. CUDA and cuDNN come as Python wheels.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir /wheels/*.whl 'onnxruntime-gpu[cuda,cudnn]>=1.31'
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
RUN useradd --create-home perception
USER perception
WORKDIR /home/perception
ENTRYPOINT ["perception"]
CMD ["--help"]
