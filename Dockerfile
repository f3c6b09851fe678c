# Hilum in an image: built in one stage, run from another that holds the program, ONNX Runtime and the networks.
#
#   docker build -t hilum .                                   CPU
#   docker build -t hilum:gpu --build-arg RUNTIME=gpu .        CUDA (see docker-compose.gpu.yml); never built, never run on a GPU
ARG RUNTIME=cpu

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake g++ python3-pip && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN scripts/setup.sh && cargo build --release --locked --bin hilum

FROM build AS runtime-cpu
RUN mkdir /onnxruntime && cp -a .runtime/libonnxruntime.* /onnxruntime/

# ONNX Runtime for GPUs, CUDA 13 and cuDNN 9 in one folder; the driver comes from the host. Every library that scripts/gpu-wheels.txt names must be there afterwards.
FROM build AS runtime-gpu
RUN python3 -m pip download --no-deps --only-binary :all: --require-hashes --python-version 311 --dest /wheels --requirement scripts/gpu-wheels.txt \
    && for wheel in /wheels/*.whl; do python3 -m zipfile -e "$wheel" /unpacked; done \
    && mkdir /onnxruntime && cp /unpacked/onnxruntime/capi/libonnxruntime* /unpacked/nvidia/*/lib/*.so* /onnxruntime/ \
    && rm -rf /wheels /unpacked \
    && for library in $(grep -o 'lib[A-Za-z_]*\.so[.0-9]*' scripts/gpu-wheels.txt); do test -s "/onnxruntime/$library" || exit 1; done

FROM runtime-${RUNTIME} AS runtime

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/hilum --create-home hilum
COPY --from=build /source/target/release/hilum /usr/local/bin/hilum
COPY --from=build /source/onnx/*.onnx /source/onnx/*.toml /usr/local/share/hilum/onnx/
COPY --from=runtime /onnxruntime /usr/local/lib/onnxruntime
ENV HILUM_MODEL__FOLDER=/usr/local/share/hilum/onnx \
    HILUM_MODEL__RUNTIME_LIBRARY=/usr/local/lib/onnxruntime \
    HILUM_SERVICE__DATA_FOLDER=/var/lib/hilum \
    HILUM_SERVICE__LISTEN=0.0.0.0:8043 \
    LD_LIBRARY_PATH=/usr/local/lib/onnxruntime \
    ORT_DISABLE_TELEMETRY=1
USER hilum
VOLUME /var/lib/hilum
EXPOSE 8043
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD curl -fsS http://127.0.0.1:8043/healthz || exit 1
ENTRYPOINT ["hilum"]
CMD ["serve"]
