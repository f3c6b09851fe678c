# Hilum in an image: built in one stage, run from another that holds the program, ONNX Runtime and the networks.
#
#   docker build -t hilum .                                   CPU
#   docker build -t hilum:gpu --build-arg RUNTIME=gpu .        CUDA (see docker-compose.gpu.yml)
ARG RUNTIME=cpu

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake g++ python3-pip && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN scripts/setup.sh && cargo build --release --locked --bin hilum

FROM build AS runtime-cpu
RUN mkdir /onnxruntime && cp -a .runtime/. /onnxruntime/

FROM build AS runtime-gpu
RUN pip download --no-deps --only-binary :all: --python-version 311 --dest /wheel onnxruntime-gpu==1.31.1 \
    && mkdir /onnxruntime && cd /onnxruntime && python3 -m zipfile -e /wheel/*.whl /unpacked \
    && cp -a /unpacked/onnxruntime/capi/libonnxruntime* /onnxruntime/

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
    ORT_DISABLE_TELEMETRY=1
USER hilum
VOLUME /var/lib/hilum
EXPOSE 8043
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD curl -fsS http://127.0.0.1:8043/healthz || exit 1
ENTRYPOINT ["hilum"]
CMD ["serve"]
