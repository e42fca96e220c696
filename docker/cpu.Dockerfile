# docker build --file docker/cpu.Dockerfile --tag sketchify-rt .
# docker run --rm --volume "$PWD:/data" --user "$(id -u):$(id -g)" sketchify-rt convert scans/ -o out

FROM python:3.13-slim AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# Without pip and without a compiler; Python's bytecode is made here, since the user cannot write it.
RUN python -m venv --without-pip /opt/sketchify-rt \
    && pip --python /opt/sketchify-rt/bin/python install --no-cache-dir .

FROM python:3.13-slim
COPY --from=build /opt/sketchify-rt /opt/sketchify-rt
RUN useradd --uid 1000 --create-home sketchify
ENV PATH=/opt/sketchify-rt/bin:$PATH
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["sketchify-rt"]
CMD ["--help"]
